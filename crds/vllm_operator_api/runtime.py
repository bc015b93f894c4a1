"""Contract between the operator and the processes it starts in a user's namespace.

The operator writes these into pods; ``vllm-runtime``, the job driver and the model-facts reader read them. Each
program gets its configuration as one JSON document in one environment variable, and tells its end in its termination
message.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

RUNTIME_CONFIG_ENV: Final = "VLLM_RUNTIME_CONFIG"
"""JSON of ``RuntimeConfig`` for the engine container."""
DRIVER_CONFIG_ENV: Final = "VLLM_OPERATOR_DRIVER_CONFIG"
"""JSON of ``DriverConfig`` for a job driver."""
MODEL_FACTS_CONFIG_ENV: Final = "VLLM_OPERATOR_MODEL_FACTS_CONFIG"
"""JSON of ``ModelFactsConfig`` for a model-facts reader."""
POD_NAME_ENV: Final = "POD_NAME"
POD_UID_ENV: Final = "POD_UID"
NODE_NAME_ENV: Final = "NODE_NAME"

ENGINE_PORT: Final = 8000
SUPERVISOR_PORT: Final = 8081
"""Health and metrics of ``vllm-runtime`` itself: ``/healthz``, ``/metrics``."""

MODEL_MOUNT_PATH: Final = "/mnt/model"
"""Where a ``pvc://`` model's claim is mounted, read-only."""
QUEUE_CREDENTIALS_MOUNT_PATH: Final = "/var/run/secrets/vllm-operator/queue"
"""Where the Secret with the queue credentials is mounted: file ``seed`` (an nkey user seed) or ``entropy``."""
HOME_PATH: Final = "/home/vllm"
TMP_PATH: Final = "/tmp"  # noqa: S108 - an emptyDir of the pod's own
INPUT_MOUNT_PATH: Final = "/mnt/input"
OUTPUT_MOUNT_PATH: Final = "/mnt/output"
RUNTIME_UID: Final = 2000
"""User of the runtime image, as in vLLM's own image."""
OPERATOR_UID: Final = 65532
TERMINATION_MESSAGE_PATH: Final = "/dev/termination-log"
MAX_TERMINATION_MESSAGE_BYTES: Final = 4096
"""The kubelet's limit for one container."""

INSTANCE_JSON_PATH: Final = "/etc/vllm-runtime/image.json"
"""What the image is: ``ImageFacts``, written at build."""
ENGINE_OPTIONS_PATH: Final = "/etc/vllm-runtime/engine-options.json"
"""The options this image's vLLM knows, dumped from its parser at build."""


class Document(BaseModel):
    """Base of the documents here: unknown fields of a newer peer are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class ImageFacts(Document):
    """What kind of runtime image this is (``INSTANCE_JSON_PATH``)."""

    device: Literal["cuda", "cpu"]
    vllm_version: str = Field(alias="vllmVersion")
    default_args: list[str] = Field(default=[], alias="defaultArgs")
    """vLLM options that come before all others, so that the service's own win."""
    pass_env: list[str] = Field(default=[], alias="passEnv")
    """Names of the image's environment variables that the engine gets besides the allow-list."""


class QueueConfig(Document):
    """How a process in a user's namespace reaches the queue."""

    url: str
    queue_id: str
    """Uid of the LLMService."""
    credentials_directory: str = QUEUE_CREDENTIALS_MOUNT_PATH


class AgentConfig(Document):
    """The queue agent beside an engine."""

    queue: QueueConfig
    slots: Annotated[int, Field(ge=1)]
    """Shards leased at a time."""
    max_rows_in_flight: Annotated[int, Field(ge=1)]
    """Rows of all leased shards that are with the engine at a time."""
    lease_seconds: Annotated[int, Field(ge=1)]
    heartbeat_seconds: Annotated[float, Field(gt=0)]
    row_timeout_seconds: Annotated[float, Field(gt=0)] = 600.0


