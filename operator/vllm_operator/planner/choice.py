"""The parallelism of a service: chosen, or the given one checked. Pure.

Simple version: one node per replica, tensor parallelism only, the smallest legal degree at which the weights and one
request of full length fit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from vllm_operator.planner.constraints import broken_rule, legal_degrees
from vllm_operator.planner.inventory import MEMORY_LABEL, PRODUCT_LABEL, GpuPool, Inventory
from vllm_operator.planner.memory import (
    BATCHED_TOKENS_CANDIDATES,
    KV_BLOCK_TOKENS,
    EngineSettings,
    MemoryUse,
    memory_use,
    usable_bytes,
)
from vllm_operator.planner.problem import PlanProblem
from vllm_operator_api.conditions import Reason
from vllm_operator_api.quantities import BYTES_PER_GIB
from vllm_operator_api.runtime import ModelFacts

_USUAL_UTILIZATION: Final = 0.92
"""vLLM's own share of a GPU's memory: what does not fit only because less is given is mended by giving it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRequest:
    """What the user asks of the planner."""

    resource_name: str
    tensor: int | None
    """Given degree; None: choose."""
    settings: EngineSettings
    batched_tokens: int | None = None
    """Given --max-num-batched-tokens; None: choose."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A degree that is legal and fits."""

    tensor: int
    products: tuple[str, ...]
    """GPU products on which it fits, the one with the least memory first; ``use`` is predicted for that one."""
    legal: tuple[int, ...]
    """All legal degrees up to the largest node."""
    use: MemoryUse
    reason: str


@dataclass(frozen=True, slots=True)
class _Candidate:
    pool: GpuPool
    tensor: int
    use: MemoryUse


def plan_parallelism(facts: ModelFacts, request: PlanRequest, inventory: Inventory) -> Choice | PlanProblem:
    """Choose the tensor-parallel degree and the GPUs to ask for, or say why there is none."""
    if not inventory.pools:
        return _no_pools(request.resource_name, inventory)
    largest = max(pool.largest_replica for pool in inventory.pools)
    legal = legal_degrees(facts, largest)
    if request.tensor is not None:
        problem = _check_given(facts, request.tensor, legal, inventory)
        if problem is not None:
            return problem
    degrees = legal if request.tensor is None else (request.tensor,)
    for degree in degrees:
        fitting = [
            candidate for candidate in _candidates(facts, request, inventory.pools, (degree,)) if candidate.use.fits
        ]
        if fitting:
            return _choice(facts, request, fitting, legal)
    return _too_small(request, _candidates(facts, request, inventory.pools, degrees), legal)


def _candidates(
    facts: ModelFacts, request: PlanRequest, pools: Sequence[GpuPool], degrees: Sequence[int]
) -> list[_Candidate]:
    return [
        _Candidate(pool, degree, _best_use(facts, request, pool, degree))
        for degree in degrees
        for pool in pools
        if degree <= pool.largest_replica
    ]


def _best_use(facts: ModelFacts, request: PlanRequest, pool: GpuPool, degree: int) -> MemoryUse:
    """Prediction with the largest token budget that fits, else with the smallest."""
    budgets = BATCHED_TOKENS_CANDIDATES if request.batched_tokens is None else (request.batched_tokens,)
    settings = request.settings
    least = settings.max_requests if settings.keeps_kv_cache else max(settings.max_requests, settings.max_length_tokens)
    uses = [memory_use(facts, degree, settings, pool.memory_mib, max(budget, least)) for budget in budgets]
    return next((use for use in uses if use.fits), uses[-1])


def _choice(facts: ModelFacts, request: PlanRequest, fitting: list[_Candidate], legal: tuple[int, ...]) -> Choice:
    tightest = min(fitting, key=lambda candidate: (candidate.pool.memory_mib, candidate.pool.product))
    use, degree = tightest.use, tightest.tensor
    products = tuple(dict.fromkeys(candidate.pool.product for candidate in fitting))
    how = "is given and legal" if request.tensor is not None else "is the smallest legal degree"
    reason = (
        f"tensor={degree} {how}: per {tightest.pool.product} ({tightest.pool.memory_mib} MiB) {gib(use.weights)} GiB "
        f"of weights and {gib(use.overhead)} GiB of overhead"
    )
    if use.kv_per_token:
        length = request.settings.max_length_tokens
        reason += (
            f"; {gib(use.kv_available)} GiB of KV cache hold {use.kv_tokens / length:.1f} requests of {length} tokens"
        )
    if request.tensor is None and degree != legal[0]:
        before = legal[legal.index(degree) - 1]
        short = min(
            (memory_use(facts, before, request.settings, candidate.pool.memory_mib, use.batched_tokens).shortfall)
            for candidate in fitting
        )
        reason += f"; tensor={before} is short of {_gib_up(short)} GiB per GPU"
    return Choice(tensor=degree, products=products, legal=legal, use=use, reason=reason[:1024])


