"""From spec and facts to the plan that manifests are made from. Pure."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from typing import Final

from vllm_operator.manifests.engine_args import BATCHED_TOKENS_FLAG
from vllm_operator.manifests.engine_deployment import check_sizes
from vllm_operator.planner.choice import Choice, PlanRequest, gib, plan_parallelism
from vllm_operator.planner.engine_args import check_engine_args, check_engine_env, given_value
from vllm_operator.planner.engine_options import EngineOptions
from vllm_operator.planner.inventory import Inventory
from vllm_operator.planner.memory import EngineSettings
from vllm_operator.planner.model_source import ModelLocation, locate_model
from vllm_operator.planner.problem import PlanProblem
from vllm_operator.planner.record import PlanRecord
from vllm_operator_api.conditions import Reason
from vllm_operator_api.quantities import BYTES_PER_GIB, parse_bytes, parse_duration_seconds
from vllm_operator_api.runtime import ModelFacts
from vllm_operator_api.v1alpha1.llmservice import LLMServiceSpec, PlanStatus, PredictedUse

_HOME_GIB: Final = 10
"""For compiled code and caches; vLLM's compile cache of a large model is a few GiB."""
_DEFAULT_LENGTH_TOKENS: Final = 2048
"""Where neither spec nor config.json has a length: vLLM's own default."""
_KV_CACHE_DTYPE_FLAG: Final = "--kv-cache-dtype"
_BATCHED_TOKENS_LIMIT: Final = 1 << 24


@dataclass(frozen=True, slots=True)
class Planned:
    """A plan, new or kept, and how the status shows it."""

    record: PlanRecord
    status: PlanStatus


def check_spec(spec: LLMServiceSpec, options: EngineOptions) -> ModelLocation | PlanProblem:
    """Judge what can be judged without the model and the cluster. Returns where the model is, if all is well."""
    location = locate_model(spec.model)
    if isinstance(location, PlanProblem):
        return location
    problem = check_engine_args(spec.engine.args, options) or check_engine_env(env.name for env in spec.engine.env)
    if problem is not None:
        return problem
    return _check_values(spec) or location


def _check_values(spec: LLMServiceSpec) -> PlanProblem | None:
    if (sizes := check_sizes(spec)) is not None:
        return PlanProblem(Reason.INVALID_SPEC, sizes)
    budget = given_value(spec.engine.args, BATCHED_TOKENS_FLAG)
    if budget is not None and not (budget.isdecimal() and 0 < int(budget[:12]) < _BATCHED_TOKENS_LIMIT):
        return PlanProblem(
            Reason.INVALID_SPEC,
            f"spec.engine.args: {BATCHED_TOKENS_FLAG}={budget[:100]} is not a number of tokens such as 8192",
        )
    idle_after = spec.scaling.idle_after
    if idle_after is not None and parse_duration_seconds(idle_after) < 1:
        return PlanProblem(Reason.INVALID_SPEC, f"spec.scaling.idleAfter={idle_after} must be at least 1s")
    return None


def inputs_hash(spec: LLMServiceSpec) -> str:
    """Hash of what the plan depends on in the spec: another hash means another plan."""
    inputs = {
        "model": spec.model.model_dump(exclude={"served_names"}),
        "parallelism": spec.parallelism.model_dump(),
        "concurrency": spec.concurrency.target,
        "accelerator": spec.accelerator.resource_name,
        "engine": spec.engine.model_dump(exclude={"env"}),
    }
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:16]


def make_plan(
    spec: LLMServiceSpec, location: ModelLocation, facts: ModelFacts, inventory: Inventory, options: EngineOptions
) -> Planned | PlanProblem:
    """Plan from scratch."""
    problem = _check_facts(spec, facts, options)
    if problem is not None:
        return problem
    settings = _engine_settings(spec, facts, options)
    budget = given_value(spec.engine.args, BATCHED_TOKENS_FLAG)
    request = PlanRequest(
        resource_name=spec.accelerator.resource_name,
        tensor=None if spec.parallelism.tensor == "auto" else spec.parallelism.tensor,
        settings=settings,
        batched_tokens=None if budget is None else int(budget),
    )
    choice = plan_parallelism(facts, request, inventory)
    if isinstance(choice, PlanProblem):
        return choice
    record = PlanRecord(
        inputs=inputs_hash(spec),
        tensor=choice.tensor,
        products=choice.products,
        batched_tokens=choice.use.batched_tokens,
        home_gib=_home_gib(location, facts),
    )
    return Planned(record, _plan_status(choice, facts, settings))


def _check_facts(spec: LLMServiceSpec, facts: ModelFacts, options: EngineOptions) -> PlanProblem | None:
    if facts.architecture not in options.architectures:
        near = options.near_architectures(facts.architecture)
        hint = f"; it has {', '.join(near)}" if near else ""
        return PlanProblem(
            Reason.UNSUPPORTED_ARCHITECTURE,
            f"vLLM {options.vllm_version} cannot serve the architecture {facts.architecture} of {facts.source}{hint}; "
            "use a model of an architecture that it has",
        )
    longest, asked = facts.max_position_embeddings, spec.model.max_length
    if asked is not None and longest is not None and asked > longest:
        return PlanProblem(
            Reason.MODEL_CONFIG_INVALID,
            f"model.maxLength={asked} is longer than the model allows: its config.json says {longest}; "
            f"set it to at most {longest}",
        )
    return None


def _engine_settings(spec: LLMServiceSpec, facts: ModelFacts, options: EngineOptions) -> EngineSettings:
    kv_cache_memory = spec.engine.kv_cache_memory
    return EngineSettings(
        max_length_tokens=spec.model.max_length or facts.max_position_embeddings or _DEFAULT_LENGTH_TOKENS,
        max_requests=spec.concurrency.target,
        gpu_memory_utilization=spec.engine.gpu_memory_utilization,
        kv_cache_bytes=None if kv_cache_memory is None else parse_bytes(kv_cache_memory),
        enforce_eager=spec.engine.enforce_eager,
        dtype=spec.model.dtype,
        keeps_kv_cache=facts.architecture not in options.pooling_architectures,
        kv_cache_dtype=given_value(spec.engine.args, _KV_CACHE_DTYPE_FLAG) or "auto",
    )


def _home_gib(location: ModelLocation, facts: ModelFacts) -> int:
    if location.repository is None:
        return _HOME_GIB
    return _HOME_GIB + math.ceil(facts.weights_bytes * 1.1 / BYTES_PER_GIB)


def _plan_status(choice: Choice, facts: ModelFacts, settings: EngineSettings) -> PlanStatus:
    use = choice.use
    return PlanStatus(
        tensor=choice.tensor,
        gpus=choice.tensor,
        product=", ".join(choice.products)[:253],
        max_length=settings.max_length_tokens,
        architecture=facts.architecture,
        reason=choice.reason,
        legal_tensor=list(choice.legal),
        predicted=PredictedUse(
            weights_gib=gib(use.weights),
            overhead_gib=gib(use.overhead),
            kv_cache_gib=gib(use.kv_available) if use.kv_per_token else None,
            kv_cache_tokens=use.kv_tokens if use.kv_per_token else None,
            max_concurrency=f"{use.kv_tokens / settings.max_length_tokens:.1f}" if use.kv_per_token else None,
        ),
    )


def still_possible(record: PlanRecord, inventory: Inventory) -> bool:
    """Whether a node that the plan could use is there now."""
    return any(pool.product in record.products and pool.largest_replica >= record.tensor for pool in inventory.pools)
