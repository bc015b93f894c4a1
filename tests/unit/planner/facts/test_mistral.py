"""Mistral's params.json as vLLM reads it."""

from __future__ import annotations

from typing import Any

import pytest

from vllm_operator.planner.facts.config import model_facts
from vllm_operator.planner.facts.errors import ModelError
from vllm_operator.planner.facts.mistral import from_mistral, is_mistral
from vllm_operator_api.model import AttentionCache, LatentCache, ModelFacts

SMALL: dict[str, Any] = {
    "dim": 5120, "n_layers": 40, "head_dim": 128, "hidden_dim": 32768, "n_heads": 32, "n_kv_heads": 8,
    "vocab_size": 131072, "norm_eps": 1e-5,
}  # fmt: skip
"""Mistral-Small-24B."""


def facts_of(**changes: Any) -> ModelFacts:
    return model_facts(from_mistral({**SMALL, **changes}), source="test")


def test_mistral_small() -> None:
    facts = facts_of()
    assert is_mistral(SMALL)
    assert facts.architecture == "MistralForCausalLM"
    assert facts.shape_of(0).caches == (AttentionCache(kind="full", kv_heads=8, head_dim=128, value_dim=128),)
    assert facts.weights.total_bytes / 2**30 == pytest.approx(43.9, rel=0.01)
    assert facts.max_position_embeddings == 128_000


def test_mistral_large_is_a_deepseek() -> None:
    facts = facts_of(
        q_lora_rank=1536, kv_lora_rank=512, qk_rope_head_dim=64, qk_nope_head_dim=128, v_head_dim=128, n_kv_heads=32,
        moe={"num_experts": 128, "num_experts_per_tok": 4, "expert_hidden_dim": 4096, "num_shared_experts": 1,
             "first_k_dense_replace": 3, "route_every_n": 1},
    )  # fmt: skip
    assert facts.architecture == "MistralLarge3ForCausalLM"
    assert facts.shape_of(0).caches == (LatentCache(rank=512, rope_dim=64),)
    assert facts.experts is not None
    assert facts.experts.experts == 128


def test_windows_that_alternate() -> None:
    facts = facts_of(n_layers=4, sliding_window=[None, 4096])
    assert facts.layer_pattern == "abab"
    assert facts.shape_of(1).caches[0] == AttentionCache(
        kind="sliding", kv_heads=8, head_dim=128, value_dim=128, window_tokens=4096
    )


def test_vision_and_fp8() -> None:
    facts = facts_of(
        vision_encoder={"hidden_size": 1024, "num_hidden_layers": 24, "intermediate_size": 4096},
        quantization={"qformat_weight": "fp8_e4m3"},
    )
    assert (facts.architecture, facts.multimodal) == ("PixtralForConditionalGeneration", True)
    assert facts.quantization is not None
    assert facts.quantization.method == "fp8"


@pytest.mark.parametrize(
    "changes",
    [{"quantization": {"qformat_weight": "int3"}}, {"sliding_window": [1, 2]}, {"sliding_window": []},
     {"sliding_window": [8], "n_layers": 10**9}, {"dim": -1}],
)  # fmt: skip
def test_what_vllm_does_not_load_either(changes: dict[str, Any]) -> None:
    with pytest.raises(ModelError):
        facts_of(**changes)
