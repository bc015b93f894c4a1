"""Tiny configurations, one for each way that vLLM lays out a KV cache; hidden size 64, no weights, no tokenizer.

Head widths are ones that vLLM's CPU attention takes. Used with ``--load-format dummy --skip-tokenizer-init``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_COMMON: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "vocab_size": 256,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "num_hidden_layers": 4,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "bos_token_id": 1,
    "eos_token_id": 2,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}


def _config(architecture: str, model_type: str, **values: Any) -> dict[str, Any]:
    return {**_COMMON, "architectures": [architecture], "model_type": model_type, **values}


def _pattern(*kinds: str, layers: int) -> list[str]:
    return [kinds[i % len(kinds)] for i in range(layers)]


TINY_MODELS: dict[str, dict[str, Any]] = {
    "gqa": _config("LlamaForCausalLM", "llama"),
    "mqa": _config("LlamaForCausalLM", "llama", num_key_value_heads=1, num_hidden_layers=3),
    "mha": _config("LlamaForCausalLM", "llama", num_key_value_heads=4),
    "tied": _config("Qwen3ForCausalLM", "qwen3", tie_word_embeddings=True, num_hidden_layers=5),
    "moe": _config(
        "Qwen3MoeForCausalLM", "qwen3_moe", num_experts=4, num_experts_per_tok=2, moe_intermediate_size=64,
        decoder_sparse_step=1, norm_topk_prob=True, mlp_only_layers=[],
    ),
    "mla": _config(
        "DeepseekV3ForCausalLM", "deepseek_v3", num_key_value_heads=4, q_lora_rank=32, kv_lora_rank=512,
        qk_nope_head_dim=128, qk_rope_head_dim=64, v_head_dim=128, n_routed_experts=4, first_k_dense_replace=2,
        n_shared_experts=1, num_experts_per_tok=2, moe_intermediate_size=64, n_group=1, topk_group=1, moe_layer_freq=1,
        topk_method="noaux_tc", scoring_func="sigmoid", norm_topk_prob=True, routed_scaling_factor=1.0, head_dim=64,
    ),
    "sliding-only": _config("MistralForCausalLM", "mistral", sliding_window=1024),
    "sliding-1-to-1": _config(
        "Gemma2ForCausalLM", "gemma2", sliding_window=512, num_hidden_layers=6, query_pre_attn_scalar=32,
        hidden_activation="gelu_pytorch_tanh", attn_logit_softcapping=50.0, final_logit_softcapping=30.0,
        layer_types=_pattern("sliding_attention", "full_attention", layers=6),
    ),
    "sliding-5-to-1": _config(
        "Gemma3ForCausalLM", "gemma3_text", sliding_window=512, num_hidden_layers=13, query_pre_attn_scalar=32,
        hidden_activation="gelu_pytorch_tanh", rope_local_base_freq=10000.0, sliding_window_pattern=6,
        layer_types=[*(["sliding_attention"] * 5 + ["full_attention"]) * 2, "sliding_attention"],
    ),
    "chunked": _config(
        "Llama4ForCausalLM", "llama4_text", attention_chunk_size=512, num_hidden_layers=8, num_local_experts=2,
        num_experts_per_tok=1, interleave_moe_layer_step=2, intermediate_size_mlp=128, use_qk_norm=True,
        no_rope_layers=[1, 1, 1, 0] * 2, attn_temperature_tuning=False,
        layer_types=_pattern(*["chunked_attention"] * 3, "full_attention", layers=8),
    ),
    "gdn": _config(
        "Qwen3NextForCausalLM", "qwen3_next", num_hidden_layers=8, linear_num_value_heads=4, linear_num_key_heads=2,
        linear_key_head_dim=32, linear_value_head_dim=32, linear_conv_kernel_dim=4, full_attention_interval=4,
        num_experts=4, num_experts_per_tok=2, decoder_sparse_step=1, moe_intermediate_size=64, mlp_only_layers=[],
        shared_expert_intermediate_size=64, norm_topk_prob=True, partial_rotary_factor=0.25,
        layer_types=_pattern(*["linear_attention"] * 3, "full_attention", layers=8),
    ),
    "gdn-large-state": _config(
        "Qwen3NextForCausalLM", "qwen3_next", num_hidden_layers=8, linear_num_value_heads=8, linear_num_key_heads=8,
        linear_key_head_dim=128, linear_value_head_dim=128, linear_conv_kernel_dim=4, full_attention_interval=4,
        num_experts=4, num_experts_per_tok=2, decoder_sparse_step=1, moe_intermediate_size=64, mlp_only_layers=[],
        shared_expert_intermediate_size=64, norm_topk_prob=True, partial_rotary_factor=0.25,
        layer_types=_pattern(*["linear_attention"] * 3, "full_attention", layers=8),
    ),
    "mamba1-large-state": _config(
        "JambaForCausalLM", "jamba", num_hidden_layers=8, attn_layer_period=4, attn_layer_offset=2,
        expert_layer_period=2, expert_layer_offset=1, num_experts=1, num_experts_per_tok=1, mamba_d_state=512,
        mamba_d_conv=4, mamba_expand=2, mamba_dt_rank=8, mamba_conv_bias=True, mamba_proj_bias=False, head_dim=None,
        num_attention_heads=2, num_key_value_heads=1,
    ),
    "mamba2": _config(
        "NemotronHForCausalLM", "nemotron_h", num_hidden_layers=9, hybrid_override_pattern="M-M*-M-M*",
        mamba_num_heads=4, mamba_head_dim=32, ssm_state_size=32, n_groups=2, conv_kernel=4, use_bias=False,
        mlp_hidden_act="relu2",
        mamba_hidden_act="silu", mamba_proj_bias=False, layer_norm_epsilon=1e-5, attention_bias=False, mlp_bias=False,
        use_conv_bias=True, chunk_size=128, expand=2, attention_head_dim=32,
    ),
    "mamba1": _config(
        "JambaForCausalLM", "jamba", num_hidden_layers=8, attn_layer_period=4, attn_layer_offset=2,
        expert_layer_period=2, expert_layer_offset=1, num_experts=1, num_experts_per_tok=1, mamba_d_state=16,
        mamba_d_conv=4, mamba_expand=2, mamba_dt_rank=8, mamba_conv_bias=True, mamba_proj_bias=False, head_dim=None,
        num_attention_heads=2, num_key_value_heads=1,
    ),
    "short-conv": _config(
        "Lfm2ForCausalLM", "lfm2", num_hidden_layers=6, conv_dim=64, conv_L_cache=3, conv_bias=False, block_dim=64,
        block_ff_dim=128,
        block_multiple_of=16, block_ffn_dim_multiplier=1.0, block_auto_adjust_ff_dim=True, norm_eps=1e-5,
        head_dim=None, num_attention_heads=2, num_key_value_heads=1,
        layer_types=_pattern("conv", "conv", "full_attention", layers=6),
    ),
}  # fmt: skip
"""Name to ``config.json``."""


def write_model(name: str, directory: Path) -> Path:
    """Write the model's directory below ``directory`` and return it."""
    folder = directory / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(TINY_MODELS[name], indent=1))
    return folder
