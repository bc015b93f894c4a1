"""From spec, facts and inventory to the plan that manifests are made from. Pure."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from vllm_operator.llmservice.plan_request import BLOCK_SIZE_FLAG, plan_request
from vllm_operator.llmservice.plan_status import plan_status
from vllm_operator.manifests.engine_args import BATCHED_TOKENS_FLAG
from vllm_operator.manifests.placement import check_resources
from vllm_operator.planner.choice.calibration import overhead_key
from vllm_operator.planner.choice.choose import choose
from vllm_operator.planner.choice.no_pools import no_pools
from vllm_operator.planner.choice.plan import Choice
from vllm_operator.planner.engine_args import check_engine_args, check_engine_env, given_value
from vllm_operator.planner.engine_options import EngineOptions
from vllm_operator.planner.inventory.pool import GpuPool, Inventory
from vllm_operator.planner.inventory.pools import for_resource
from vllm_operator.planner.memory.weights import QUANTISED_WHILE_LOADED
from vllm_operator.planner.problem import PlanProblem
from vllm_operator.planner.record import Placement, PlanRecord
from vllm_operator.planner.sources.location import ModelLocation, locate_model
from vllm_operator_api.conditions import Reason
from vllm_operator_api.model import ModelFacts
from vllm_operator_api.quantities import BYTES_PER_GIB, parse_duration_seconds
from vllm_operator_api.v1alpha1.llmservice import LLMServiceSpec
from vllm_operator_api.v1alpha1.llmservice_status import PlanStatus

_HOME_GIB: Final = 10
"""For compiled code and caches; vLLM's compile cache of a large model is a few GiB."""
_DIGITS: Final = 7
"""Of a number of tokens in an engine argument."""
_DOWNLOAD_FACTOR: Final = 1.1
_NOTHING_LEFT_BYTES: Final = 10**15
"""More than any GPU has: no candidate with this overhead fits."""
_OTHER_ONLINE_METHODS: Final = frozenset({"experts_int8", "online", "torchao", "inc", "humming"})
"""Of these the size is not known; the model is planned for as it is, which is an upper bound."""


@dataclass(frozen=True, slots=True)
class Planned:
    """A plan, new or kept, and how the status shows it."""

    record: PlanRecord
    status: PlanStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanningInputs:
    """What a plan depends on beside spec and model."""

    inventory: Inventory
    options: EngineOptions
    leader_worker_set: bool = False
    """Whether the cluster has LeaderWorkerSets, so that a replica may span nodes."""
    observed_overheads: Mapping[str, int] = field(default_factory=dict)
    """Bytes per GPU that engines were seen to use, by ``overhead_key``."""
    given_up: tuple[str, ...] = ()
    """Calibration keys of what is not tried again: its engines died for want of memory."""


def check_spec(spec: LLMServiceSpec, options: EngineOptions) -> ModelLocation | PlanProblem:
    """Judge what can be judged without the model and the cluster. Returns where the model is, if all is well."""
    location = locate_model(spec.model)
    if isinstance(location, PlanProblem):
        return location
    problem = check_engine_args(spec.engine.args, options) or check_engine_env(env.name for env in spec.engine.env)
    if problem is not None:
        return problem
    return _check_values(spec, options) or location


def _check_values(spec: LLMServiceSpec, options: EngineOptions) -> PlanProblem | None:
    if (sizes := check_resources(spec.resources, gpus=1)) is not None:
        return PlanProblem(Reason.INVALID_SPEC, sizes)
    for flag, usual in ((BATCHED_TOKENS_FLAG, 8192), (BLOCK_SIZE_FLAG, 16)):
        value = given_value(spec.engine.args, flag)
        if value is not None and not (value.isdecimal() and len(value) <= _DIGITS and int(value) > 0):
            return PlanProblem(
                Reason.INVALID_SPEC,
                f"spec.engine.args: {flag}={value[:100]} is not a number of tokens such as {usual}",
            )
    budget, target = given_value(spec.engine.args, BATCHED_TOKENS_FLAG), spec.concurrency.target
    if budget is not None and int(budget) < target:
        return PlanProblem(
            Reason.INVALID_SPEC,
            f"spec.engine.args: {BATCHED_TOKENS_FLAG}={budget} is less than concurrency.target={target}, which vLLM "
            "refuses; raise the one or lower the other",
        )
    method, known = spec.model.quantization, options.quantization_methods
    if method is not None and known and method not in known:
        return PlanProblem(
            Reason.INVALID_SPEC,
            f"spec.model.quantization={method}: vLLM {options.vllm_version} knows {', '.join(sorted(known))}"[:1000],
        )
    idle_after = spec.scaling.idle_after
    if idle_after is not None and parse_duration_seconds(idle_after) < 1:
        return PlanProblem(Reason.INVALID_SPEC, f"spec.scaling.idleAfter={idle_after} must be at least 1s")
    return None


def inputs_hash(spec: LLMServiceSpec) -> str:
    """Hash of what the plan depends on in the spec: another hash means another plan."""
    inputs = {
        "model": spec.model.model_dump(exclude={"served_names", "token_secret_ref"}),
        "parallelism": spec.parallelism.model_dump(),
        "concurrency": spec.concurrency.model_dump(),
        "accelerator": spec.accelerator.model_dump(),
        "engine": spec.engine.model_dump(exclude={"env"}),
    }
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:16]


