"""Models with several kinds of layers: groups, block sizes, and blocks of one request."""

from __future__ import annotations

import pytest
from tests.unit.planner.kv_cache import models

from vllm_operator.planner.device import Device
from vllm_operator.planner.engine_settings import EngineSettings
from vllm_operator.planner.kv_cache.demand import KvDemand, kv_demand
from vllm_operator.planner.layout import Layout
from vllm_operator_api.model import ModelFacts, StateCache

HOPPER = Device(vendor="nvidia", compute_capability=(9, 0))
AMPERE = Device(vendor="nvidia", compute_capability=(8, 0))
BLACKWELL = Device(vendor="nvidia", compute_capability=(10, 0))
CPU = Device(vendor="cpu")
LENGTH = 32768


def demand_of(
    model: ModelFacts,
    layout: Layout | None = None,
    device: Device = HOPPER,
    *,
    length: int = LENGTH,
    batched: int = 8192,
    block: int | None = None,
    prefix_caching: bool = True,
    kv: str = "auto",
) -> KvDemand:
    settings = EngineSettings(
        max_length_tokens=length,
        batched_tokens=batched,
        block_tokens=block,
        prefix_caching=prefix_caching,
        kv_cache_dtype=kv,
    )
    demand = kv_demand(model, layout or Layout(), settings, device)
    assert demand is not None
    return demand


def group_sizes(demand: KvDemand) -> list[tuple[str, int]]:
    return [(group.cache.kind, group.layers) for group in demand.groups]


def test_as_many_full_as_sliding_layers() -> None:
    demand = demand_of(models.GPT_OSS_120B)
    assert group_sizes(demand) == [("sliding", 18), ("full", 18)]
    assert demand.bytes_per_block == 18 * 16 * 8 * 128 * 2
    assert demand.blocks_per_request == 2048 + (127 + 2 * 8192 + 15) // 16 + 1


def test_rarest_kind_sets_the_size_of_groups() -> None:
    demand = demand_of(models.GEMMA_3_27B)
    assert group_sizes(demand) == [
        ("sliding", 9),
        ("sliding", 9),
        *[("sliding", 9)] * 2,
        *[("sliding", 8)] * 2,
        ("full", 10),
    ]
    assert demand.bytes_per_block == 10 * 16 * 16 * 256 * 2


def test_chunks() -> None:
    demand = demand_of(models.LLAMA_4_SCOUT)
    assert group_sizes(demand) == [("chunked", 12)] * 3 + [("full", 12)]
    assert demand.blocks_per_request == 3 * (8192 + 2 * 8192) // 16 + 2048


def test_smaller_pages_hold_more_tokens() -> None:
    demand = demand_of(models.MIMO_V2_FLASH)
    assert {(g.cache.kind, g.cache.block_tokens) for g in demand.groups} == {("full", 32), ("sliding", 16)}
    assert (demand.bytes_per_block, demand.blocks_per_request) == (737_280, 6189)


