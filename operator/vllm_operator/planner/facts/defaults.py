"""Values that configurations leave out because their model type has them by default.

From the configuration classes of transformers 5.19 (``models/<type>/configuration_<type>.py``) that vLLM 0.32 loads
with. Only types whose published checkpoints rely on them are here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

_GEMMA3: Final[Mapping[str, Any]] = {
    "vocab_size": 262_208,
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_hidden_layers": 26,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "max_position_embeddings": 131_072,
    "sliding_window": 4096,
    "sliding_window_pattern": 6,
    "tie_word_embeddings": True,
}

DEFAULTS: Final[Mapping[str, Mapping[str, Any]]] = {
    "afmoe": {"sliding_window": 1024, "global_attn_every_n_layers": 4},
    "bloom": {"tie_word_embeddings": True},
    "cohere": {"tie_word_embeddings": True},
    "cohere2": {"sliding_window": 4096, "sliding_window_pattern": 4, "tie_word_embeddings": True},
    "exaone4": {"sliding_window": 4096, "sliding_window_pattern": 4},
    "falcon": {"tie_word_embeddings": True},
    "gemma": {"head_dim": 256, "tie_word_embeddings": True},
    "gemma2": {"head_dim": 256, "sliding_window": 4096, "sliding_window_pattern": 2, "tie_word_embeddings": True},
    "gemma3": _GEMMA3,
    "gemma3_text": _GEMMA3,
    "gemma3n_text": {"head_dim": 256, "sliding_window": 512, "sliding_window_pattern": 5, "tie_word_embeddings": True},
    "gemma4_text": {"head_dim": 256, "sliding_window": 512, "sliding_window_pattern": 6, "tie_word_embeddings": True},
    "gpt2": {"tie_word_embeddings": True},
    "gpt_oss": {"head_dim": 64, "sliding_window": 128, "sliding_window_pattern": 2},
    "kimi_linear": {"head_dim": None},
    "lfm2": {"tie_word_embeddings": True},
    "lfm2_moe": {"tie_word_embeddings": True},
    "llama4_text": {"attention_chunk_size": 8192, "interleave_moe_layer_step": 1, "no_rope_layer_interval": 4},
    "mimo_v2_flash": {"sliding_window": 128},
    "mistral": {"sliding_window": 4096, "num_key_value_heads": 8},
    "mixtral": {"num_key_value_heads": 8, "num_local_experts": 8, "num_experts_per_tok": 2},
    "olmo3": {"sliding_window": 4096, "sliding_window_pattern": 4},
    "opt": {"tie_word_embeddings": True},
    "qwen3": {"head_dim": 128},
    "qwen3_moe": {"mlp_only_layers": [], "decoder_sparse_step": 1},
    "vaultgemma": {"sliding_window": 4096, "sliding_window_pattern": 2, "tie_word_embeddings": True},
}
"""By ``model_type`` of the language model."""
