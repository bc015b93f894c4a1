"""Start-up lines and refusals of real engines, recomputed to the token."""

from __future__ import annotations

import pytest
from tests.unit.planner.kv_cache import models

from vllm_operator.planner.device import Device
from vllm_operator.planner.engine_settings import EngineSettings
from vllm_operator.planner.kv_cache.capacity import kv_capacity, longest_that_fits, needed_bytes
from vllm_operator.planner.kv_cache.demand import KvDemand, kv_demand
from vllm_operator.planner.layout import Layout
from vllm_operator_api.model import ModelFacts

GIB = 2**30
HOPPER = Device(vendor="nvidia", compute_capability=(9, 0))


def demand_of(model: ModelFacts, length: int, *, layout: Layout | None = None, kv: str = "auto") -> KvDemand:
    settings = EngineSettings(max_length_tokens=length, kv_cache_dtype=kv)
    demand = kv_demand(model, layout or Layout(), settings, HOPPER)
    assert demand is not None
    return demand


@pytest.mark.parametrize(
    ("model", "kv", "gib", "length", "blocks", "per_request", "tokens", "concurrency"),
    [
        pytest.param(models.QWEN3_5_0_8B, "auto", "67.08", 262144, 10775, 488, 5_788_118, "22.08", id="qwen3.5-0.8b"),
        pytest.param(models.QWEN3_5_35B, "fp8", "5.98", 131072, 299, 69, 567_978, "4.33", id="qwen3.6-35b-fp8-kv"),
        pytest.param(models.QWEN3_5_35B, "fp8", "5.69", 32768, 284, 22, None, "12.91", id="qwen3.5-35b-fp8-kv"),
        pytest.param(models.QWEN3_5_35B, "fp8", "6.08", 65536, 304, 38, None, "8.00", id="qwen3.5-35b-at-65536"),
        pytest.param(models.LLAMA_8B, "auto", "19.92", 8192, 10198, 512, 163_168, "19.92", id="llama-8b-on-a100-40gb"),
        pytest.param(models.QWEN2_5_1_5B, "auto", "0.56", 4096, 1312, 256, 20_992, "5.12", id="qwen2.5-1.5b"),
    ],
)
def test_start_up_line(
    model: ModelFacts,
    kv: str,
    gib: str,
    length: int,
    blocks: int,
    per_request: int,
    tokens: int | None,
    concurrency: str,
) -> None:
    """Public logs say GiB with two places: the blocks must be among those that such bytes hold."""
    demand = demand_of(model, length, kv=kv)
    least, most = (int((float(gib) + half) * GIB) // demand.bytes_per_block for half in (-0.005, 0.005))
    assert least <= blocks <= most
    available = blocks * demand.bytes_per_block
    capacity = kv_capacity(demand, available, length)
    assert (capacity.blocks, demand.blocks_per_request) == (blocks, per_request)
    assert f"{capacity.concurrency:.2f}" == concurrency
    if tokens is not None:
        assert capacity.tokens == tokens


@pytest.mark.parametrize(
    ("blocks", "per_request", "length", "tokens", "concurrency"),
    [
        pytest.param(400, 40, 5000, 50_000, "10.00", id="gqa"),
        pytest.param(800, 105, 5000, 38_095, "7.62", id="sliding"),
        pytest.param(512, 129, 8192, 32_513, "3.97", id="sliding-longer"),
        pytest.param(177, 40, 5000, 22_125, "4.42", id="mla"),
        pytest.param(424, 179, 262144, 620_944, "2.37", id="speculating-hybrid"),
    ],
)
def test_rounding_is_the_engines(blocks: int, per_request: int, length: int, tokens: int, concurrency: str) -> None:
    demand = KvDemand(
        bytes_per_block=1000, blocks_per_request=per_request, block_tokens=16, groups=(), in_flight_tokens=0
    )
    capacity = kv_capacity(demand, blocks * 1000 + 999, length)
    assert (capacity.blocks, capacity.tokens, f"{capacity.concurrency:.2f}") == (blocks, tokens, concurrency)


@pytest.mark.parametrize(
    ("model", "layout", "length", "gib"),
    [
        pytest.param(models.MINIMAX_M2_7, Layout(tensor=2), 196608, "23.25", id="minimax-m2.7"),
        pytest.param(models.QWEN3_VL_8B, Layout(), 262144, "36.00", id="qwen3-vl-8b"),
        pytest.param(models.QWEN3_CODER_30B, Layout(), 262144, "24.00", id="qwen3-coder-30b"),
        pytest.param(
            models.QWEN3_CODER_30B, Layout(pipeline=2), 262144, "12.00", id="qwen3-coder-30b-one-stage-of-two"
        ),
        pytest.param(models.MISTRAL_24B, Layout(), 131072, "20.00", id="mistral-24b"),
    ],
)
def test_refusal_names_the_bytes_that_are_needed(model: ModelFacts, layout: Layout, length: int, gib: str) -> None:
    assert f"{needed_bytes(demand_of(model, length, layout=layout)) / GIB:.2f}" == gib


def test_refusal_names_the_length_that_would_fit() -> None:
    """MiniMax-M2.7 with tensor=2: 22.5 GiB are enough for 190,272 tokens, beside the null block."""
    settings = EngineSettings(max_length_tokens=196608)
    demand = demand_of(models.MINIMAX_M2_7, 196608, layout=Layout(tensor=2))
    usable = 190_272 // 16 * demand.bytes_per_block
    assert f"{usable / GIB:.2f}" == "22.50"
    longest = longest_that_fits(
        models.MINIMAX_M2_7, Layout(tensor=2), settings, HOPPER, usable + demand.bytes_per_block
    )
    assert longest == 190_272
