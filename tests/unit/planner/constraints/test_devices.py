"""What a kind of accelerator cannot run at all."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.unit.planner.constraints import models

from vllm_operator.planner.constraints.check import Violation, can_run_on
from vllm_operator.planner.device import Device
from vllm_operator.planner.engine_settings import EngineSettings
from vllm_operator_api.model import ModelFacts, QuantizationFacts

V100, T4, A100, L4, H100, B200 = (
    Device(compute_capability=capability) for capability in ((7, 0), (7, 5), (8, 0), (8, 9), (9, 0), (10, 0))
)
AMD, INTEL, GAUDI, CPU = Device(vendor="amd"), Device(vendor="intel"), Device(vendor="habana"), Device(vendor="cpu")
UNKNOWN = Device()


def reason(facts: ModelFacts, device: Device, **settings: Any) -> str | None:
    violation = can_run_on(facts, EngineSettings(max_length_tokens=8192, **settings), device)
    assert violation is None or violation.rule == "C16"
    return None if violation is None else violation.message


def quantised(method: str, bits: int = 8, **fields: Any) -> ModelFacts:
    return replace(models.QWEN3_32B, quantization=QuantizationFacts(method=method, weight_bits=bits, **fields))


def test_needed_and_found_capability_are_named() -> None:
    assert reason(models.QWEN3_32B, V100) == "vLLM needs compute capability 7.5, and this GPU has 7.0"
    assert can_run_on(models.QWEN3_32B, EngineSettings(max_length_tokens=1), V100) == Violation(
        "C16", "vLLM needs compute capability 7.5, and this GPU has 7.0"
    )


@pytest.mark.parametrize("device", [T4, A100, H100, B200, AMD, INTEL, GAUDI, CPU, UNKNOWN])
def test_an_unquantised_checkpoint_runs_anywhere(device: Device) -> None:
    assert reason(models.QWEN3_32B, device) is None


@pytest.mark.parametrize(
    ("facts", "too_old", "old_enough"),
    [
        (models.GPT_OSS_20B, T4, A100),
        (quantised("modelopt"), T4, A100),
        (quantised("modelopt_mxfp8"), T4, A100),
        (quantised("experts_int8"), T4, A100),
        (quantised("fp_quant", 4), H100, B200),
        (models.DEEPSEEK_V3_2, L4, H100),
        (models.DEEPSEEK_V4_FLASH, L4, H100),
        (quantised("fp8", kv_cache_dtype="fp8"), T4, A100),
        (replace(models.DEEPSEEK_V3, quantization=replace(models.FP8_BLOCKS, kv_cache_dtype="fp8")), A100, L4),
    ],
)
def test_the_least_capability(facts: ModelFacts, too_old: Device, old_enough: Device) -> None:
    refused = reason(facts, too_old)
    assert refused is not None
    major, minor = too_old.compute_capability or (0, 0)
    assert refused.endswith(f"this GPU has {major}.{minor}")
    assert reason(facts, old_enough) is None
    assert reason(facts, UNKNOWN) is None


@pytest.mark.parametrize(
    "facts",
    [
        models.QWEN3_32B_FP8,
        models.QWEN2_5_7B_AWQ,
        quantised("gptq", 4, group_size=128),
        quantised("modelopt_fp4", 4, group_size=16),
        quantised("modelopt", 4, group_size=16),
        quantised("compressed-tensors", 4, group_size=32),
    ],
)
def test_weight_only_kernels_serve_turing(facts: ModelFacts) -> None:
    assert reason(facts, T4) is None


@pytest.mark.parametrize(
    ("method", "device", "expected"),
    [
        ("modelopt_fp4", INTEL, "vLLM does not offer the quantisation method modelopt_fp4 on Intel GPUs"),
        ("quark", INTEL, "vLLM does not offer the quantisation method quark on Intel GPUs"),
        ("experts_int8", AMD, "vLLM does not offer the quantisation method experts_int8 on AMD GPUs"),
        ("quark", AMD, None),
        ("fp8", INTEL, None),
        ("quark", CPU, None),
        ("quark", GAUDI, None),
        ("bitsandbytes", H100, "vLLM 0.32.0 does not know the quantisation method bitsandbytes"),
    ],
)
def test_methods_of_a_vendor(method: str, device: Device, expected: str | None) -> None:
    assert reason(quantised(method), device) == expected


def test_a_method_that_is_asked_for_counts_where_the_checkpoint_has_none() -> None:
    assert reason(models.QWEN3_32B, INTEL, quantization="quark") is not None
    assert reason(models.QWEN3_32B_FP8, INTEL, quantization="quark") is None


@pytest.mark.parametrize(
    ("facts", "device", "dtype", "expected"),
    [
        (models.QWEN3_32B, T4, "auto", None),
        (models.QWEN3_32B, T4, "half", None),
        (
            models.QWEN3_32B,
            T4,
            "bfloat16",
            "bfloat16 needs compute capability 8.0, and this GPU has 7.5; float16 runs on it",
        ),
        (models.QWEN3_32B, A100, "bfloat16", None),
        (
            replace(models.QWEN3_32B, model_type="gemma3"),
            H100,
            "float16",
            "float16 is numerically unstable with gemma3, so vLLM refuses it; use bfloat16",
        ),
        (
            models.GPT_OSS_20B,
            H100,
            "half",
            "the quantisation method mxfp4 computes in bfloat16, not in float16",
        ),
        (
            models.QWEN3_32B_FP8,
            H100,
            "float",
            "the quantisation method fp8 does not compute in float32",
        ),
        (quantised("compressed-tensors"), H100, "float32", None),
        (models.QWEN3_32B, CPU, "float32", None),
    ],
)
def test_a_data_type_that_is_asked_for(facts: ModelFacts, device: Device, dtype: str, expected: str | None) -> None:
    assert reason(facts, device, dtype=dtype) == expected


def test_an_fp8_kv_cache() -> None:
    assert reason(models.QWEN3_32B, T4, kv_cache_dtype="fp8") == (
        "a KV cache of fp8 needs compute capability 8.0, and this GPU has 7.5"
    )
    assert reason(models.QWEN3_32B, T4, kv_cache_dtype="fp8", keeps_kv_cache=False) is None
    assert reason(quantised("fp8", kv_cache_dtype="fp8"), T4, kv_cache_dtype="bfloat16") is None
    wide = models.model(32, models.attention(8, 192), vocabulary=1024)
    assert reason(wide, A100, kv_cache_dtype="fp8_e4m3") == (
        "a KV cache of fp8_e4m3 with heads of 192 needs compute capability 8.9, and this GPU has 8.0"
    )
    assert reason(models.GPT_OSS_20B, A100, kv_cache_dtype="fp8") == (
        "a KV cache of fp8 with GptOssForCausalLM needs compute capability 8.9, and this GPU has 8.0"
    )


def test_sparse_attention_has_no_kernels_on_cpus() -> None:
    assert reason(models.DEEPSEEK_V3_2, CPU) == "vLLM has no sparse attention on CPUs"
