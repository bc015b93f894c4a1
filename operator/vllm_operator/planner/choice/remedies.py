"""What would make a model fit that does not: each remedy is tried in the same arithmetic before it is named."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from vllm_operator.planner.choice.candidate import Candidate, Evaluator
from vllm_operator.planner.choice.layouts import layouts
from vllm_operator.planner.choice.legality import Legality
from vllm_operator.planner.choice.request import GivenLayout, PlanRequest
from vllm_operator.planner.choice.score import score
from vllm_operator.planner.choice.words import gib, gib_down, gib_up
from vllm_operator.planner.constraints.check import can_run_on
from vllm_operator.planner.inventory.larger import larger_pools
from vllm_operator.planner.inventory.pool import GpuPool
from vllm_operator.planner.kv_cache.capacity import longest_that_fits
from vllm_operator.planner.layout import Layout
from vllm_operator_api.model import ModelFacts

_USUAL_UTILIZATION: Final = 0.92
"""vLLM's own share of a GPU's memory: what does not fit only because less is given is mended by giving it."""
_LARGE_NODE_GPUS: Final = 8
"""GPUs of the largest usual node."""
_MAX_REMEDIES: Final = 4


def remedies(facts: ModelFacts, request: PlanRequest, best: Candidate) -> list[str]:
    """What to do, the cheapest first. ``best`` is the candidate that comes closest."""
    found = [
        _kv_cache_memory(request, best),
        _utilization(facts, request, best),
        _shorter(facts, request, best),
        _auto(facts, request, best),
        _fp8_kv_cache(facts, request, best),
        _fp8_weights(facts, request, best),
        _more_gpus(facts, request, best),
        _larger_gpus(facts, request, best),
    ]
    return [remedy for remedy in found if remedy is not None][:_MAX_REMEDIES]


def _kv_cache_memory(request: PlanRequest, best: Candidate) -> str | None:
    given, use = request.settings.kv_cache_bytes, best.use
    if given is None:
        return None
    room = best.pool.usable_bytes - use.weights_bytes - use.overhead_bytes
    if given > room >= use.needed_bytes:
        return f"set engine.kvCacheMemory to at most {gib_down(room)} GiB, or leave it out"
    if given < use.needed_bytes <= room:
        return f"set engine.kvCacheMemory to at least {gib_up(use.needed_bytes)} GiB, or leave it out"
    return None


def _utilization(facts: ModelFacts, request: PlanRequest, best: Candidate) -> str | None:
    given = request.settings.gpu_memory_utilization
    if request.settings.kv_cache_bytes is not None or given >= _USUAL_UTILIZATION:
        return None
    usual = replace(request, settings=replace(request.settings, gpu_memory_utilization=_USUAL_UTILIZATION))
    if not _fits(facts, usual, best.pool, best):
        return None
    return f"raise engine.gpuMemoryUtilization={given:g}"


def _shorter(facts: ModelFacts, request: PlanRequest, best: Candidate) -> str | None:
    if best.use.spare_bytes is not None and best.use.spare_bytes < 0:
        return None  # the given cache is too large for the GPU, whatever the length
    longest = longest_length(facts, request, best)
    if not 1 <= longest < request.settings.max_length_tokens:
        return None
    return f"set spec.model.maxLength to at most {longest}"


def longest_length(facts: ModelFacts, request: PlanRequest, best: Candidate) -> int:
    """Longest request, up to the length of ``best``'s settings, that fits as often as is asked; 0 when none does."""
    copies = -(-request.min_concurrency // best.layout.data)
    longest = 0
    for candidate in Evaluator(facts, request).each_budget(best.pool, best.layout):
        share = candidate.use.kv_available_bytes // copies
        if candidate.use.demand is not None and share > 0:
            settings = replace(candidate.settings, max_length_tokens=best.settings.max_length_tokens)
            longest = max(longest, longest_that_fits(facts, best.layout, settings, best.pool.device, share))
    return longest


def _auto(facts: ModelFacts, request: PlanRequest, best: Candidate) -> str | None:
    if not request.given.anything:
        return None
    free = replace(request, given=GivenLayout())
    layout = _smallest(facts, free, best.pool)
    return None if layout is None else f"set parallelism to 'auto': {layout} fits"


def _fp8_kv_cache(facts: ModelFacts, request: PlanRequest, best: Candidate) -> str | None:
    settings = request.settings
    if settings.kv_cache_dtype != "auto" or best.use.demand is None or settings.kv_cache_bytes is not None:
        return None
    smaller = replace(request, settings=replace(settings, kv_cache_dtype="fp8"))
    if can_run_on(facts, smaller.settings, best.pool.device) or not _fits(facts, smaller, best.pool, best):
        return None
    return "set engine.kvCacheDtype to fp8"


def _fp8_weights(facts: ModelFacts, request: PlanRequest, best: Candidate) -> str | None:
    if facts.quantization is not None or request.settings.quantization is not None:
        return None
    smaller = replace(request, settings=replace(request.settings, quantization="fp8"))
    layout = _smallest(facts, smaller, best.pool)
    return None if layout is None else f"set model.quantization to fp8, or use a quantized model: {layout} fits"


def _more_gpus(facts: ModelFacts, request: PlanRequest, best: Candidate) -> str | None:
    """More GPUs per pod, more nodes, or larger nodes, whichever is nearest."""
    if best.pool.single:
        return None
    free = replace(request, given=GivenLayout(), max_gpus_per_pod=None)
    if request.max_gpus_per_pod is not None and (layout := _smallest(facts, free, best.pool)) is not None:
        return f"raise parallelism.maxGPUsPerPod={request.max_gpus_per_pod}: {layout} fits"
    if not request.allow_multi_node:
        layout = _smallest(facts, replace(free, allow_multi_node=True), best.pool)
        if layout is not None and layout.nodes > 1:
            return f"set parallelism.allowMultiNode to true: {layout} fits"
    wider = replace(best.pool, gpus_per_node=max(_LARGE_NODE_GPUS, 2 * best.pool.gpus_per_node), nodes=1)
    layout = _smallest(facts, replace(free, allow_multi_node=False), wider)
    if layout is not None:
        return f"use nodes with more of them: {layout} fits"
    layout = _smallest(facts, replace(free, allow_multi_node=True), replace(best.pool, nodes=0))
    return None if layout is None else f"use more nodes (parallelism.allowMultiNode): {layout} fits"


def _larger_gpus(facts: ModelFacts, request: PlanRequest, best: Candidate) -> str | None:
    free = replace(request, given=GivenLayout(), max_gpus_per_pod=None)
    for pool in larger_pools(best.pool):
        layout = _smallest(facts, free, pool)
        if layout is not None:
            return f"use {pool.product} ({gib(pool.usable_bytes)} GiB): {layout} fits"
    return None


def _smallest(facts: ModelFacts, request: PlanRequest, pool: GpuPool) -> Layout | None:
    """The layout with the fewest GPUs on this pool that fits; of several the best."""
    legality, evaluator = Legality(facts, request.settings), Evaluator(facts, request)
    if legality.unable(pool.device) is not None:
        return None
    fitting: list[Candidate] = []
    for layout in layouts(facts, request, pool, legality):
        if fitting and layout.gpus > fitting[0].layout.gpus:
            break
        if evaluator.is_hopeless(pool, layout) or legality.violation(layout, pool.device) is not None:
            continue
        candidate = evaluator.candidate(pool, layout)
        if candidate.use.fits:
            fitting.append(candidate)
    return min(fitting, key=lambda candidate: score(candidate, request)).layout if fitting else None


def _fits(facts: ModelFacts, request: PlanRequest, pool: GpuPool, like: Candidate) -> bool:
    return Evaluator(facts, request).candidate(pool, like.layout).use.fits
