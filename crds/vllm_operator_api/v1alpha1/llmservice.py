"""LLMService: a model as an OpenAI-compatible endpoint on GPUs."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from vllm_operator_api.meta import ApiModel, DnsLabel
from vllm_operator_api.quantities import CPU_QUANTITY_PATTERN, DURATION_PATTERN, QUANTITY_PATTERN
from vllm_operator_api.v1alpha1.llmservice_status import LLMServiceStatus

ByteQuantity = Annotated[str, Field(max_length=32, pattern=QUANTITY_PATTERN)]
CpuQuantity = Annotated[str, Field(max_length=32, pattern=CPU_QUANTITY_PATTERN)]
Duration = Annotated[str, Field(min_length=2, max_length=32, pattern=DURATION_PATTERN)]


class SecretKey(ApiModel):
    """A key of a Secret in this namespace."""

    name: Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")] = Field(
        description="Name of the Secret."
    )
    key: Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[-._a-zA-Z0-9]+$")] = Field(
        default="token", description="Key in it."
    )


class ModelFactsOverride(ApiModel):
    """Facts of the model that are given instead of read."""

    weights_gib: Annotated[float, Field(gt=0, le=100_000)] | None = Field(
        default=None, alias="weightsGiB", description="Size of the weights that vLLM loads, in GiB."
    )
    config: Annotated[str, Field(min_length=2, max_length=65536)] | None = Field(
        default=None, description="The text of the model's config.json; nothing is read from the model then."
    )


class ModelSource(ApiModel):
    """Which model, and how it is read."""

    id: Annotated[str, Field(min_length=1, max_length=512)] = Field(
        description=(
            "The model: `pvc://<claim>/<path>` for a directory on a PersistentVolumeClaim of this namespace, "
            "or `<organisation>/<name>` for a repository of the model hub."
        ),
        json_schema_extra={
            "x-kubernetes-validations": [
                {
                    "rule": "self.startsWith('pvc://') ? self.matches('^pvc://[a-z0-9]([-a-z0-9.]*[a-z0-9])?(/[^/].*)?$')"
                    " : self.matches('^[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*$')",
                    "message": "id must be pvc://<claim>/<path> or <organisation>/<name>",
                },
                {
                    "rule": "!self.split('/').exists(part, part == '..')",
                    "message": "id must not contain the path element '..'",
                },
            ]
        },
    )
    revision: Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9._/-]+$")] | None = Field(
        default=None, description="Branch, tag or commit of a hub repository. Default: the repository's main branch."
    )
    served_names: (
        Annotated[
            list[Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9._/:-]+$")]],
            Field(min_length=1, max_length=8),
        ]
        | None
    ) = Field(
        default=None,
        description="Names that requests call the model by; the first is the one in answers. Default: the service's.",
        json_schema_extra={"x-kubernetes-list-type": "atomic"},
    )
    max_length: Annotated[int, Field(ge=1, le=16_777_216)] | None = Field(
        default=None,
        description="Longest request in tokens, prompt and answer together. Default: what the model was made for.",
    )
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = Field(
        default="auto", description="Data type of weights and activations. `auto`: that of the model's configuration."
    )
    quantization: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[a-z0-9_-]+$")] | None = Field(
        default=None,
        description="vLLM's --quantization, such as `fp8`. Default: as the checkpoint says.",
    )
    token_secret_ref: SecretKey | None = Field(
        default=None,
        description="Token for a gated or private hub repository. It is mounted, never read by the operator.",
    )
    facts: ModelFactsOverride | None = Field(
        default=None, description="What the operator should take instead of reading it, for models it cannot read."
    )


def _degree(field: str) -> dict[str, Any]:
    return {
        "x-kubernetes-validations": [
            {
                "rule": "type(self) == int ? self >= 1 && self <= 64 : self == 'auto'",
                "message": f"{field} must be 'auto' or a number from 1 to 64",
            }
        ]
    }


Degree = Annotated[int, Field(ge=1, le=64)] | Literal["auto"]


class Parallelism(ApiModel):
    """How the model is cut over GPUs. What is `auto` is the planner's; its choice and reasons are in `status.plan`."""

    tensor: Degree = Field(
        default="auto",
        description=(
            "Tensor-parallel degree. `auto`: a legal degree; with all three `auto` the cut with the fewest GPUs at "
            "which the weights and concurrency.min requests of full length fit."
        ),
        json_schema_extra=_degree("tensor"),
    )
    pipeline: Degree = Field(
        default="auto",
        description="Pipeline stages, inside a node or over nodes.",
        json_schema_extra=_degree("pipeline"),
    )
    data: Degree = Field(
        default="auto",
        description="Data-parallel copies of attention in one replica, for mixtures of experts.",
        json_schema_extra=_degree("data"),
    )
    expert: bool | None = Field(
        default=None, description="Whole experts per GPU instead of a slice of each. Default: with data copies only."
    )
    max_gpus_per_pod: Annotated[int, Field(ge=1, le=64)] | None = Field(
        default=None, alias="maxGPUsPerPod", description="Most GPUs of one pod. Default: as many as a node has."
    )
    allow_multi_node: bool = Field(
        default=False, description="Whether a replica may span nodes; needs LeaderWorkerSet in the cluster."
    )
    on_insufficient_memory: Literal["Escalate", "Report"] = Field(
        default="Escalate",
        description=(
            "What to do when an engine finds less memory than predicted: plan again with what it found (at most twice "
            "per spec, and only degrees that are `auto`), or only report."
        ),
    )


