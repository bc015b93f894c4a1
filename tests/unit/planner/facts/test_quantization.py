"""How a checkpoint is quantised: the method by vLLM's name, and the bytes of what is and of what is not."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.model_configs import llama

from vllm_operator.planner.facts.config import model_facts
from vllm_operator.planner.facts.errors import ModelError
from vllm_operator_api.model import ModelFacts, QuantizationFacts

LAYERS, HIDDEN, WIDTH, VOCAB = 2, 4096, 14336, 128256
ATTENTION = LAYERS * (2 * HIDDEN * HIDDEN + 2 * HIDDEN * 1024)
MLP = LAYERS * 3 * HIDDEN * WIDTH
NORMS_BYTES = (LAYERS * 2 * HIDDEN + HIDDEN) * 2
OUTER_BYTES = 2 * VOCAB * HIDDEN * 2 + NORMS_BYTES
"""Embedding and output projection are mostly left as they are."""


def facts_of(settings: dict[str, Any], **changes: Any) -> ModelFacts:
    return model_facts(llama(num_hidden_layers=LAYERS, quantization_config=settings, **changes), source="test")


def bytes_of(settings: dict[str, Any], **changes: Any) -> int:
    return facts_of(settings, **changes).weights.total_bytes - OUTER_BYTES


def compressed(weights: dict[str, Any], **more: Any) -> dict[str, Any]:
    group = {"targets": ["Linear"], "weights": weights, "input_activations": more.pop("inputs", None)}
    return {"quant_method": "compressed-tensors", "config_groups": {"group_0": group}, "ignore": ["lm_head"], **more}


@pytest.mark.parametrize(
    ("settings", "facts"),
    [
        (
            {"quant_method": "fp8", "weight_block_size": [128, 128], "activation_scheme": "dynamic"},
            QuantizationFacts(method="fp8", weight_bits=8, activation_bits=8, block=(128, 128)),
        ),
        ({"quant_method": "fbgemm_fp8"}, QuantizationFacts(method="fbgemm_fp8", weight_bits=8, activation_bits=8)),
        (
            {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True},
            QuantizationFacts(method="awq", weight_bits=4, group_size=128),
        ),
        ({"quant_method": "gptq", "bits": 8, "group_size": -1}, QuantizationFacts(method="gptq", weight_bits=8)),
        (
            {"quant_method": "mxfp4"},
            QuantizationFacts(method="mxfp4", weight_bits=4, group_size=32, ignores_attention=True),
        ),
        (
            {"quant_method": "bitsandbytes", "load_in_4bit": True},
            QuantizationFacts(method="bitsandbytes", weight_bits=4),
        ),
        (
            compressed({"num_bits": 4, "group_size": 32, "type": "int", "symmetric": True}),
            QuantizationFacts(method="compressed-tensors", weight_bits=4, group_size=32),
        ),
        (
            compressed(
                {"num_bits": 8, "type": "float", "strategy": "channel"},
                inputs={"num_bits": 8},
                kv_cache_scheme={"num_bits": 8, "type": "float"},
            ),
            QuantizationFacts(method="compressed-tensors", weight_bits=8, activation_bits=8, kv_cache_dtype="fp8"),
        ),
        (
            {"quant_method": "modelopt", "quant_algo": "NVFP4", "kv_cache_quant_algo": "FP8"},
            QuantizationFacts(
                method="modelopt_fp4", weight_bits=4, activation_bits=4, group_size=16, kv_cache_dtype="fp8"
            ),
        ),
        (
            {"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "FP8", "kv_cache_quant_algo": "FP8"}},
            QuantizationFacts(method="modelopt", weight_bits=8, activation_bits=8),
        ),
        (
            {"quant_method": "quark", "global_quant_config": {"weight": {"dtype": "fp8_e4m3"}}},
            QuantizationFacts(method="quark", weight_bits=8),
        ),
    ],
)
def test_methods(settings: dict[str, Any], facts: QuantizationFacts) -> None:
    found = facts_of(settings)
    assert found.quantization == facts
    assert found.guesses == ()


def test_bytes_of_fp8_with_a_scale_per_block() -> None:
    scales = (ATTENTION + MLP) // (128 * 128) * 4
    settings = {"quant_method": "fp8", "weight_block_size": [128, 128]}
    assert bytes_of(settings) == ATTENTION + MLP + scales


def test_bytes_of_packed_integers_with_a_scale_and_a_zero_point_per_group() -> None:
    groups = (ATTENTION + MLP) // 128
    settings = {"quant_method": "awq", "bits": 4, "group_size": 128}
    assert bytes_of(settings) == (ATTENTION + MLP) // 2 + groups * 2 + groups // 2


def test_bytes_of_fp4_with_a_scale_per_sixteen() -> None:
    settings = {"quant_method": "modelopt", "quant_algo": "NVFP4", "ignore": ["lm_head"]}
    assert bytes_of(settings) == (ATTENTION + MLP) * 9 // 16


def test_only_experts_are_mxfp4() -> None:
    facts = facts_of({"quant_method": "mxfp4"}, num_local_experts=4)
    router_bytes = LAYERS * (4 * HIDDEN + 4) * 2
    assert facts.weights.expert_bytes == 4 * MLP * 17 // 32
    assert facts.weights.total_bytes == OUTER_BYTES + ATTENTION * 2 + router_bytes + 4 * MLP * 17 // 32


@pytest.mark.parametrize(
    "ignored",
    [
        ["re:.*self_attn.*"],
        ["re:.*self_attn\\.(q|k|v|o)_proj$", "lm_head"],
        ["model.layers.*.self_attn"],
        ["model.layers.*.self_attn*"],
        ["model.layers.0.self_attn*", "model.layers.1.self_attn*"],
        ["model.language_model.layers.0.self_attn", "language_model.model.layers.1.self_attn.*"],
        ["self_attn"],
        [f"model.layers.{layer}.self_attn.{name}_proj" for layer in range(2) for name in "qkvo"],
    ],
)
def test_what_is_left_out(ignored: list[str]) -> None:
    group = {"targets": ["Linear"], "weights": {"num_bits": 8, "type": "float", "strategy": "tensor"}}
    settings = {"quant_method": "compressed-tensors", "config_groups": {"0": group}, "ignore": ignored}
    assert bytes_of(settings) == 2 * ATTENTION + MLP
    facts = facts_of(settings)
    assert facts.guesses == ()
    assert facts.quantization is not None
    assert facts.quantization.ignores_attention


@pytest.mark.parametrize("ignored", [["model.layers.10.mlp*"], ["vision_tower*"], ["re:mtp.*"], ["gate"], ["attn"]])
def test_what_is_not_meant(ignored: list[str]) -> None:
    settings = {"quant_method": "modelopt", "quant_algo": "FP8", "exclude_modules": ignored}
    assert bytes_of(settings) == ATTENTION + MLP


def test_shared_experts_that_are_left_out() -> None:
    settings = {"quant_method": "modelopt", "quant_algo": "NVFP4", "exclude_modules": ["*.mlp.shared_expert.*"]}
    shape = {"n_routed_experts": 4, "moe_intermediate_size": 512, "n_shared_experts": 1}
    found = [facts_of({**settings, **more}, **shape).quantization for more in ({}, {"exclude_modules": []})]
    assert [facts is not None and facts.ignores_shared_experts for facts in found] == [True, False]
    assert [facts is not None and facts.ignores_attention for facts in found] == [False, False]


def test_patterns_that_are_not_understood_are_a_guess() -> None:
    settings = {"quant_method": "compressed-tensors", "ignore": ["re:(a+)+$", "re:.*(?=x)"]}
    facts = facts_of({**compressed({"num_bits": 8}), **settings})
    assert facts.guesses == ("2 patterns of what is not quantised are not understood",)


def test_mixed_precision_says_it_per_module() -> None:
    names = {f"model.layers.{layer}.mlp.{name}_proj": {"quant_algo": "NVFP4"} for layer in range(2)
             for name in ("gate", "up", "down")}  # fmt: skip
    names |= {f"model.layers.{layer}.self_attn.{name}_proj": {"quant_algo": "FP8"} for layer in range(2)
              for name in "qkvo"}  # fmt: skip
    settings = {"quant_method": "modelopt", "quant_algo": "MIXED_PRECISION", "quantized_layers": names}
    assert bytes_of(settings) == ATTENTION + MLP * 9 // 16
    named_head = {**names, "lm_head": {"quant_algo": "NVFP4"}}
    assert bytes_of({**settings, "quantized_layers": named_head}) == (
        ATTENTION + MLP * 9 // 16 - VOCAB * HIDDEN * 2 + VOCAB * HIDDEN * 9 // 16
    )


def test_groups_with_targets_of_their_own() -> None:
    groups = {
        "0": {"targets": ["re:.*mlp.*"], "weights": {"num_bits": 4, "group_size": 16, "type": "float"}},
        "1": {"targets": ["Linear"], "weights": {"num_bits": 8, "type": "float", "strategy": "tensor"}},
    }
    settings = {"quant_method": "compressed-tensors", "config_groups": groups, "ignore": []}
    assert bytes_of(settings) == ATTENTION + MLP * 9 // 16


def test_modelopt_beside_the_configuration() -> None:
    separate = {"quantization": {"quant_algo": "FP8", "kv_cache_quant_algo": "FP8", "exclude_modules": ["lm_head"]}}
    facts = model_facts(llama(num_hidden_layers=LAYERS), source="test", hf_quant_config=separate)
    assert facts.weights.total_bytes == OUTER_BYTES + ATTENTION + MLP
    assert facts.quantization is not None
    assert facts.quantization.method == "modelopt"


def test_an_unknown_method_that_says_its_bits_is_a_guess() -> None:
    facts = facts_of({"quant_method": "squeeze", "bits": 4})
    assert facts.guesses == ("the quantisation squeeze is unknown; every weight is taken with 4 bits",)
    assert facts.weights.total_bytes == OUTER_BYTES + (ATTENTION + MLP) // 2


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"quant_method": "modelopt", "quant_algo": "FP3"}, "quant_algo=FP3 is unknown"),
        ({"quant_method": "modelopt", "quant_algo": "MIXED_PRECISION"}, "has no quantized_layers"),
        ({"quant_method": "compressed-tensors"}, "has no weights in its config_groups"),
        ({"quant_method": "awq", "bits": 64}, "awq with bits=64"),
        ({"quant_method": "gptq", "bits": "4"}, "bits=4 is not a number"),
        ({}, "quant_method=- is unknown"),
    ],
)
def test_what_cannot_be_understood_is_refused(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ModelError, match=says):
        facts_of(settings)
