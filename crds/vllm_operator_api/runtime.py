"""Contract between the operator and the processes it starts in a user's namespace.

The operator writes these into pods; ``vllm-runtime``, the job driver and the model-facts reader read them. Each
program gets its configuration as one JSON document in one environment variable, and tells its end in its termination
message.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)

from vllm_operator_api.model import ModelFacts

RUNTIME_CONFIG_ENV: Final = "VLLM_RUNTIME_CONFIG"
"""JSON of ``RuntimeConfig`` for the engine container."""
DRIVER_CONFIG_ENV: Final = "VLLM_OPERATOR_DRIVER_CONFIG"
"""JSON of ``DriverConfig`` for a job driver."""
MODEL_FACTS_CONFIG_ENV: Final = "VLLM_OPERATOR_MODEL_FACTS_CONFIG"
"""JSON of ``ModelFactsConfig`` for a model-facts reader."""
POD_NAME_ENV: Final = "POD_NAME"
POD_UID_ENV: Final = "POD_UID"
POD_IP_ENV: Final = "POD_IP"
NODE_NAME_ENV: Final = "NODE_NAME"

GROUP_LEADER_ENV: Final = "LWS_LEADER_ADDRESS"
GROUP_SIZE_ENV: Final = "LWS_GROUP_SIZE"
GROUP_INDEX_ENV: Final = "LWS_WORKER_INDEX"
"""Set by the LeaderWorkerSet controller in every container of a group; the leader's index is 0
(leaderworkerset.x-k8s.io/v1)."""
MAX_ENGINE_NODES: Final = 64

ENGINE_PORT: Final = 8000
SUPERVISOR_PORT: Final = 8081
"""Health and metrics of ``vllm-runtime`` itself: ``/healthz``, ``/metrics``."""

MODEL_MOUNT_PATH: Final = "/mnt/model"
"""Where a ``pvc://`` model's claim is mounted, read-only."""
QUEUE_CREDENTIALS_MOUNT_PATH: Final = "/var/run/secrets/vllm-operator/queue"
"""Where the Secret with the queue credentials is mounted: file ``seed`` (an nkey user seed) or ``entropy``."""
HUB_TOKEN_MOUNT_PATH: Final = "/var/run/secrets/vllm-operator/hub"  # noqa: S105 - a path, not the token
"""Where the Secret with the model hub's token is mounted: file ``token``."""
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
    nodes: Annotated[int, Field(ge=1, le=MAX_ENGINE_NODES)] = 1
    """Pods that one engine spans. Above 1 the pod is one of a LeaderWorkerSet's group, and ``LWS_*`` say which."""


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
    """A mirror of the hub; None: the public one."""
    hub_token_file: str | None = None
    """File with a token for the hub, from a mounted Secret; None: it is asked without one."""


class ModelFactsError(Document):
    """The reader's termination message on failure."""

    reason: str
    """A value of ``conditions.Reason``."""
    message: str
    retry_after_seconds: Annotated[int, Field(ge=1, le=86_400)] | None = None
    """How long the hub asks to wait; None: it does not say."""


def _whole_pattern(facts: ModelFacts) -> ModelFacts:
    """A letter that names no shape would be an error wherever the facts are used."""
    last = chr(ord("a") + len(facts.layer_shapes) - 1)
    if any(not "a" <= letter <= last for letter in set(facts.layer_pattern)):
        raise ValueError(f"layer_pattern has letters beyond {last}, the last of {len(facts.layer_shapes)} layer_shapes")
    return facts


CheckedModelFacts = Annotated[ModelFacts, AfterValidator(_whole_pattern)]
"""Facts from untrusted bytes. A termination message is written in the user's namespace, by whoever may run a pod there:
what is beyond the bounds of ``model.py`` is no fact, and no arithmetic is done with it."""


class ModelFactsResult(Document):
    """The reader's termination message: exactly one of the two."""

    facts: CheckedModelFacts | None = None
    error: ModelFactsError | None = None


Gib = Annotated[float, Field(ge=0, le=1e6)]
"""GiB, as vLLM prints them: two decimals."""
LengthTokens = Annotated[int, Field(ge=1, le=2**40)]


class NoCacheBlocks(Document):
    """Nothing of the engine's share of memory is left for the KV cache (v1/core/kv_cache_utils.py:1009)."""

    kind: Literal["no_cache_blocks"] = "no_cache_blocks"


class LengthTooLong(Document):
    """The KV cache is smaller than one request of full length (v1/core/kv_cache_utils.py:1021). Sizes are per GPU."""

    kind: Literal["length_too_long"] = "length_too_long"
    length_tokens: LengthTokens
    needed_gib: Gib
    available_gib: Gib
    longest_tokens: LengthTokens | None = None
    """What would fit, by the engine's own estimate; None: it gives none."""


class GpuOutOfMemory(Document):
    """An allocation failed: weights, activations or CUDA graphs need more than the GPU has."""

    kind: Literal["gpu_oom"] = "gpu_oom"
    tried_gib: Gib | None = None
    """The allocation that failed; None: it is not told."""


class FreeMemoryBelowUtilization(Document):
    """Something else holds memory of the GPU that the engine was to take (v1/worker/utils.py:761)."""

    kind: Literal["free_memory_below_utilization"] = "free_memory_below_utilization"
    free_gib: Gib
    total_gib: Gib
    desired_gib: Gib


class IllegalParallelism(Document):
    """The model cannot be cut into so many parts, or there are fewer GPUs than parts."""

    kind: Literal["parallelism"] = "parallelism"


EngineFault = Annotated[
    NoCacheBlocks | LengthTooLong | GpuOutOfMemory | FreeMemoryBelowUtilization | IllegalParallelism,
    Field(discriminator="kind"),
]
"""What the planner can draw a conclusion from."""


def _known_fault(value: Any, parse: ValidatorFunctionWrapHandler) -> Any:
    """None for a fault of a newer runtime: the message beside it is still worth reading."""
    try:
        return parse(value)
    except ValidationError:
        return None


class EngineExit(Document):
    """Termination message of the engine container when it ends by a fault."""

    stage: Literal["start", "serve"]
    """``start``: before the engine first answered ``/health``."""
    exit_code: int
    message: str
    """The engine's own last error, as a user would want to read it."""
    fault: Annotated[EngineFault | None, WrapValidator(_known_fault)] = None
    """The message in numbers, where it is about memory or parallelism."""
