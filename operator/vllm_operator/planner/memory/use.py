"""All terms of one GPU's memory together, and whether the model fits with them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from vllm_operator.planner.device import Device
from vllm_operator.planner.engine_settings import EngineSettings
from vllm_operator.planner.kv_cache.capacity import KvCapacity, kv_capacity, pool_bytes
from vllm_operator.planner.kv_cache.demand import KvDemand
from vllm_operator.planner.layout import Layout
from vllm_operator.planner.memory.overhead import overhead_per_gpu
from vllm_operator_api.model import ModelFacts
from vllm_operator_api.quantities import BYTES_PER_GIB

_MARGIN_BYTES: Final = BYTES_PER_GIB
_MARGIN_SHARE: Final = 0.02
"""What a prediction that no engine has confirmed must have to spare: the larger of the two. The terms of ``overhead``
are off by as much in published logs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryUse:
    """Predicted bytes on the fullest GPU of a replica."""

    weights_bytes: int
    overhead_bytes: int
    kv_available_bytes: int
    """Left for the KV cache; negative when weights and overhead alone do not fit."""
    demand: KvDemand | None
    """None: the model keeps no KV cache."""
    needed_bytes: int
    """KV cache that the requests which must fit at once need: whole blocks and vLLM's null block."""
    margin_bytes: int
    """To spare for a prediction to be trusted; 0 when an engine has confirmed the overhead."""
    capacity: KvCapacity
    data: int = 1
    """Copies of the KV cache in the replica: requests are spread over them."""
    spare_bytes: int | None = None
    """Left of the GPU beside everything, where the size of the KV cache is given; None where it is what is left."""

    @property
    def shortfall_bytes(self) -> int:
        """Missing per GPU; 0 when it fits.

        vLLM takes a given size of the KV cache unseen, and dies when weights and cache exceed the GPU.
        """
        missing = max(0, self.needed_bytes - self.kv_available_bytes)
        return missing if self.spare_bytes is None else max(missing, -(self.spare_bytes + self.overhead_bytes))

    @property
    def fits(self) -> bool:
        """Whether weights, overhead and the requests that must fit do fit."""
        return self.kv_available_bytes > 0 and self.shortfall_bytes == 0

    @property
    def slack_bytes(self) -> int:
        """What is to spare beyond the margin; negative for a fit that is marginal, and for none."""
        slack = self.kv_available_bytes - self.needed_bytes - self.margin_bytes
        return slack if self.spare_bytes is None else min(slack, self.spare_bytes)

    @property
    def marginal(self) -> bool:
        """Fits, but by less than predictions are off."""
        return self.fits and self.slack_bytes < 0

    @property
    def max_concurrency(self) -> float:
        """Requests of full length that the replica's KV cache holds; 0 without a KV cache."""
        return self.capacity.concurrency * self.data

    @property
    def kv_tokens(self) -> int:
        """Tokens that the replica's KV cache holds, as vLLM counts them."""
        return self.capacity.tokens * self.data


def memory_use(
    facts: ModelFacts,
    layout: Layout,
    settings: EngineSettings,
    device: Device,
    demand: KvDemand | None,
    *,
    weights_bytes: int,
    usable_bytes: int,
    min_concurrency: int = 1,
    observed_overhead_bytes: int | None = None,
) -> MemoryUse:
    """Predict the use of each GPU's memory.

    ``demand`` is ``kv_demand``, ``weights_bytes`` is ``weights_per_gpu``, of the same layout and settings.
    ``min_concurrency``: requests of full length that must fit at once. ``observed_overhead_bytes``: what an engine with
    these settings was seen to use.
    """
    overhead = observed_overhead_bytes
    if overhead is None:
        overhead = overhead_per_gpu(facts, layout, settings, device, weights_bytes)
    spare = None
    if settings.kv_cache_bytes is None:
        available = int(usable_bytes * settings.gpu_memory_utilization) - weights_bytes - overhead
    else:
        available = settings.kv_cache_bytes
        spare = usable_bytes - weights_bytes - overhead - available
    confirmed = observed_overhead_bytes is not None or settings.kv_cache_bytes is not None
    margin = 0 if confirmed else max(_MARGIN_BYTES, int(usable_bytes * _MARGIN_SHARE))
    needed, capacity = 0, KvCapacity(blocks=0, tokens=0, concurrency=0.0)
    if demand is not None:
        needed = pool_bytes(demand, math.ceil(min_concurrency / layout.data))
        capacity = kv_capacity(demand, max(0, available), settings.max_length_tokens)
    return MemoryUse(
        weights_bytes=weights_bytes,
        overhead_bytes=overhead,
        kv_available_bytes=available,
        demand=demand,
        needed_bytes=needed,
        margin_bytes=margin,
        capacity=capacity,
        data=layout.data,
        spare_bytes=spare,
    )
