"""What an engine will say of its KV cache when it starts. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from vllm_operator.cli.errors import CommandError
from vllm_operator.planner.choice.words import degrees
from vllm_operator.planner.constraints.check import legal_tensor, violations
from vllm_operator.planner.device import Device
from vllm_operator.planner.engine_settings import EngineSettings
from vllm_operator.planner.kv_cache.capacity import kv_capacity
from vllm_operator.planner.kv_cache.demand import kv_demand
from vllm_operator.planner.layout import Layout
from vllm_operator_api.model import ModelFacts

_LARGEST_TENSOR: Final = 64
_DEVICE_WORDS: Final = {"cpu": "CPU"}


@dataclass(frozen=True, slots=True, kw_only=True)
class KvReport:
    """Numbers of one rank, the fullest one."""

    device: str
    """As the engine's line calls it."""
    max_length: int
    blocks: int
    blocks_per_request: int
    bytes_per_block: int
    tokens: int
    concurrency: float
    fits: bool
    """One request of full length and vLLM's null block: without them the engine does not start."""
    exact: bool


def kv_report(
    facts: ModelFacts, layout: Layout, settings: EngineSettings, device: Device, available_bytes: int
) -> KvReport:
    """Blocks, tokens and concurrency with so many bytes per rank for the KV cache.

    Raises:
        CommandError: vLLM refuses the layout, or the model keeps no KV cache.
    """
    broken = violations(facts, layout, settings, device)
    if broken:
        legal = degrees(legal_tensor(facts, settings, _LARGEST_TENSOR, device))
        raise CommandError(
            f"{layout} is illegal for {facts.source}: {broken[0].message}; legal tensor degrees up to "
            f"{_LARGEST_TENSOR}: {legal}"
        )
    demand = kv_demand(facts, layout, settings, device)
    if demand is None:
        raise CommandError(f"{facts.source} ({facts.architecture}) keeps no KV cache")
    capacity = kv_capacity(demand, available_bytes, settings.max_length_tokens)
    return KvReport(
        device=_DEVICE_WORDS.get(device.vendor, "GPU"),
        max_length=settings.max_length_tokens,
        blocks=capacity.blocks,
        blocks_per_request=demand.blocks_per_request,
        bytes_per_block=demand.bytes_per_block,
        tokens=capacity.tokens,
        concurrency=capacity.concurrency,
        fits=capacity.blocks > demand.blocks_per_request,
        exact=demand.exact,
    )