def _check_given(facts: ModelFacts, tensor: int, legal: tuple[int, ...], inventory: Inventory) -> PlanProblem | None:
    shown = _degrees(legal)
    broken = broken_rule(facts, tensor)
    if broken is not None:
        return PlanProblem(
            Reason.INVALID_PARALLELISM,
            f"parallelism.tensor={tensor} is illegal for this model: {broken}; "
            f"legal here: {shown}; set one of them, or 'auto'",
        )
    largest = max(pool.largest_replica for pool in inventory.pools)
    if tensor > largest:
        return PlanProblem(
            Reason.INVALID_PARALLELISM,
            f"parallelism.tensor={tensor} is more GPUs than any node offers to one pod ({largest}); "
            f"legal here: {shown}; set one of them, or 'auto'",
        )
    return None


def _no_pools(resource_name: str, inventory: Inventory) -> PlanProblem:
    if inventory.unlabelled_nodes:
        nodes = ", ".join(inventory.unlabelled_nodes[:5])
        return PlanProblem(
            Reason.ACCELERATOR_LABELS_MISSING,
            f"{len(inventory.unlabelled_nodes)} node(s) offer {resource_name} but do not say which GPU it is "
            f"({nodes}); install NVIDIA's GPU feature discovery, or label them {PRODUCT_LABEL} and "
            f"{MEMORY_LABEL} (MiB)",
        )
    if inventory.unusable_nodes:
        nodes = ", ".join(inventory.unusable_nodes[:5])
        return PlanProblem(
            Reason.NO_ACCELERATOR_NODES,
            f"no node that is ready and schedulable offers {resource_name}; these offer it but are not: {nodes}",
        )
    return PlanProblem(
        Reason.NO_ACCELERATOR_NODES,
        f"no node offers {resource_name}; add GPU nodes with NVIDIA's device plugin, or set "
        "spec.accelerator.resourceName to the resource that your nodes offer",
    )


def _too_small(request: PlanRequest, candidates: list[_Candidate], legal: tuple[int, ...]) -> PlanProblem:
    best = min(candidates, key=lambda candidate: (candidate.use.shortfall, candidate.tensor))
    use, settings = best.use, request.settings
    message = (
        f"model.maxLength={settings.max_length_tokens} does not fit: at best, tensor={best.tensor} on "
        f"{best.pool.product} ({best.pool.memory_mib} MiB), it is short of {_gib_up(use.shortfall)} GiB per GPU "
        f"({gib(use.weights)} GiB of weights, {gib(use.overhead)} of overhead, {gib(use.request)} of KV cache for one "
        f"request, {gib(max(0, use.kv_available))} left for it); legal degrees here: {_degrees(legal)}"
    )
    longest = use.kv_tokens - KV_BLOCK_TOKENS
    usable = usable_bytes(best.pool.memory_mib)
    room = usable - use.weights - use.overhead
    if settings.kv_cache_bytes is not None and settings.kv_cache_bytes > room > use.request:
        message += f"; set engine.kvCacheMemory to at most {gib(room)} GiB, or leave it out"
    elif settings.kv_cache_bytes is not None and settings.kv_cache_bytes < use.request < room:
        message += f"; set engine.kvCacheMemory to at least {_gib_up(use.request)} GiB, or leave it out"
    elif settings.kv_cache_bytes is None and room - use.request >= usable * (1 - _USUAL_UTILIZATION):
        message += f"; raise engine.gpuMemoryUtilization={settings.gpu_memory_utilization:g}"
    elif longest >= 1:
        message += f"; set spec.model.maxLength to at most {longest}, or use GPUs with more memory"
    elif request.tensor is not None and legal and legal[-1] > request.tensor:
        message += f"; set parallelism.tensor to 'auto' or to one of {_degrees(legal)}"
    else:
        message += "; use nodes with more or larger GPUs, or a quantized model"
    return PlanProblem(Reason.INSUFFICIENT_GPU_MEMORY, message[:1024])


def _degrees(legal: tuple[int, ...]) -> str:
    return ", ".join(str(degree) for degree in legal) if legal else "none"


def _gib_up(size_bytes: int) -> str:
    """Bytes as GiB with one decimal, rounded up: a shortage is never 0.0."""
    return f"{math.ceil(size_bytes * 10 / BYTES_PER_GIB) / 10:.1f}"


def gib(size_bytes: int) -> str:
    """Bytes as GiB with one decimal."""
    return f"{size_bytes / BYTES_PER_GIB:.1f}"
