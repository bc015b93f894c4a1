"""Bytes that a token takes on one GPU, for every way of keeping it."""

from __future__ import annotations

import pytest
from tests.unit.planner.kv_cache import models

from vllm_operator.planner.device import Device
from vllm_operator.planner.engine_settings import EngineSettings
from vllm_operator.planner.kv_cache.demand import kv_demand
from vllm_operator.planner.layout import Layout
from vllm_operator_api.model import ModelFacts

HOPPER = Device(vendor="nvidia", compute_capability=(9, 0))
BLACKWELL = Device(vendor="nvidia", compute_capability=(10, 0))
BLACKWELL_BOARD = Device(vendor="nvidia", compute_capability=(12, 0))


def token_bytes(
    model: ModelFacts, *, tensor: int = 1, kv: str = "auto", dtype: str = "auto", device: Device = HOPPER
) -> float:
    settings = EngineSettings(max_length_tokens=8192, kv_cache_dtype=kv, dtype=dtype)
    demand = kv_demand(model, Layout(tensor=tensor), settings, device)
    assert demand is not None
    return demand.bytes_per_block / demand.block_tokens


@pytest.mark.parametrize(
    ("tensor", "expected"),
    [(1, 327_680), (2, 163_840), (4, 81_920), (8, 40_960), (16, 40_960)],
)
def test_kv_heads_are_divided_until_one_is_left(tensor: int, expected: int) -> None:
    assert token_bytes(models.LLAMA_70B, tensor=tensor) == expected


def test_mistral_24b() -> None:
    assert token_bytes(models.MISTRAL_24B) == 163_840


@pytest.mark.parametrize("tensor", [1, 8, 16])
def test_latents_are_never_divided(tensor: int) -> None:
    assert token_bytes(models.DEEPSEEK_V3, tensor=tensor) == 61 * 1152


@pytest.mark.parametrize(
    ("model", "kv", "device", "per_layer"),
    [
        (models.DEEPSEEK_V3, "fp8", HOPPER, 576),
        (models.DEEPSEEK_V3_2, "auto", HOPPER, 1152 + 132),
        (models.DEEPSEEK_V3_2, "fp8", HOPPER, 656 + 132),
        (models.DEEPSEEK_V3_2, "fp8", BLACKWELL, 576 + 132),
        (models.DEEPSEEK_V3_2, "auto", BLACKWELL_BOARD, 656 + 132),
        (models.DEEPSEEK_V3_2, "nvfp4_ds_mla", BLACKWELL, 352 + 132),
    ],
)
def test_formats_of_latents(model: ModelFacts, kv: str, device: Device, per_layer: int) -> None:
    assert token_bytes(model, kv=kv, device=device) == 61 * per_layer


@pytest.mark.parametrize(
    ("kv", "per_head_and_layer"),
    [
        ("auto", 512),
        ("bfloat16", 512),
        ("fp8", 256),
        ("fp8_e5m2", 256),
        ("nvfp4", 144),
        ("fp8_per_token_head", 264),
        ("int4_per_token_head", 136),
    ],
)
def test_formats_of_keys_and_values(kv: str, per_head_and_layer: int) -> None:
    assert token_bytes(models.LLAMA_8B, kv=kv) == 32 * 8 * per_head_and_layer


def test_checkpoint_may_ask_for_fp8() -> None:
    checkpoint = models.facts((models.full(8),), pattern="a" * 32, kv_cache_dtype="fp8")
    assert token_bytes(checkpoint) == token_bytes(models.LLAMA_8B, kv="fp8")
    assert token_bytes(checkpoint, kv="bfloat16") == token_bytes(models.LLAMA_8B)


def test_float32_model_keeps_float32_only_when_told_to() -> None:
    assert token_bytes(models.LLAMA_8B, dtype="float32") == 2 * token_bytes(models.LLAMA_8B)


def test_layers_that_keep_nothing_cost_nothing() -> None:
    without = models.facts((models.full(8),), (), pattern="aab" * 10)
    assert token_bytes(without) == 20 * 8 * 512