class Concurrency(ApiModel):
    """How many requests one replica works on at a time."""

    min: Annotated[int, Field(ge=1, le=4096)] = Field(
        default=1, description="Requests of full length that the KV cache must hold at once; more may need more GPUs."
    )
    target: Annotated[int, Field(ge=1, le=4096)] = Field(
        default=64,
        description="Requests that one engine batches at a time (vLLM's --max-num-seqs); more wait in the engine.",
    )


class Accelerator(ApiModel):
    """Which accelerators the service may use."""

    resource_name: Annotated[str, Field(min_length=3, max_length=253, pattern=r"^[a-z0-9.-]+/[A-Za-z0-9._-]+$")] = (
        Field(default="nvidia.com/gpu", description="Extended resource that a GPU is requested by.")
    )
    products: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[A-Za-z0-9._-]+$")]], Field(max_length=16)
    ] = Field(
        default=[],
        description="Products that may be used, the preferred first, as the nodes are labelled. Default: any.",
        json_schema_extra={"x-kubernetes-list-type": "atomic"},
    )


class EngineResources(ApiModel):
    """Resources of an engine container beside its GPUs."""

    cpu: CpuQuantity | None = Field(default=None, description="CPU request. Default: 1 per GPU.")
    memory: ByteQuantity | None = Field(
        default=None,
        description=(
            "Memory request and limit, shared memory included. Default: 3Gi per GPU, shm, and the largest file of "
            "weights, up to 5Gi."
        ),
    )
    shm: ByteQuantity | None = Field(
        default=None,
        description="Size of /dev/shm, which is memory. Default, and least with several GPUs: 1Gi per GPU of the pod.",
    )


class EnvVar(ApiModel):
    """An environment variable of the engine."""

    name: Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] = Field(
        description="Name of the variable."
    )
    value: Annotated[str, Field(max_length=1024)] = Field(default="", description="Its value; no secret belongs here.")


class Engine(ApiModel):
    """How vLLM is run."""

    args: Annotated[list[Annotated[str, Field(min_length=1, max_length=1024)]], Field(max_length=64)] = Field(
        default=[],
        description=(
            "Further vLLM options, written in full, as `--name=value` or `--name`. Unknown, abbreviated and unsafe "
            "ones, and those the operator sets itself, are refused before a pod exists."
        ),
        json_schema_extra={"x-kubernetes-list-type": "atomic"},
    )
    env: Annotated[list[EnvVar], Field(max_length=64)] = Field(
        default=[],
        description="Environment variables for the engine; only harmless VLLM_* ones are allowed.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.92, description="Share of a GPU's memory that the engine may take."
    )
    kv_cache_memory: ByteQuantity | None = Field(
        default=None, description="Memory of the KV cache per GPU. Default: what is left after the weights."
    )
    kv_cache_dtype: Literal["auto", "bfloat16", "float16", "fp8", "fp8_e4m3", "fp8_e5m2"] = Field(
        default="auto", description="Data type of the KV cache. `auto`: the model's, or what the checkpoint asks for."
    )
    enforce_eager: bool = Field(
        default=False, description="No compilation and no CUDA graphs: quicker start, slower answers."
    )


class Scaling(ApiModel):
    """How many replicas, and when to sleep."""

    min_replicas: Annotated[int, Field(ge=0, le=64)] = Field(
        default=0, description="Replicas that are always there. With 0 and an idleAfter the service sleeps when idle."
    )
    idle_after: Duration | None = Field(
        default=None,
        description="Time without a request after which a service with minReplicas 0 goes to zero. Default: never.",
    )


class QueueSettings(ApiModel):
    """The queue agent beside each engine."""

    max_jobs: Annotated[int, Field(ge=1, le=64)] = Field(
        default=4, description="Shards that one agent leases at a time."
    )
    lease_seconds: Annotated[int, Field(ge=10, le=3600)] = Field(
        default=30, description="Time after which a shard whose agent was not heard of goes to another agent."
    )
    heartbeat_seconds: Annotated[int, Field(ge=1, le=60)] = Field(default=5, description="Time between two heartbeats.")
    shutdown_grace_seconds: Annotated[int, Field(ge=0, le=3600)] = Field(
        default=30, description="Time that requests in flight get to end when a pod is stopped."
    )


class LLMServiceSpec(ApiModel):
    """What the user wants."""

    model: ModelSource
    parallelism: Parallelism = Field(default_factory=Parallelism, json_schema_extra={"default": {}})
    concurrency: Concurrency = Field(default_factory=Concurrency, json_schema_extra={"default": {}})
    accelerator: Accelerator = Field(default_factory=Accelerator, json_schema_extra={"default": {}})
    resources: EngineResources = Field(default_factory=EngineResources, json_schema_extra={"default": {}})
    engine: Engine = Field(default_factory=Engine, json_schema_extra={"default": {}})
    scaling: Scaling = Field(default_factory=Scaling, json_schema_extra={"default": {}})
    queue: QueueSettings = Field(default_factory=QueueSettings, json_schema_extra={"default": {}})
    image: Annotated[str, Field(min_length=1, max_length=512, pattern=r"^[^\s]+$")] | None = Field(
        default=None, description="Runtime image. Default: the one the operator was installed with."
    )


class LLMService(ApiModel):
    """A model as an OpenAI-compatible endpoint on GPUs."""

    name: DnsLabel
    namespace: DnsLabel
    uid: str
    generation: int
    spec: LLMServiceSpec
    status: LLMServiceStatus = Field(default_factory=LLMServiceStatus)
