"""Status of an LLMService: what is. Written by the operator only."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from vllm_operator_api.meta import ApiModel, Condition, Timestamp

Decimal = Annotated[str, Field(max_length=16)]
"""A number with one decimal as text: a CRD's status has no floats."""


class PredictedUse(ApiModel):
    """What the planner expects of the fullest GPU, and of the replica."""

    weights_gib: Decimal | None = Field(default=None, alias="weightsGiB", description="Memory of the weights per GPU.")
    overhead_gib: Decimal | None = Field(
        default=None, alias="overheadGiB", description="Activations, CUDA graphs and the engine itself, per GPU."
    )
    kv_cache_gib: Decimal | None = Field(default=None, alias="kvCacheGiB", description="The KV cache per GPU.")
    kv_cache_tokens: Annotated[int, Field(ge=0)] | None = Field(
        default=None, description="Tokens that the replica's KV cache holds, as vLLM counts them."
    )
    max_concurrency: Decimal | None = Field(
        default=None, description="Requests of full length that the replica's KV cache holds."
    )


class ObservedUse(ApiModel):
    """What a running engine says of itself."""

    kv_cache_tokens: Annotated[int, Field(ge=0)] | None = Field(
        default=None, description="Tokens that the KV cache holds (`kv_cache_size_tokens` of vLLM's metrics)."
    )
    max_concurrency: Decimal | None = Field(
        default=None, description="Requests of full length that it holds (`kv_cache_max_concurrency`)."
    )
    kv_cache_gib: Decimal | None = Field(default=None, alias="kvCacheGiB", description="Its size per GPU.")
    overhead_gib: Decimal | None = Field(
        default=None,
        alias="overheadGiB",
        description="What the engine took beside weights and KV cache, per GPU; none where kvCacheMemory is given.",
    )
    deviation: Decimal | None = Field(
        default=None, description="Observed against predicted requests of full length, such as `+1.2 %`."
    )


class CandidateStatus(ApiModel):
    """One layout on one product that the planner looked at."""

    tensor: Annotated[int, Field(ge=1)] = Field(description="Tensor-parallel degree.")
    pipeline: Annotated[int, Field(ge=1)] = Field(default=1, description="Pipeline stages.")
    data: Annotated[int, Field(ge=1)] = Field(default=1, description="Data-parallel copies.")
    product: Annotated[str, Field(max_length=253)] = Field(description="GPU product.")
    fits: bool = Field(description="Whether it is legal and fits.")
    reason: Annotated[str, Field(max_length=256)] = Field(description="What speaks for or against it.")


class CalibrationStatus(ApiModel):
    """What an engine was seen to use with one set of settings; the next plan with these settings uses it."""

    key: Annotated[str, Field(max_length=64)] = Field(description="Model, cut, settings, product and engine, hashed.")
    overhead_mib: Annotated[int, Field(ge=0)] = Field(
        alias="overheadMiB", description="Memory beside weights and KV cache, per GPU."
    )


class PlanStatus(ApiModel):
    """What the planner chose, and why."""

    tensor: Annotated[int, Field(ge=1)] | None = Field(default=None, description="Tensor-parallel degree.")
    pipeline: Annotated[int, Field(ge=1)] | None = Field(default=None, description="Pipeline stages.")
    data: Annotated[int, Field(ge=1)] | None = Field(default=None, description="Data-parallel copies of attention.")
    gpus: Annotated[int, Field(ge=0)] | None = Field(default=None, description="GPUs of one replica.")
    nodes: Annotated[int, Field(ge=1)] | None = Field(default=None, description="Nodes that one replica spans.")
    product: Annotated[str, Field(max_length=253)] | None = Field(default=None, description="GPU products planned for.")
    max_length: Annotated[int, Field(ge=1)] | None = Field(default=None, description="Longest request in tokens.")
    architecture: Annotated[str, Field(max_length=253)] | None = Field(default=None, description="From config.json.")
    reason: Annotated[str, Field(max_length=1024)] | None = Field(default=None, description="Why this layout.")
    confidence: Annotated[str, Field(max_length=16)] | None = Field(
        default=None,
        description=(
            "`High`: an engine with these settings was seen, or the KV cache is given. `Medium`: activations and CUDA "
            "graphs are estimated. `Low`: something of the model or the engine is not known."
        ),
    )
    facts_from: Annotated[str, Field(max_length=512)] | None = Field(
        default=None, description="Where the model's numbers come from."
    )
    legal_tensor: Annotated[list[int], Field(max_length=64)] | None = Field(
        default=None,
        description="Legal degrees up to the GPUs of a node.",
        json_schema_extra={"x-kubernetes-list-type": "atomic"},
    )
    predicted: PredictedUse | None = None
    observed: ObservedUse | None = None
    candidates: Annotated[list[CandidateStatus], Field(max_length=10)] = Field(
        default=[],
        description="What else was looked at; at most ten.",
        json_schema_extra={"x-kubernetes-list-type": "atomic"},
    )


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
    calibration: Annotated[list[CalibrationStatus], Field(max_length=8)] = Field(
        default=[],
        description="Memory that engines of this service were seen to use, the newest first; at most eight.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["key"]},
    )
    workers: WorkersStatus | None = None
    leases: LeasesStatus | None = None
    last_activity_time: Timestamp | None = Field(default=None, description="When the engines last worked on a request.")
