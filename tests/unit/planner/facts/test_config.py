"""Facts from config.json: defaults as vLLM takes them, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.model_configs import LLAMA, llama

from vllm_operator.planner.facts.config import model_facts
from vllm_operator.planner.facts.errors import ModelError
from vllm_operator.planner.facts.weights import LoadedWeights
from vllm_operator_api.conditions import Reason
from vllm_operator_api.model import AttentionCache, ModelFacts, WeightsSource


def facts_of(**changes: Any) -> ModelFacts:
    return model_facts(llama(**changes), source="test")


def attention(facts: ModelFacts) -> AttentionCache:
    (cache,) = facts.shape_of(0).caches
    assert isinstance(cache, AttentionCache)
    return cache


def test_llama() -> None:
    facts = facts_of()
    assert facts.layers == 32
    assert facts.layer_pattern == "a" * 32
    assert attention(facts) == AttentionCache(kind="full", kv_heads=8, head_dim=128, value_dim=128)
    assert (facts.dtype, facts.intermediate_sizes, facts.experts) == ("bfloat16", (14336,), None)
    assert facts.weights.source is WeightsSource.COMPUTED
    assert facts.weights.total_bytes == 16_060_522_496  # the sum of its safetensors
    assert facts.weights.embedding_bytes == facts.weights.head_bytes == 128256 * 4096 * 2
    assert facts.guesses == ()


def test_defaults_are_vllms() -> None:
    assert attention(facts_of(num_key_value_heads=None)).kv_heads == 32
    assert attention(facts_of(head_dim=64)).head_dim == 64
    assert attention(facts_of(num_key_value_heads=None, multi_query=True)).kv_heads == 1


def test_multimodal_models_keep_theirs_inside() -> None:
    config = {
        "architectures": ["Qwen3VLForConditionalGeneration"],
        "model_type": "qwen3_vl",
        "text_config": {**LLAMA, "architectures": None},
        "vision_config": {"depth": 24, "hidden_size": 1024, "intermediate_size": 4096, "patch_size": 16},
    }
    facts = model_facts(config, source="test")
    assert (facts.architecture, facts.model_type) == ("Qwen3VLForConditionalGeneration", "qwen3_vl")
    assert facts.hidden_size == 4096
    assert facts.multimodal
    assert 24 * 12 * 1024**2 * 2 < facts.weights.encoder_bytes < 2 * 24 * 12 * 1024**2 * 2


def test_values_that_a_model_type_has_by_default() -> None:
    """Gemma 3's configurations on the hub leave most of them out."""
    text = {"model_type": "gemma3_text", "hidden_size": 2560, "num_hidden_layers": 34, "sliding_window": 1024}
    facts = model_facts({"architectures": ["Gemma3ForConditionalGeneration"], "text_config": text}, source="test")
    assert facts.attention_heads == 8
    assert facts.weights.head_bytes == 0  # tied
    assert facts.layer_pattern == ("aaaaab" * 6)[:34]


def test_tied_embeddings_are_counted_once() -> None:
    tied = facts_of(tie_word_embeddings=True)
    assert tied.weights.head_bytes == 0
    assert facts_of().weights.total_bytes - tied.weights.total_bytes == 128256 * 4096 * 2


@pytest.mark.parametrize(
    ("scaling", "longest"),
    [
        ({"type": "linear", "factor": 4.0}, 131072 * 4),
        ({"rope_type": "dynamic", "factor": 2}, 131072 * 2),
        ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}, 131072),
        ({"rope_type": "llama3", "factor": 8.0}, 131072),
        ({"rope_type": "linear", "factor": float("nan")}, 131072),
        ({"rope_type": "linear", "factor": 10**400}, 131072),
        ({"rope_type": ["linear"], "factor": 2}, 131072),
    ],
)
def test_rope_scaling(scaling: dict[str, Any], longest: int) -> None:
    """``config/model.py: _get_and_verify_max_len``: yarn's length is already the scaled one."""
    assert facts_of(rope_scaling=scaling).max_position_embeddings == longest


