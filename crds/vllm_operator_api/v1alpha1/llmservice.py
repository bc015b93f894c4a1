"""LLMService: a model as an OpenAI-compatible endpoint on GPUs."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from vllm_operator_api.meta import ApiModel, Condition, DnsLabel, Timestamp
from vllm_operator_api.quantities import CPU_QUANTITY_PATTERN, DURATION_PATTERN, QUANTITY_PATTERN

ByteQuantity = Annotated[str, Field(max_length=32, pattern=QUANTITY_PATTERN)]
CpuQuantity = Annotated[str, Field(max_length=32, pattern=CPU_QUANTITY_PATTERN)]
Duration = Annotated[str, Field(min_length=2, max_length=32, pattern=DURATION_PATTERN)]


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


class Parallelism(ApiModel):
    """How the model is cut over GPUs."""

    tensor: Annotated[int, Field(ge=1, le=64)] | Literal["auto"] = Field(
        default="auto",
        description=(
            "Tensor-parallel degree = GPUs of one replica. `auto`: the smallest legal degree at which the weights and "
            "one request of full length fit; the choice and its reason are in `status.plan`."
        ),
        json_schema_extra={
            "x-kubernetes-validations": [
                {
                    "rule": "type(self) == int ? self >= 1 && self <= 64 : self == 'auto'",
                    "message": "tensor must be 'auto' or a number from 1 to 64",
                }
            ]
        },
    )


class Concurrency(ApiModel):
    """How many requests one replica works on at a time."""

    target: Annotated[int, Field(ge=1, le=4096)] = Field(
        default=64,
        description="Requests that one engine batches at a time (vLLM's --max-num-seqs); more wait in the engine.",
    )


class Accelerator(ApiModel):
    """Which accelerators the service may use."""

    resource_name: Annotated[str, Field(min_length=3, max_length=253, pattern=r"^[a-z0-9.-]+/[A-Za-z0-9._-]+$")] = (
        Field(default="nvidia.com/gpu", description="Extended resource that a GPU is requested by.")
    )


class EngineResources(ApiModel):
    """Resources of an engine container beside its GPUs."""

    cpu: CpuQuantity = Field(default="1", description="CPU request.")
    memory: ByteQuantity = Field(default="4Gi", description="Memory request and limit, shared memory included.")
    shm: ByteQuantity = Field(default="1Gi", description="Size of /dev/shm, which is memory.")


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


class PredictedUse(ApiModel):
    """What the planner expects, per GPU. Numbers are strings with one decimal: a CRD has no floats."""

    weights_gib: Annotated[str, Field(max_length=16)] | None = Field(
        default=None, alias="weightsGiB", description="Memory of the model's weights."
    )
    overhead_gib: Annotated[str, Field(max_length=16)] | None = Field(
        default=None, alias="overheadGiB", description="Memory of activations, CUDA graphs and the engine itself."
    )
    kv_cache_gib: Annotated[str, Field(max_length=16)] | None = Field(
        default=None, alias="kvCacheGiB", description="Memory of the KV cache."
    )
    kv_cache_tokens: Annotated[int, Field(ge=0)] | None = Field(
        default=None, description="Tokens that the KV cache holds, over all GPUs of the replica."
    )
    max_concurrency: Annotated[str, Field(max_length=16)] | None = Field(
        default=None, description="Requests of full length that the KV cache holds."
    )


class PlanStatus(ApiModel):
    """What the planner chose, and why."""

    tensor: Annotated[int, Field(ge=1)] | None = Field(default=None, description="Tensor-parallel degree.")
    gpus: Annotated[int, Field(ge=0)] | None = Field(default=None, description="GPUs of one replica.")
    product: Annotated[str, Field(max_length=253)] | None = Field(default=None, description="GPU product planned for.")
    max_length: Annotated[int, Field(ge=1)] | None = Field(default=None, description="Longest request in tokens.")
    architecture: Annotated[str, Field(max_length=253)] | None = Field(default=None, description="From config.json.")
    reason: Annotated[str, Field(max_length=1024)] | None = Field(default=None, description="Why this degree.")
    legal_tensor: Annotated[list[int], Field(max_length=64)] | None = Field(
        default=None,
        description="Legal degrees up to the GPUs of a node.",
        json_schema_extra={"x-kubernetes-list-type": "atomic"},
    )
    predicted: PredictedUse | None = None


class WorkerStatus(ApiModel):
    """One engine pod with its agent, as of its last heartbeat."""

    name: Annotated[str, Field(max_length=253)] = Field(description="Name of the pod.")
    node: Annotated[str, Field(max_length=253)] | None = Field(default=None, description="Node that it runs on.")
    state: Annotated[str, Field(max_length=32)] | None = Field(
        default=None, description="starting, running, draining, stopping; stale when no heartbeat comes."
    )
    in_flight: Annotated[int, Field(ge=0)] | None = Field(
        default=None, description="Requests the engine is working on."
    )
    leases: Annotated[int, Field(ge=0)] | None = Field(default=None, description="Shards the agent holds.")
    last_heartbeat_time: Timestamp | None = Field(default=None, description="When the agent was last heard of.")


class WorkersStatus(ApiModel):
    """The agents."""

    ready: Annotated[int, Field(ge=0)] = Field(default=0, description="Agents whose engine takes work.")
    stale: Annotated[int, Field(ge=0)] = Field(default=0, description="Agents that are not heard of any more.")
    items: Annotated[list[WorkerStatus], Field(max_length=16)] = Field(
        default=[],
        description="At most 16 of them.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )


class LeasesStatus(ApiModel):
    """Shards under lease."""

    active: Annotated[int, Field(ge=0)] = Field(default=0, description="Shards that agents hold.")
    oldest_seconds: Annotated[int, Field(ge=0)] | None = Field(
        default=None, description="Age in seconds of the lease held longest."
    )


class LLMServiceStatus(ApiModel):
    """What is. Written by the operator only."""

    observed_generation: Annotated[int, Field(ge=0)] | None = Field(
        default=None, description="Generation of the object that this status is of."
    )
    conditions: Annotated[list[Condition], Field(max_length=16)] = Field(
        default=[],
        description="What holds, and why; the reason of Ready is the service's state.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    )
    desired_replicas: Annotated[int, Field(ge=0)] | None = Field(default=None, description="Replicas that should be.")
    replicas: Annotated[int, Field(ge=0)] | None = Field(default=None, description="Replicas that are.")
    ready_replicas: Annotated[int, Field(ge=0)] | None = Field(
        default=None, description="Replicas that answer requests."
    )
    ready: Annotated[str, Field(max_length=16)] | None = Field(
        default=None, description="`<ready>/<desired>` replicas."
    )
    url: Annotated[str, Field(max_length=512)] | None = Field(default=None, description="Base URL inside the cluster.")
    plan: PlanStatus | None = None
    workers: WorkersStatus | None = None
    leases: LeasesStatus | None = None
    last_activity_time: Timestamp | None = Field(default=None, description="When the engines last worked on a request.")


class LLMService(ApiModel):
    """A model as an OpenAI-compatible endpoint on GPUs."""

    name: DnsLabel
    namespace: DnsLabel
    uid: str
    generation: int
    spec: LLMServiceSpec
    status: LLMServiceStatus = Field(default_factory=LLMServiceStatus)
