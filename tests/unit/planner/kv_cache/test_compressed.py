"""DeepSeek-V4: compressed latents, windows and unfinished ones side by side in a block."""

from __future__ import annotations

from tests.unit.planner.kv_cache import models

from vllm_operator.planner.device import Device
from vllm_operator.planner.engine_settings import EngineSettings
from vllm_operator.planner.kv_cache.demand import KvDemand, kv_demand
from vllm_operator.planner.layout import Layout
from vllm_operator_api.model import IndexCache, LatentCache, ModelFacts

HOPPER = Device(vendor="nvidia", compute_capability=(9, 0))
WINDOW = models.sliding(1, 128, 256)
BY_4 = (WINDOW, LatentCache(rank=128), IndexCache(head_dim=32))
BY_128 = (WINDOW, LatentCache(rank=4))


def demand_of(model: ModelFacts, layout: Layout | None = None) -> KvDemand:
    demand = kv_demand(model, layout or Layout(), EngineSettings(max_length_tokens=32768), HOPPER)
    assert demand is not None
    return demand


def flash() -> ModelFacts:
    """DeepSeek-V4-Flash: 43 layers, two without compression, the others by 4 and by 128 in turn."""
    return models.facts((WINDOW,), BY_4, BY_128, pattern="aa" + "bc" * 20 + "b", architecture="DeepseekV4ForCausalLM")


def test_flash() -> None:
    """As vLLM's own functions say (tests/differential)."""
    demand = demand_of(flash())
    assert (demand.bytes_per_block, demand.blocks_per_request) == (1_002_240, 6810)
    assert sorted(group.layers for group in demand.groups) == [20, 21, 22, 42, 62]


def test_pro() -> None:
    pro = models.facts(BY_128, BY_4, pattern="aa" + "ba" * 29 + "b", architecture="DeepseekV4ForCausalLM")
    demand = demand_of(pro)
    assert (demand.bytes_per_block, demand.blocks_per_request) == (1_435_968, 6810)


def test_every_gpu_of_a_stage_keeps_the_same() -> None:
    assert demand_of(flash(), Layout(tensor=8)) == demand_of(flash())
