"""How much a KV cache of some bytes holds, with the engine's own rounding (v1/core/kv_cache_utils.py)."""

from __future__ import annotations

from dataclasses import dataclass

from vllm_operator.planner.device import Device
from vllm_operator.planner.engine_settings import EngineSettings
from vllm_operator.planner.kv_cache.demand import KvDemand, kv_demand
from vllm_operator.planner.layout import Layout
from vllm_operator_api.model import ModelFacts


@dataclass(frozen=True, slots=True)
class KvCapacity:
    """What the engine logs at start-up, and reports as ``vllm:cache_config_info``."""

    blocks: int
    """``num_gpu_blocks`` of one data-parallel rank."""
    tokens: int
    """``kv_cache_size_tokens``: concurrency times the length, rounded down."""
    concurrency: float
    """``kv_cache_max_concurrency``: requests of the full length that the blocks hold."""


def kv_capacity(demand: KvDemand, available_bytes: int, max_length_tokens: int) -> KvCapacity:
    """Capacity of ``available_bytes`` per GPU of the deciding stage; all GPUs have as many.

    ``demand`` must be for the same length (get_kv_cache_capacity, get_max_concurrency_for_kv_cache_config).
    """
    blocks = max(0, available_bytes) // demand.bytes_per_block
    concurrency = blocks / demand.blocks_per_request
    return KvCapacity(blocks, int(concurrency * max_length_tokens), concurrency)


def needed_bytes(demand: KvDemand) -> int:
    """Bytes that one request of the full length needs, as the engine's refusal names them."""
    return demand.bytes_per_block * demand.blocks_per_request


def pool_bytes(demand: KvDemand, requests: int) -> int:
    """Bytes of the pool that holds so many requests of the full length, beside the null block that it keeps back."""
    return requests * needed_bytes(demand) + demand.bytes_per_block


def longest_that_fits(
    facts: ModelFacts, layout: Layout, settings: EngineSettings, device: Device, available_bytes: int
) -> int:
    """The largest maximum length up to ``settings.max_length_tokens`` that the engine would start with; 0: none.

    This is the estimate in the engine's refusal (_estimate_max_model_len_from_groups, with the null block kept back).
    Where nothing is kept every length fits.
    """
    demand = kv_demand(facts, layout, settings, device)
    if demand is None:
        return settings.max_length_tokens
    usable_blocks = (available_bytes - demand.bytes_per_block) // demand.bytes_per_block
    low, high = 0, settings.max_length_tokens
    while low < high:
        middle = (low + high + 1) // 2
        if demand.blocks_for(middle) <= usable_blocks:
            low = middle
        else:
            high = middle - 1
    return low