def test_measured_weights_are_split_by_the_computed_shares() -> None:
    measured = LoadedWeights(total_bytes=8 * 10**9, source=WeightsSource.FILES)
    weights = model_facts(LLAMA, source="test", weights=measured).weights
    assert (weights.total_bytes, weights.source) == (8 * 10**9, WeightsSource.FILES)
    share = 128256 * 4096 * 2 / 16_060_522_496
    assert weights.embedding_bytes == pytest.approx(8 * 10**9 * share, rel=1e-6)


def test_layers_for_multi_token_prediction_are_taken_off_files() -> None:
    config = llama(num_nextn_predict_layers=1)
    without = LoadedWeights(total_bytes=16 * 10**9, source=WeightsSource.FILES)
    with_them = LoadedWeights(total_bytes=16 * 10**9, source=WeightsSource.FILES, holds_speculative=True)
    layer_bytes = (2 * 4096 * 4096 + 2 * 4096 * 1024 + 3 * 4096 * 14336 + 2 * 4096 + 2 * 4096 * 4096) * 2
    assert model_facts(config, source="test", weights=without).weights.total_bytes == 16 * 10**9
    assert model_facts(config, source="test", weights=with_them).weights.total_bytes == 16 * 10**9 - layer_bytes


def test_keys_that_could_shape_the_cache_are_guesses() -> None:
    facts = facts_of(attention_window_schedule=[1, 2], recurrent_gate=True)
    assert facts.guesses == (
        "not understood, and perhaps of weight for the KV cache: attention_window_schedule, recurrent_gate",
    )
    assert attention(facts).kind == "full"
    assert facts_of(chunk_size_feed_forward=4, output_hidden_states=True, index_topk=None).guesses == ()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"hidden_size": None}, "no hidden_size"),
        ({"architectures": None}, "no architecture"),
        ({"architectures": []}, "no architecture"),
        ({"architectures": [7]}, "no architecture"),
        ({"num_hidden_layers": 10**12}, "num_hidden_layers=1000000000000 is not a number from 1"),
        ({"num_hidden_layers": 5000}, "num_hidden_layers=5000; no model has more than 1024 layers"),
        ({"num_attention_heads": 0}, "num_attention_heads=0"),
        ({"num_attention_heads": -8}, "num_attention_heads=-8"),
        ({"num_key_value_heads": 64}, "num_attention_heads=32 cannot share num_key_value_heads=64"),
        ({"num_key_value_heads": 7}, "num_attention_heads=32 cannot share num_key_value_heads=7"),
        ({"hidden_size": "4096"}, "hidden_size=4096 is not a number"),
        ({"hidden_size": float("nan")}, "hidden_size=nan"),
        ({"hidden_size": float("inf")}, "hidden_size=inf"),
        ({"hidden_size": 10**5000}, "hidden_size=a number of 16610 bits"),
        ({"hidden_size": [4096] * 5000}, "hidden_size=a list of 5000"),
        ({"hidden_size": 10**9, "vocab_size": 10**9}, "the weights would have"),
        ({"vocab_size": True}, "vocab_size=True"),
        ({"architectures": ["x" * 500]}, "too long"),
        ({"architectures": ["a\nb"]}, "not printable"),
        ({"layer_types": ["full_attention"] * 100_000}, "layer_types has 100000 entries"),
        ({"layer_types": [7]}, "layer_types holds 7, which is not a name"),
        ({"num_experts": 8, "moe_intermediate_size": -1}, "moe_intermediate_size=-1"),
        ({"quantization_config": {"quant_method": "zip"}}, "quant_method=zip is unknown"),
        ({"quantization_config": {"quant_method": "fp8", "weight_block_size": [0, 128]}}, "weight_block_size"),
    ],
)
def test_absurd_configurations_are_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ModelError, match=says) as caught:
        facts_of(**changes)
    assert caught.value.reason is Reason.MODEL_CONFIG_INVALID
    assert len(caught.value.message) < 500