class RuntimeConfig(Document):
    """Everything ``vllm-runtime`` needs to know (``RUNTIME_CONFIG_ENV``)."""

    engine_args: list[str]
    """vLLM options of the plan and of the user, without those that the supervisor sets (host, port, middleware …)."""
    engine_env: dict[str, str] = {}
    shutdown_grace_seconds: Annotated[int, Field(ge=0)]
    """Time requests in flight get after SIGTERM (vLLM's --shutdown-timeout)."""
    agent: AgentConfig | None = None
    """None: no queue; the engine serves HTTP only."""


class VolumeInput(Document):
    """A file that the driver reads, relative to ``INPUT_MOUNT_PATH``."""

    path: str


class DriverOutput(Document):
    """Where the driver writes."""

    path: str | None = None
    """Relative to ``OUTPUT_MOUNT_PATH``; None: the output goes to the queue, for the operator to put into a
    ConfigMap."""
    result_key: str


class DriverConfig(Document):
    """Everything a job driver needs to know (``DRIVER_CONFIG_ENV``)."""

    job_uid: str
    queue: QueueConfig
    endpoint: str
    model: str
    """Served name that the requests ask for."""
    input: VolumeInput
    message_key: str
    system_prompt: str | None = None
    sampling: dict[str, float | int | list[str]] = {}
    """Parameters of each request body, in OpenAI's names."""
    output: DriverOutput
    workers: Annotated[int, Field(ge=1)] = 1
    slots: Annotated[int, Field(ge=1)] = 4
    """Shards one worker leases at a time: with ``workers`` it bounds the window of published shards."""


class ModelFactsConfig(Document):
    """What a model-facts reader reads (``MODEL_FACTS_CONFIG_ENV``): a directory or a hub repository."""

    path: str | None = None
    hub_repository: str | None = None
    hub_revision: str | None = None
    hub_endpoint: str | None = None


Dimension = Annotated[int, Field(ge=1, le=2**31)]
Tokens = Annotated[int, Field(ge=1, le=2**40)]
ModelName = Annotated[str, Field(max_length=128)]
"""Bounds of facts. A termination message is written in the user's namespace, by whoever may run a pod there: what is
beyond them is no fact, and no arithmetic is done with it."""


class ModelFacts(Document):
    """What the planner needs to know of a model; the reader's termination message on success.

    Numbers are as in the model's ``config.json``; ``weights_bytes`` is the sum of the safetensors files that vLLM
    loads.
    """

    source: str
    """Where it was read, for the user."""
    architecture: ModelName
    model_type: ModelName | None = None
    hidden_size: Dimension
    layers: Dimension
    attention_heads: Dimension
    kv_heads: Dimension
    head_dim: Dimension
    latent_dim: Dimension | None = None
    """Width of the latent that multi-head latent attention caches per token and layer; None: plain (grouped)
    attention."""
    intermediate_size: Dimension | None = None
    moe_intermediate_size: Dimension | None = None
    """Of one expert; None: the model has no experts."""
    experts_per_token: Dimension | None = None
    vocab_size: Dimension
    max_position_embeddings: Tokens | None = None
    dtype: ModelName | None = None
    quantization: ModelName | None = None
    weights_bytes: Annotated[int, Field(ge=1, le=10**15)]
    revision: str | None = None


class ModelFactsError(Document):
    """The reader's termination message on failure."""

    reason: str
    """A value of ``conditions.Reason``."""
    message: str


class ModelFactsResult(Document):
    """The reader's termination message: exactly one of the two."""

    facts: ModelFacts | None = None
    error: ModelFactsError | None = None


class EngineExit(Document):
    """Termination message of the engine container when it ends by a fault."""

    stage: Literal["start", "serve"]
    """``start``: before the engine first answered ``/health``."""
    exit_code: int
    message: str
    """The engine's own last error, as a user would want to read it."""
