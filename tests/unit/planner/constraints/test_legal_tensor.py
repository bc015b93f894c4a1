"""Which tensor-parallel degrees known models may have."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.unit.planner.constraints import models

from vllm_operator.planner.constraints.check import legal_tensor, violations
from vllm_operator.planner.device import Device
from vllm_operator.planner.engine_settings import EngineSettings
from vllm_operator.planner.layout import Layout
from vllm_operator_api.model import ExpertFacts, ModelFacts, QuantizationFacts

SETTINGS = EngineSettings(max_length_tokens=8192)
A100 = Device(compute_capability=(8, 0))
H100 = Device(compute_capability=(9, 0))


@pytest.mark.parametrize(
    ("facts", "legal"),
    [
        (models.PHI_4, (1, 2)),
        (models.PHI_4_MINI, (1, 2, 4, 8)),
        (models.QWEN2_5_7B, (1, 2, 4)),
        (models.QWEN2_5_7B_AWQ, (1, 2, 4)),
        (models.QWEN3_32B, (1, 2, 4, 8, 16)),
        (models.QWEN3_32B_FP8, (1, 2, 4, 8)),
        (models.LLAMA_3_1_8B, (1, 2, 4, 8, 16)),
        (models.LLAMA_4_SCOUT, (1, 2, 4, 8)),
        (models.QWEN3_5_27B, (1, 2, 4, 8)),
        (models.NEMOTRON_3_NANO, (1, 2, 4, 8)),
        (models.QWEN3_235B, (1, 2, 4, 8, 16)),
        (models.QWEN3_235B_FP8, (1, 2, 4, 8, 16)),
        (models.QWEN3_30B_FP8, (1, 2, 4, 8)),
        (models.STEP_3_7_FP8, (1, 2)),
        (models.DEEPSEEK_V3, (1, 2, 4, 8, 16)),
        (models.DEEPSEEK_V4_FLASH, (1, 2, 4, 8)),  # 8 groups of the attention output
        (models.DEEPSEEK_V4_PRO, (1, 2, 4, 8, 16)),  # a shared expert of 192 each is padded to 256
        (models.GPT_OSS_20B, (1, 2, 4, 8)),  # its 8 KV heads are never copied
    ],
)
def test_known_models(facts: ModelFacts, legal: tuple[int, ...]) -> None:
    assert legal_tensor(facts, SETTINGS, 16) == legal


@pytest.mark.parametrize(("vocabulary", "legal"), [(128256, (1, 2, 3, 4, 6)), (151936, (1, 2, 4))])
def test_degrees_that_are_no_power_of_two_are_offered(vocabulary: int, legal: tuple[int, ...]) -> None:
    facts = models.model(48, models.attention(12), vocabulary=vocabulary, widths=(12288,))
    assert legal_tensor(facts, SETTINGS, 7) == legal


def test_five_and_seven_are_offered() -> None:
    facts = models.model(35, models.attention(35), vocabulary=35 * 64, widths=(35,))
    assert legal_tensor(facts, SETTINGS, 8) == (1, 5, 7)


def test_no_degree_above_the_bound() -> None:
    facts = models.model(1024, models.attention(1), vocabulary=2**16, widths=(2**16,))
    assert max(legal_tensor(facts, SETTINGS, 4096)) == 64


@pytest.mark.parametrize("largest", [0, -1])
def test_no_accelerator_no_degree(largest: int) -> None:
    assert legal_tensor(models.PHI_4, SETTINGS, largest) == ()


def test_every_kind_of_layer_has_its_own_kv_heads() -> None:
    """Gemma-4 has fewer KV heads in its layers with full attention, MiMo-V2 more in those with a window."""
    full, sliding = models.attention(3), models.attention(8, kind="sliding", window_tokens=128)
    facts = models.model(48, full, sliding, vocabulary=128256, widths=(12288,))
    assert legal_tensor(facts, SETTINGS, 8) == (1,)
    assert [v.message for v in violations(facts, Layout(tensor=3), SETTINGS, Device())] == [
        "the 8 KV heads of the layers with sliding attention cannot be divided evenly over 3 GPUs"
    ]
    assert [v.message for v in violations(facts, Layout(tensor=4), SETTINGS, Device())] == [
        "the 3 KV heads cannot be copied equally often onto 4 GPUs"
    ]


def test_a_state_space_model_has_no_attention_heads() -> None:
    state = models.NEMOTRON_3_NANO.layer_shapes[1].caches[0]
    facts = models.model(1, state, vocabulary=131072)
    assert legal_tensor(facts, SETTINGS, 16) == (1, 2, 4, 8)


def test_one_mamba_group_is_copied() -> None:
    state = replace(models.NEMOTRON_3_NANO.layer_shapes[1].caches[0], key_heads=1)
    facts = models.model(1, state, vocabulary=131072)
    assert legal_tensor(facts, SETTINGS, 16) == (1, 2, 4, 8, 16)


def test_key_heads_of_a_delta_net_are_not_copied() -> None:
    state = replace(models.QWEN3_5_27B.layer_shapes[1].caches[0], key_heads=4)
    facts = replace(models.QWEN3_5_27B, layer_shapes=(models.QWEN3_5_27B.layer_shapes[0], state_layer(state)))
    assert legal_tensor(facts, SETTINGS, 16) == (1, 2, 4)


def state_layer(state: models.StateCache) -> models.LayerShape:
    return models.LayerShape(caches=(state,))


def test_expert_parallelism_lifts_what_holds_experts_back() -> None:
    assert legal_tensor(models.QWEN3_30B_FP8, SETTINGS, 32) == (1, 2, 4, 8)
    assert legal_tensor(models.QWEN3_30B_FP8, SETTINGS, 32, expert_parallel=True) == (1, 2, 4, 8, 16, 32)


def test_blocks_that_are_cut_down_need_fp8_arithmetic() -> None:
    assert legal_tensor(models.QWEN3_235B_FP8, SETTINGS, 16, A100) == (1, 2, 4)
    assert legal_tensor(models.QWEN3_235B_FP8, SETTINGS, 16, H100) == (1, 2, 4, 8, 16)
    assert legal_tensor(models.QWEN3_235B_FP8, SETTINGS, 16, Device(vendor="amd")) == (1, 2, 4, 8, 16)


def test_compressed_tensors_do_not_cut_blocks_down() -> None:
    quantization = replace(models.FP8_BLOCKS, method="compressed-tensors")
    facts = replace(models.QWEN3_235B_FP8, quantization=quantization)
    assert legal_tensor(facts, SETTINGS, 16, H100) == (1, 2, 4)


@pytest.mark.parametrize(
    ("method", "legal"),
    [
        ("compressed-tensors", (1, 2)),  # 768 over 4 is 192, no whole number of 128
        ("awq", (1, 2, 4, 8)),  # 192 is 3 x 64 and 96 is 3 x 32, but 48 is not 32 often
    ],
)
def test_groups_of_experts(method: str, legal: tuple[int, ...]) -> None:
    facts = models.model(
        32,
        models.attention(4),
        vocabulary=151936,
        experts=ExpertFacts(experts=128, experts_per_token=8, intermediate_size=768),
        quantization=QuantizationFacts(method=method, weight_bits=4, group_size=128),
    )
    assert legal_tensor(facts, SETTINGS, 16) == legal


def test_a_slice_holds_whole_groups() -> None:
    facts = models.model(32, models.attention(8), vocabulary=128256, widths=(14336,), quantization=models.AWQ)
    assert legal_tensor(facts, SETTINGS, 32) == (1, 2, 4, 8, 16)
    (violation,) = violations(facts, Layout(tensor=32), SETTINGS, Device())
    assert violation.rule == "C7"
    assert violation.message == (
        "the feed-forward width of 14336 over 32 GPUs is 448 each, so a GPU would hold part of a group of 128 that "
        "shares one scale"
    )


def test_what_is_left_unquantised_may_be_cut_anywhere() -> None:
    facts = replace(models.STEP_3_7_FP8, intermediate_sizes=(1280,))
    ignoring = replace(models.FP8_BLOCKS, ignores_shared_experts=True)
    assert legal_tensor(facts, SETTINGS, 8) == (1, 2)
    assert legal_tensor(replace(facts, quantization=ignoring), SETTINGS, 8) == (1, 2, 4, 8)


def test_attention_of_narrow_heads_is_cut_into_whole_blocks() -> None:
    facts = models.model(
        16, models.attention(16, 64), vocabulary=128256, widths=(16384,), quantization=models.FP8_BLOCKS
    )
    assert legal_tensor(facts, SETTINGS, 16) == (1, 2, 4, 8)
    ignoring = replace(models.FP8_BLOCKS, ignores_attention=True)
    assert legal_tensor(replace(facts, quantization=ignoring), SETTINGS, 16) == (1, 2, 4, 8, 16)


def test_a_method_that_quantises_while_loading_has_its_groups() -> None:
    facts = models.model(64, models.attention(64), vocabulary=128256, widths=(16 * 33,))
    assert 16 in legal_tensor(facts, SETTINGS, 16)
    assert 16 not in legal_tensor(facts, replace(SETTINGS, quantization="mxfp8"), 16)
