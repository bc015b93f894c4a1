"""What one request takes of the KV cache, and what a block of it costs."""

from __future__ import annotations

from dataclasses import dataclass

from vllm_operator.planner.device import Device
from vllm_operator.planner.engine_settings import EngineSettings
from vllm_operator.planner.kv_cache.compressed import is_compressed
from vllm_operator.planner.kv_cache.grouping import CacheGroup, cache_groups
from vllm_operator.planner.kv_cache.model_layers import cached_layers
from vllm_operator.planner.kv_cache.number_format import kv_format
from vllm_operator.planner.kv_cache.packing import packed_groups
from vllm_operator.planner.layout import Layout
from vllm_operator_api.model import ModelFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class KvDemand:
    """Blocks and bytes on the pipeline stage that decides: the one that has fewest blocks for the same bytes."""

    bytes_per_block: int
    """Of that stage, on one GPU. Block tables are common to all stages."""
    blocks_per_request: int
    """Of a request of the full length, over all groups."""
    block_tokens: int
    """Of the group with the smallest blocks: ``block_size`` in ``vllm:cache_config_info`` (v1/engine/core.py)."""
    groups: tuple[CacheGroup, ...]
    in_flight_tokens: int
    """Tokens scheduled and not yet settled, which windows keep blocks for."""
    exact: bool = True
    """False where vLLM's own count may be lower: guesses in the facts, a data type or a device not modelled here."""

    def blocks_for(self, length_tokens: int) -> int:
        """Blocks of a request of this length."""
        return sum(group.cache.blocks(length_tokens, self.in_flight_tokens) for group in self.groups)


def kv_demand(facts: ModelFacts, layout: Layout, settings: EngineSettings, device: Device) -> KvDemand | None:
    """The demand of one request of ``settings.max_length_tokens``; None where nothing is kept between tokens."""
    if not settings.keeps_kv_cache:
        return None
    layers = cached_layers(facts, layout, settings, device)
    if not layers:
        return None
    groups = packed_groups(layers) if is_compressed(facts) else cache_groups(layers)
    in_flight = in_flight_tokens(layout, settings, device)
    return KvDemand(
        bytes_per_block=max(max(group.stage_bytes) for group in groups),
        blocks_per_request=sum(group.cache.blocks(settings.max_length_tokens, in_flight) for group in groups),
        block_tokens=min(group.cache.block_tokens for group in groups),
        groups=groups,
        in_flight_tokens=in_flight,
        exact=_is_exact(facts, settings, device),
    )


def in_flight_tokens(layout: Layout, settings: EngineSettings, device: Device) -> int:
    """Tokens of all batches under way (config/vllm.py: max_concurrent_batches, max_in_flight_tokens).

    One batch per stage, and one more where scheduling runs ahead, which it does everywhere but on CPU.
    """
    batches = layout.pipeline if device.vendor == "cpu" else layout.pipeline + 1
    return batches * settings.batched_tokens


def _is_exact(facts: ModelFacts, settings: EngineSettings, device: Device) -> bool:
    known_device = device.vendor == "cpu" or (device.vendor == "nvidia" and device.compute_capability is not None)
    return known_device and not facts.guesses and kv_format(facts, settings, device).is_known