def make_plan(
    spec: LLMServiceSpec, location: ModelLocation, facts: ModelFacts, inputs: PlanningInputs
) -> Planned | PlanProblem:
    """Plan from scratch."""
    problem = (
        check_architecture(facts, inputs.options)
        or check_length(facts, spec.model.max_length)
        or check_quantization(facts, spec.model.quantization)
    )
    if problem is not None:
        return problem
    resource_name = spec.accelerator.resource_name
    pools = for_resource(inputs.inventory, resource_name)
    if not pools:
        return no_pools(resource_name, inputs.inventory)
    overheads = {**inputs.observed_overheads, **dict.fromkeys(inputs.given_up, _NOTHING_LEFT_BYTES)}
    choice = choose(facts, plan_request(spec, facts, inputs.options, overheads), pools)
    if isinstance(choice, PlanProblem):
        return choice
    if (sizes := check_resources(spec.resources, choice.layout.gpus_per_node)) is not None:
        return PlanProblem(Reason.INVALID_SPEC, sizes, choice.considered, choice.legal_tensor)
    if choice.layout.nodes > 1 and not inputs.leader_worker_set:
        return _leader_worker_set_missing(choice)
    return Planned(_record(spec, location, facts, choice, inputs), plan_status(choice, facts))


def check_architecture(facts: ModelFacts, options: EngineOptions) -> PlanProblem | None:
    """Why this version of vLLM cannot serve the model, whatever it runs on."""
    if facts.architecture in options.architectures:
        return None
    near = options.near_architectures(facts.architecture)
    hint = f"; it has {', '.join(near)}" if near else ""
    return PlanProblem(
        Reason.UNSUPPORTED_ARCHITECTURE,
        f"vLLM {options.vllm_version} cannot serve the architecture {facts.architecture} of {facts.source}{hint}; "
        "use a model of an architecture that it has",
    )


def check_length(facts: ModelFacts, max_length: int | None) -> PlanProblem | None:
    """Why vLLM would refuse requests of this length, whatever it runs on."""
    longest = facts.max_position_embeddings
    if max_length is not None and longest is not None and max_length > longest:
        return PlanProblem(
            Reason.MODEL_CONFIG_INVALID,
            f"model.maxLength={max_length} is longer than the model allows: its config.json says {longest}; "
            f"set it to at most {longest}",
        )
    return None


def check_quantization(facts: ModelFacts, method: str | None) -> PlanProblem | None:
    """Why vLLM would refuse this --quantization for the checkpoint (``config/model.py: _verify_quantization``)."""
    if method is None:
        return None
    checkpoint, online = facts.quantization, method in QUANTISED_WHILE_LOADED
    if checkpoint is None and not online and method not in _OTHER_ONLINE_METHODS:
        return PlanProblem(
            Reason.INVALID_SPEC,
            f"model.quantization={method} reads a checkpoint that is quantised so, and this one is not; vLLM makes "
            f"{', '.join(sorted(QUANTISED_WHILE_LOADED))} of it while it loads",
        )
    if checkpoint is not None and online and checkpoint.method != method:
        return PlanProblem(
            Reason.INVALID_SPEC,
            f"model.quantization={method}, but the checkpoint is quantised as {checkpoint.method}; leave it out",
        )
    return None


def _leader_worker_set_missing(choice: Choice) -> PlanProblem:
    return PlanProblem(
        Reason.LEADER_WORKER_SET_MISSING,
        f"{choice.layout} is the plan, and the pods of a replica that spans nodes need LeaderWorkerSet, which this "
        "cluster does not have: install it (https://lws.sigs.k8s.io), or set parallelism.allowMultiNode to false",
        choice.considered,
        choice.legal_tensor,
    )


def _record(
    spec: LLMServiceSpec, location: ModelLocation, facts: ModelFacts, choice: Choice, inputs: PlanningInputs
) -> PlanRecord:
    settings, use = choice.settings, choice.use
    given_cache = settings.kv_cache_bytes is not None

    def placement(pool: GpuPool) -> Placement:
        usable = int(pool.usable_bytes * settings.gpu_memory_utilization)
        return Placement(
            product=pool.product,
            requirements=pool.requirements,
            taints=pool.taints,
            calibration_key=overhead_key(facts, choice.layout, settings, pool.product, inputs.options.vllm_version),
            room_bytes=0 if given_cache else max(0, usable - use.weights_bytes),
        )

    return PlanRecord(
        inputs=inputs_hash(spec),
        layout=choice.layout,
        placements=tuple(placement(pool) for pool in choice.pools),
        planned_for=choice.planned_for.product,
        batched_tokens=settings.batched_tokens,
        home_gib=_home_gib(location, facts),
        weights_bytes=facts.weights.total_bytes,
        kv_bytes_per_block=0 if use.demand is None else use.demand.bytes_per_block,
        predicted_tokens=use.kv_tokens,
        given_up=inputs.given_up,
    )


def _home_gib(location: ModelLocation, facts: ModelFacts) -> int:
    if location.repository is None:
        return _HOME_GIB
    return _HOME_GIB + math.ceil(facts.weights.total_bytes * _DOWNLOAD_FACTOR / BYTES_PER_GIB)


def still_possible(record: PlanRecord, inventory: Inventory, resource_name: str) -> bool:
    """Whether nodes that the plan's pods could go to are there, or could be made."""
    tolerated = {taint for placement in record.placements for taint in placement.taints}
    return any(
        pool.product in record.products
        and pool.largest_replica >= record.layout.gpus_per_node
        and tolerated.issuperset(pool.taints)
        for pool in for_resource(inventory, resource_name)
    )