@pytest.mark.parametrize(
    ("batched", "layout", "device", "in_flight"),
    [
        (8192, Layout(), HOPPER, 2 * 8192),
        (2048, Layout(), HOPPER, 2 * 2048),
        (2048, Layout(pipeline=4), HOPPER, 5 * 2048),
        (2048, Layout(), CPU, 2048),
        (2048, Layout(pipeline=2), CPU, 2 * 2048),
    ],
)
def test_windows_keep_blocks_of_tokens_in_flight(batched: int, layout: Layout, device: Device, in_flight: int) -> None:
    model = models.facts((models.sliding(8, 1024),), pattern="a" * 32)
    demand = demand_of(model, layout, device, batched=batched, length=65536, block=16)
    assert demand.blocks_per_request == -(-(1023 + in_flight) // 16) + 1


def test_window_wider_than_the_length_holds_the_length() -> None:
    model = models.facts((models.sliding(8, 1024),), pattern="a" * 32)
    assert demand_of(model, length=4096).blocks_per_request == 256 + 1


@pytest.mark.parametrize(
    ("model", "tensor", "block", "blocks", "states"),
    [
        (models.QWEN3_5_0_8B, 1, 544, 61 + 3 * 2, 2),
        (models.QWEN3_5_35B, 1, 1056, 32 + 3 * 2, 2),
        (models.QWEN3_6_27B, 1, 784, 42 + 3 * 2, 2),
        (models.NEMOTRON_3_NANO, 1, 2096, 16 + 4 * 3, 3),
        (models.KIMI_K3, 1, 5760, 6 + 3 * 3, 3),
        (models.KIMI_K3, 2, 2944, 12 + 3 * 3, 3),
    ],
)
def test_blocks_are_made_to_hold_a_state(model: ModelFacts, tensor: int, block: int, blocks: int, states: int) -> None:
    demand = demand_of(model, Layout(tensor=tensor))
    assert (demand.block_tokens, demand.blocks_per_request) == (block, blocks)
    assert {g.cache.states for g in demand.groups if g.cache.kind == "state"} == {states}


def test_copied_heads_beside_a_divided_state() -> None:
    """Two KV heads over four GPUs are a copy each, while the state is still divided: half as many tokens hold it."""
    demand = demand_of(models.QWEN3_5_35B, Layout(tensor=4))
    assert (demand.block_tokens, demand.blocks_per_request) == (528, 63 + 3 * 2)


def test_cpu_keeps_states_in_float32() -> None:
    """Jamba computes in bfloat16, and keeps its states so on a GPU."""
    state = StateCache(kind="mamba1", heads=1, head_dim=8192, state_size=16, conv_kernel=4)
    jamba = models.facts((state,), (models.full(8),), pattern="aaab" * 8, architecture="JambaForCausalLM")
    conv, recurrent = 8192 * 3 * 2, 8192 * 16
    token = 8 * 256 * 2
    assert demand_of(jamba, block=16).block_tokens == -(-(conv + recurrent * 2) // (token * 16)) * 16
    assert demand_of(jamba, device=CPU, block=32).block_tokens == -(-(conv + recurrent * 4) // (token * 32)) * 32


def test_one_state_per_request_without_prefix_caching() -> None:
    demand = demand_of(models.QWEN3_5_0_8B, prefix_caching=False)
    assert demand.blocks_per_request == 61 + 3 * 1


def test_kernel_that_writes_no_prefix_holds_one_state_less() -> None:
    assert demand_of(models.KIMI_K3, device=AMPERE).blocks_per_request == 6 + 3 * 2


def test_block_size_that_is_asked_for_is_kept_where_a_state_fits() -> None:
    assert demand_of(models.QWEN3_5_0_8B, block=2048).block_tokens == 2048
    assert demand_of(models.LLAMA_8B, block=64).block_tokens == 64


@pytest.mark.parametrize(
    ("model", "device", "kv", "block"),
    [
        (models.LLAMA_8B, HOPPER, "auto", 16),
        (models.LLAMA_8B, CPU, "auto", 128),
        (models.DEEPSEEK_V3, HOPPER, "auto", 16),
        (models.DEEPSEEK_V3, HOPPER, "fp8", 64),
        (models.DEEPSEEK_V3, BLACKWELL, "auto", 32),
        (models.DEEPSEEK_V3, AMPERE, "auto", 16),
        (models.DEEPSEEK_V3_2, HOPPER, "auto", 64),
        (models.facts((models.full(2, 512),), pattern="a" * 8), HOPPER, "fp8", 64),
        (models.facts((models.full(2),), pattern="a" * 8, model_type="gemma3", multimodal=True), BLACKWELL, "auto", 64),
    ],
)
def test_block_size_follows_the_back_end(model: ModelFacts, device: Device, kv: str, block: int) -> None:
    assert demand_of(model, device=device, kv=kv).block_tokens == block


def test_stage_with_most_layers_decides() -> None:
    """31 layers over two stages are 16 and 15: vLLM gives what is left to the first of two."""
    model = models.facts((models.full(8),), pattern="a" * 31)
    demand = demand_of(model, Layout(pipeline=2))
    assert demand.groups[0].stage_bytes == (16 * 65536, 15 * 65536)
    assert demand.bytes_per_block == 16 * 65536


def test_stages_share_the_groups_of_the_whole_model() -> None:
    """A stage of gpt-oss holds nine layers of each group, not groups of its own."""
    demand = demand_of(models.GPT_OSS_120B, Layout(pipeline=2))
    assert group_sizes(demand) == [("sliding", 18), ("full", 18)]
    assert demand.bytes_per_block == 9 * 16 * 8 * 128 * 2


def test_data_parallel_ranks_keep_a_cache_each() -> None:
    one = demand_of(models.DEEPSEEK_V3)
    assert demand_of(models.DEEPSEEK_V3, Layout(data=8, expert_parallel=True)) == one


def test_latents_beside_windows_that_do_not_divide_keep_every_token() -> None:
    model = models.facts((models.LATENT,), (models.sliding(4, 512),), pattern="ab" * 8)
    demand = demand_of(model)
    assert group_sizes(demand) == [("full", 16)]
    assert demand.blocks_per_request == LENGTH // 16


def test_model_that_keeps_nothing() -> None:
    settings = EngineSettings(max_length_tokens=512)
    encoder = models.facts((), pattern="aaaa")
    assert kv_demand(encoder, Layout(), settings, HOPPER) is None
    pooling = EngineSettings(max_length_tokens=512, keeps_kv_cache=False)
    assert kv_demand(models.LLAMA_8B, Layout(), pooling, HOPPER) is None


@pytest.mark.parametrize(
    ("device", "kv", "exact"),
    [
        (HOPPER, "auto", True),
        (CPU, "auto", True),
        (HOPPER, "turboquant_4bit_nc", False),
        (Device(vendor="nvidia"), "auto", False),
        (Device(vendor="amd"), "auto", False),
    ],
)
def test_exact_only_where_vllm_was_asked(device: Device, kv: str, exact: bool) -> None:
    assert demand_of(models.LLAMA_8B, device=device, kv=kv).exact is exact
