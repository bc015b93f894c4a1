"""What each kind of layer keeps, and in which order they come, from small configurations of each family."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.model_configs import llama

from vllm_operator.planner.facts.config import model_facts
from vllm_operator.planner.facts.errors import ModelError
from vllm_operator_api.model import AttentionCache, Cache, IndexCache, LatentCache, ModelFacts, StateCache

FULL = AttentionCache(kind="full", kv_heads=8, head_dim=128, value_dim=128)


def facts_of(**changes: Any) -> ModelFacts:
    return model_facts(llama(**changes), source="test")


def layers_of(facts: ModelFacts) -> list[tuple[Cache, ...]]:
    return [facts.shape_of(layer).caches for layer in range(facts.layers)]


def sliding(window: int, **changes: int) -> AttentionCache:
    shape = {"kv_heads": 8, "head_dim": 128, "value_dim": 128} | changes
    return AttentionCache(kind="sliding", window_tokens=window, **shape)


# ---- sliding windows


def test_layer_types_name_the_layers_that_slide() -> None:
    kinds = ["sliding_attention", "full_attention"] * 2
    facts = facts_of(num_hidden_layers=4, layer_types=kinds, sliding_window=512)
    assert layers_of(facts) == [(sliding(512),), (FULL,)] * 2
    assert (facts.layer_pattern, len(facts.layer_shapes)) == ("abab", 2)


def test_a_window_without_layer_types_is_every_layers() -> None:
    assert layers_of(facts_of(num_hidden_layers=2, sliding_window=4096)) == [(sliding(4096),)] * 2


@pytest.mark.parametrize("window", [None, 0])
def test_no_window(window: int | None) -> None:
    config = {**llama(num_hidden_layers=1, model_type="mistral"), "sliding_window": window}
    assert layers_of(model_facts(config, source="test")) == [(FULL,)]


def test_a_window_that_is_the_model_types_default() -> None:
    assert layers_of(facts_of(num_hidden_layers=1, model_type="mistral")) == [(sliding(4096),)]


def test_qwen_has_a_window_only_where_it_is_switched_on() -> None:
    off = facts_of(num_hidden_layers=4, model_type="qwen2", sliding_window=4096, use_sliding_window=False)
    assert layers_of(off) == [(FULL,)] * 4
    on = facts_of(
        num_hidden_layers=4, model_type="qwen2", sliding_window=4096, use_sliding_window=True, max_window_layers=3
    )
    assert on.layer_pattern == "aaab"


@pytest.mark.parametrize(
    ("model_type", "more", "pattern"),
    [
        ("gemma2", {}, "abab"),
        ("gemma3_text", {"sliding_window_pattern": 3}, "aaba"),
        ("exaone4", {"sliding_window_pattern": "LLLG"}, "aaab"),
        ("gpt_oss", {}, "abab"),
    ],
)
def test_patterns(model_type: str, more: dict[str, Any], pattern: str) -> None:
    facts = facts_of(num_hidden_layers=4, model_type=model_type, sliding_window=128, head_dim=128, **more)
    assert facts.layer_pattern == pattern
    assert layers_of(facts)[0] == (sliding(128),)


def test_cohere_does_not_count_the_token_itself() -> None:
    facts = facts_of(num_hidden_layers=4, model_type="cohere2", sliding_window=4096)
    assert layers_of(facts) == [(sliding(4097),)] * 3 + [(FULL,)]


def test_unknown_kinds_of_layers_are_full_and_a_guess() -> None:
    facts = facts_of(num_hidden_layers=2, layer_types=["full_attention", "spiral_attention"], sliding_window=8)
    assert layers_of(facts) == [(FULL,)] * 2
    assert facts.guesses == ("layers of the unknown kind spiral_attention are taken as full attention",)


def test_llama4_looks_at_chunks_where_it_has_rope() -> None:
    facts = facts_of(num_hidden_layers=8, model_type="llama4_text", attention_chunk_size=8192, num_local_experts=16)
    chunked = AttentionCache(kind="chunked", kv_heads=8, head_dim=128, value_dim=128, window_tokens=8192)
    assert layers_of(facts) == [(chunked,), (chunked,), (chunked,), (FULL,)] * 2


# ---- layers that differ in shape


def test_mimo_has_other_heads_in_its_windows() -> None:
    facts = facts_of(
        num_hidden_layers=3, num_key_value_heads=4, head_dim=192, v_head_dim=128, hybrid_layer_pattern=[0, 1, 1],
        sliding_window=128, swa_num_attention_heads=32, swa_num_key_value_heads=8, swa_head_dim=192,
        swa_v_head_dim=128,
    )  # fmt: skip
    full = AttentionCache(kind="full", kv_heads=4, head_dim=192, value_dim=128)
    assert layers_of(facts) == [(full,), (sliding(128, head_dim=192),), (sliding(128, head_dim=192),)]


def test_gemma4_has_wider_heads_where_it_is_full_and_shares_the_last_layers_cache() -> None:
    facts = facts_of(
        num_hidden_layers=4, model_type="gemma4_text", head_dim=256, global_head_dim=512,
        num_global_key_value_heads=2, attention_k_eq_v=True, sliding_window=1024, num_kv_shared_layers=2,
        layer_types=["sliding_attention", "full_attention"] * 2,
    )  # fmt: skip
    full = AttentionCache(kind="full", kv_heads=2, head_dim=512, value_dim=512)
    assert layers_of(facts) == [(sliding(1024, head_dim=256, value_dim=256),), (full,), (), ()]


def test_puzzle_models_have_layers_without_attention() -> None:
    def block(group: int | None, multiple: float | None) -> dict[str, Any]:
        return {
            "attention": {"no_op": group is None, "n_heads_in_group": group},
            "ffn": {"no_op": multiple is None, "ffn_mult": multiple},
        }

    blocks = [block(4, 5.25), block(None, 2.625), block(8, None)]
    facts = facts_of(num_hidden_layers=3, num_key_value_heads=None, intermediate_size=None, block_configs=blocks)
    four = AttentionCache(kind="full", kv_heads=4, head_dim=128, value_dim=128)
    assert layers_of(facts) == [(FULL,), (), (four,)]
    assert facts.intermediate_sizes == (7168, 14336)


def test_step_has_other_heads_in_its_windows() -> None:
    facts = facts_of(
        num_hidden_layers=2, num_key_value_heads=None, num_attention_groups=8, sliding_window=512,
        layer_types=["full_attention", "sliding_attention"],
        attention_other_setting={
            "attention_type": "sliding_attention", "num_attention_heads": 96, "num_attention_groups": 12,
            "head_dim": 64,
        },
    )  # fmt: skip
    assert layers_of(facts) == [(FULL,), (sliding(512, kv_heads=12, head_dim=64, value_dim=64),)]


# ---- latent attention

MLA: dict[str, Any] = {
    "model_type": "deepseek_v3",
    "kv_lora_rank": 512,
    "q_lora_rank": 1536,
    "qk_rope_head_dim": 64,
    "qk_nope_head_dim": 128,
    "v_head_dim": 128,
}
DSA: dict[str, Any] = {**MLA, "index_topk": 2048, "index_head_dim": 128, "index_n_heads": 64}


def test_latent_attention() -> None:
    assert layers_of(facts_of(num_hidden_layers=1, **MLA)) == [(LatentCache(rank=512, rope_dim=64),)]


def test_latent_attention_of_an_unknown_type_is_an_upper_bound() -> None:
    facts = facts_of(**{**MLA, "model_type": "someones_own"}, num_hidden_layers=1)
    assert layers_of(facts) == [(AttentionCache(kind="full", kv_heads=32, head_dim=192, value_dim=192),)]
    assert "kv_lora_rank of an unknown model type someones_own" in facts.guesses[0]


def test_sparse_attention_has_an_index() -> None:
    sparse = LatentCache(rank=512, rope_dim=64, sparse=True)
    assert layers_of(facts_of(num_hidden_layers=2, **DSA)) == [(sparse, IndexCache(head_dim=128))] * 2


@pytest.mark.parametrize(
    ("more", "pattern"),
    [
        ({"index_topk_freq": 4, "index_skip_topk_offset": 3}, "aaabbbabbb"),
        ({"index_topk_freq": 2}, "aababababa"),
        ({"index_topk_pattern": "FFSSFSSSFF"}, "aabbabbbaa"),
    ],
)
def test_layers_that_share_an_index_keep_none(more: dict[str, Any], pattern: str) -> None:
    facts = facts_of(num_hidden_layers=10, **DSA, **more)
    assert facts.layer_pattern == pattern
    assert len(layers_of(facts)[0]) == 2


def test_two_sublayers_of_attention_in_a_layer() -> None:
    facts = facts_of(**{**MLA, "model_type": "longcat_flash"}, num_hidden_layers=4, num_layers=2)
    assert layers_of(facts) == [(LatentCache(rank=512, rope_dim=64),) * 2] * 2


def test_block_sparse_attention_keeps_an_index_key() -> None:
    section = {"sparse_attention_freq": [0, 1], "sparse_index_dim": 128, "sparse_num_index_heads": 4}
    facts = facts_of(num_hidden_layers=2, sparse_attention_config=section)
    assert layers_of(facts) == [(FULL,), (FULL, IndexCache(head_dim=128))]


def test_compressed_attention_is_an_estimate() -> None:
    facts = facts_of(
        num_hidden_layers=3, model_type="deepseek_v4", num_key_value_heads=1, head_dim=512, sliding_window=128,
        q_lora_rank=1024, o_lora_rank=1024, o_groups=8, index_n_heads=64, index_head_dim=128, index_topk=512,
        compress_ratios=[0, 4, 128],
    )  # fmt: skip
    window = sliding(128, kv_heads=1, head_dim=256, value_dim=256)
    assert layers_of(facts) == [
        (window,),
        (window, LatentCache(rank=128), IndexCache(head_dim=32)),
        (window, LatentCache(rank=4)),
    ]
    assert facts.guesses == ()


# ---- layers with a state


def test_nemotron_h_has_one_block_per_layer() -> None:
    facts = facts_of(
        model_type="nemotron_h", num_hidden_layers=None, hybrid_override_pattern="ME*-", mamba_num_heads=64,
        mamba_head_dim=64, n_groups=8, ssm_state_size=128, conv_kernel=4, n_routed_experts=8, num_experts_per_tok=2,
        moe_intermediate_size=1856, moe_shared_expert_intermediate_size=3712, n_shared_experts=2,
    )  # fmt: skip
    state = StateCache(kind="mamba2", heads=64, head_dim=64, state_size=128, key_heads=8, conv_kernel=4)
    assert layers_of(facts) == [(state,), (), (FULL,), ()]
    assert facts.intermediate_sizes == (7424, 14336)


def test_nemotron_h_by_names() -> None:
    facts = facts_of(
        model_type="nemotron_h", num_hidden_layers=None, layers_block_type=["mamba", "attention", "mlp"],
        mamba_num_heads=64, mamba_head_dim=64, ssm_state_size=128,
    )  # fmt: skip
    assert facts.layer_pattern == "abc"


DELTA: dict[str, Any] = {
    "model_type": "qwen3_next",
    "linear_num_key_heads": 16,
    "linear_num_value_heads": 32,
    "linear_key_head_dim": 128,
    "linear_value_head_dim": 64,
    "linear_conv_kernel_dim": 4,
}


@pytest.mark.parametrize(
    "more",
    [{}, {"full_attention_interval": 4}, {"layer_types": (["linear_attention"] * 3 + ["full_attention"]) * 2}],
)
def test_gated_delta_nets(more: dict[str, Any]) -> None:
    facts = facts_of(num_hidden_layers=8, **DELTA, **more)
    state = StateCache(kind="gdn", heads=32, head_dim=64, state_size=128, key_heads=16, conv_kernel=4)
    assert layers_of(facts) == ([(state,)] * 3 + [(FULL,)]) * 2


def test_kimi_delta_attention_counts_layers_from_one() -> None:
    linear = {"kda_layers": [1, 2], "full_attn_layers": [3], "num_heads": 96, "head_dim": 128}
    facts = facts_of(**{**MLA, "model_type": "kimi_linear"}, num_hidden_layers=3, linear_attn_config=linear)
    state = StateCache(kind="kda", heads=96, head_dim=128, state_size=128, key_heads=96, conv_kernel=4)
    assert layers_of(facts) == [(state,), (state,), (LatentCache(rank=512, rope_dim=64),)]


def test_granite_mamba() -> None:
    facts = facts_of(
        num_hidden_layers=3, layer_types=["mamba", "attention", "mamba"], mamba_n_heads=128, mamba_d_head=64,
        mamba_n_groups=1, mamba_d_state=256, mamba_d_conv=4, mamba_expand=2,
    )  # fmt: skip
    state = StateCache(kind="mamba2", heads=128, head_dim=64, state_size=256, key_heads=1, conv_kernel=4)
    assert layers_of(facts) == [(state,), (FULL,), (state,)]


def test_falcon_h1_has_both_in_every_layer() -> None:
    facts = facts_of(
        num_hidden_layers=1, model_type="falcon_h1", mamba_n_heads=24, mamba_d_ssm=3072, mamba_d_head="auto",
        mamba_d_state=256, mamba_n_groups=1,
    )  # fmt: skip
    state = StateCache(kind="mamba2", heads=24, head_dim=128, state_size=256, key_heads=1, conv_kernel=4)
    assert layers_of(facts) == [(FULL, state)]


def test_jamba_has_attention_once_per_period() -> None:
    facts = facts_of(num_hidden_layers=8, attn_layer_period=8, attn_layer_offset=4, mamba_d_state=16, mamba_expand=2)
    assert facts.layer_pattern == "aaaabaaa"
    assert layers_of(facts)[0] == (StateCache(kind="mamba1", heads=8192, head_dim=1, state_size=16, conv_kernel=4),)


def test_short_convolutions() -> None:
    facts = facts_of(num_hidden_layers=2, layer_types=["conv", "full_attention"], conv_L_cache=3, conv_dim=2048)
    state = StateCache(kind="short_conv", heads=2048, head_dim=1, state_size=1, conv_kernel=3)
    assert layers_of(facts) == [(state,), (FULL,)]


def test_lightning_attention() -> None:
    facts = facts_of(num_hidden_layers=4, model_type="bailing_hybrid", layer_group_size=4)
    state = StateCache(kind="lightning", heads=32, head_dim=128, state_size=128)
    assert layers_of(facts) == [(state,)] * 3 + [(FULL,)]


def test_pure_mamba() -> None:
    config = {
        "architectures": ["Mamba2ForCausalLM"], "model_type": "mamba2", "hidden_size": 2560, "num_hidden_layers": 2,
        "num_heads": 80, "head_dim": 64, "state_size": 128, "n_groups": 1, "conv_kernel": 4, "expand": 2,
        "vocab_size": 50288,
    }  # fmt: skip
    state = StateCache(kind="mamba2", heads=80, head_dim=64, state_size=128, key_heads=1, conv_kernel=4)
    assert layers_of(model_facts(config, source="test")) == [(state,)] * 2


# ---- experts


@pytest.mark.parametrize(
    ("more", "dense_layers"),
    [
        ({"first_k_dense_replace": 3}, 3),
        ({"mlp_layer_types": ["dense", "sparse"] * 4}, 4),
        ({"moe_layer_freq": [0, 1, 1, 1, 0, 1, 1, 1]}, 2),
        ({"decoder_sparse_step": 2, "mlp_only_layers": []}, 4),
        ({"decoder_sparse_step": 1, "mlp_only_layers": [5]}, 1),
        ({"interleave_moe_layer_step": 4}, 6),
        ({"moe_layers_enum": "3,4,5"}, 5),
        ({"moe_layer_interval": 2, "moe_layer_start_index": 4}, 6),
        ({"expert_layer_period": 2, "expert_layer_offset": 1}, 4),
        ({}, 0),
    ],
)
def test_which_layers_have_experts(more: dict[str, Any], dense_layers: int) -> None:
    shape = {"num_hidden_layers": 8, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 512}
    facts = facts_of(**shape, **more)
    assert facts.weights.expert_bytes == (8 - dense_layers) * 4 * 3 * 4096 * 512 * 2
    assert facts.intermediate_sizes == ((14336,) if dense_layers else ())
    assert facts.experts is not None
    assert (facts.experts.experts, facts.experts.experts_per_token) == (4, 2)


def test_experts_without_a_width_of_their_own() -> None:
    experts = facts_of(num_local_experts=8).experts
    assert experts is not None
    assert experts.intermediate_size == 14336


def test_shared_experts_are_cut_like_dense_blocks() -> None:
    facts = facts_of(n_routed_experts=8, moe_intermediate_size=512, n_shared_experts=2)
    assert facts.intermediate_sizes == (1024,)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"hybrid_layer_pattern": [0], "sliding_window": 8}, "hybrid_layer_pattern has 1 entries for 32 layers"),
        ({"hybrid_override_pattern": "MX"}, "hybrid_override_pattern has a layer 'X'|no mamba_num_heads"),
        ({"compress_ratios": [4]}, "compress_ratios has 1 entries for 32 layers"),
        ({**DELTA, "layer_types": ["linear_attention"]}, "layer_types has 1 entries for 32 layers"),
        ({"block_configs": []}, "block_configs is empty"),
        ({"block_configs": [7]}, "block_configs holds 7"),
    ],
)
def test_patterns_that_contradict_the_layers(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ModelError, match=says):
        facts_of(**changes)
