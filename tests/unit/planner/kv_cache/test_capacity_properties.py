"""What must hold of the KV cache whatever the model."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from tests.unit.planner.kv_cache import models

from vllm_operator.planner.device import Device
from vllm_operator.planner.engine_settings import EngineSettings
from vllm_operator.planner.kv_cache.capacity import kv_capacity, longest_that_fits, needed_bytes, pool_bytes
from vllm_operator.planner.kv_cache.demand import KvDemand, kv_demand
from vllm_operator.planner.layout import Layout
from vllm_operator_api.model import ModelFacts

HOPPER = Device(vendor="nvidia", compute_capability=(9, 0))
MODELS = st.sampled_from(
    [
        models.LLAMA_8B,
        models.GPT_OSS_120B,
        models.GEMMA_3_27B,
        models.LLAMA_4_SCOUT,
        models.DEEPSEEK_V3,
        models.DEEPSEEK_V3_2,
        models.MIMO_V2_FLASH,
        models.QWEN3_5_35B,
        models.NEMOTRON_3_NANO,
        models.KIMI_K3,
    ]
)
LENGTHS = st.integers(1, 300_000)
LAYOUTS = st.builds(Layout, tensor=st.sampled_from([1, 2, 4, 8]), pipeline=st.integers(1, 4))
BYTES = st.integers(0, 200 * 2**30)


def demand_of(model: ModelFacts, layout: Layout, length: int) -> KvDemand:
    demand = kv_demand(model, layout, EngineSettings(max_length_tokens=length), HOPPER)
    assert demand is not None
    return demand


@given(MODELS, LAYOUTS, LENGTHS, BYTES)
def test_longest_that_fits_is_the_longest(model: ModelFacts, layout: Layout, length: int, available: int) -> None:
    longest = longest_that_fits(model, layout, EngineSettings(max_length_tokens=length), HOPPER, available)
    assert 0 <= longest <= length
    if longest > 0:
        assert pool_bytes(demand_of(model, layout, longest), 1) <= available
    if longest < length:
        assert pool_bytes(demand_of(model, layout, longest + 1), 1) > available


@given(MODELS, LAYOUTS, LENGTHS, LENGTHS)
def test_longer_requests_never_take_fewer_blocks(model: ModelFacts, layout: Layout, one: int, other: int) -> None:
    shorter, longer = sorted((one, other))
    short, long = demand_of(model, layout, shorter), demand_of(model, layout, longer)
    assert short.bytes_per_block == long.bytes_per_block
    assert short.blocks_per_request <= long.blocks_per_request
    assert short.blocks_for(longer) == long.blocks_per_request


@given(MODELS, LENGTHS, st.sampled_from([(1, 2), (2, 4), (4, 8)]))
def test_more_gpus_never_hold_more_bytes_each(model: ModelFacts, length: int, tensor: tuple[int, int]) -> None:
    fewer, more = (needed_bytes(demand_of(model, Layout(tensor=degree), length)) for degree in tensor)
    assert more <= fewer


@given(MODELS, LAYOUTS, LENGTHS, BYTES, BYTES)
def test_more_memory_never_holds_less(model: ModelFacts, layout: Layout, length: int, one: int, other: int) -> None:
    demand = demand_of(model, layout, length)
    less, more = (kv_capacity(demand, available, length) for available in sorted((one, other)))
    assert (less.blocks, less.tokens, less.concurrency) <= (more.blocks, more.tokens, more.concurrency)


@given(MODELS, LAYOUTS, LENGTHS, BYTES)
def test_engine_that_starts_serves_one_request(model: ModelFacts, layout: Layout, length: int, available: int) -> None:
    demand = demand_of(model, layout, length)
    capacity = kv_capacity(demand, available, length)
    assert (pool_bytes(demand, 1) <= available) == (capacity.blocks - 1 >= demand.blocks_per_request)
