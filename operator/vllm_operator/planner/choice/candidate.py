"""One layout on one pool, with its predicted use of memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from vllm_operator.planner.choice.calibration import overhead_key
from vllm_operator.planner.choice.request import PlanRequest
from vllm_operator.planner.device import Device
from vllm_operator.planner.engine_settings import EngineSettings
from vllm_operator.planner.inventory.pool import GpuPool
from vllm_operator.planner.kv_cache.demand import KvDemand, kv_demand
from vllm_operator.planner.layout import Layout
from vllm_operator.planner.memory.use import MemoryUse, memory_use
from vllm_operator.planner.memory.weights import weights_per_gpu
from vllm_operator_api.model import ModelFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A legal layout on a pool that can run it."""

    pool: GpuPool
    layout: Layout
    settings: EngineSettings
    use: MemoryUse
    confirmed: bool
    """The overhead is what an engine was seen to use."""

    @property
    def trusted(self) -> bool:
        """Fits with the margin."""
        return self.use.fits and not self.use.marginal


class Evaluator:
    """Predicts candidates of one request; keeps what several pools have in common, for the time of one choice."""

    def __init__(self, facts: ModelFacts, request: PlanRequest) -> None:
        self._facts = facts
        self._request = request
        self._demands: dict[tuple[Layout, int, Device], KvDemand | None] = {}
        self._weights: dict[Layout, int] = {}

    def candidate(self, pool: GpuPool, layout: Layout) -> Candidate:
        """The candidate with the largest token budget that fits with the margin, else with the most to spare."""
        candidates = []
        for candidate in self.each_budget(pool, layout):
            candidates.append(candidate)
            if candidate.trusted:
                return candidate
            if self.is_hopeless(pool, layout):
                break  # no budget helps
        return max(candidates, key=lambda candidate: candidate.use.slack_bytes)

    def each_budget(self, pool: GpuPool, layout: Layout) -> Iterator[Candidate]:
        """The candidate with every token budget that is tried, the largest first; predicted as it is asked for."""
        budgets = dict.fromkeys(max(each, self._least_budget()) for each in self._request.batched_tokens_candidates)
        return (self._with_budget(pool, layout, budget) for budget in budgets)

    def is_hopeless(self, pool: GpuPool, layout: Layout) -> bool:
        """Whether the weights alone exceed what the engine may take of a GPU."""
        settings = self._request.settings
        share = 1.0 if settings.kv_cache_bytes is not None else settings.gpu_memory_utilization
        return self._weights_per_gpu(layout) > int(pool.usable_bytes * share)

    def demand(self, layout: Layout, settings: EngineSettings, device: Device) -> KvDemand | None:
        """``kv_demand``, once per layout, budget and device."""
        key = (layout, settings.batched_tokens, device)
        if key not in self._demands:
            self._demands[key] = kv_demand(self._facts, layout, settings, device)
        return self._demands[key]

    def _weights_per_gpu(self, layout: Layout) -> int:
        if layout not in self._weights:
            self._weights[layout] = weights_per_gpu(self._facts, layout, self._request.settings)
        return self._weights[layout]

    def _least_budget(self) -> int:
        """VLLM refuses fewer tokens than requests, and for encoders fewer than the longest request."""
        settings = self._request.settings
        if settings.keeps_kv_cache:
            return settings.max_requests
        return max(settings.max_requests, settings.max_length_tokens)

    def _with_budget(self, pool: GpuPool, layout: Layout, budget: int) -> Candidate:
        facts, request = self._facts, self._request
        settings = replace(request.settings, batched_tokens=budget)
        observed = None
        if request.observed_overheads:
            key = overhead_key(facts, layout, settings, pool.product, request.vllm_version)
            observed = request.observed_overheads.get(key)
        use = memory_use(
            facts,
            layout,
            settings,
            pool.device,
            self.demand(layout, settings, pool.device),
            weights_bytes=self._weights_per_gpu(layout),
            usable_bytes=pool.usable_bytes,
            min_concurrency=request.min_concurrency,
            observed_overhead_bytes=observed,
        )
        return Candidate(pool=pool, layout=layout, settings=settings, use=use, confirmed=observed is not None)
