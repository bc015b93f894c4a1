"""Keys that could shape the KV cache and that nothing here understands."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

_SHAPING: Final = re.compile(r"window|compress|index|state|cross|sparse|chunk|recurrent|memory_tokens|kv_shar|latent")
_UNDERSTOOD: Final = frozenset(
    {
        "attention_chunk_size", "compress_ratios", "compress_rope_theta", "full_attn_idxs", "index_head_dim",
        "index_n_heads", "index_share_for_mtp_iteration", "index_skip_topk_offset", "index_topk", "index_topk_freq",
        "index_topk_pattern", "indexer_rope_interleave", "indexer_types", "latent_moe_use_norm", "max_window_layers",
        "moe_latent_size", "moe_layer_end_index", "moe_layer_start_index", "num_kv_shared_layers", "sliding_window",
        "sliding_window_pattern", "sliding_window_size", "sparse_attention_config", "ssm_state_size", "state_size",
        "use_sliding_window", "mamba_d_state", "mamba_state_dim", "attn_layer_indices", "interleaved_sliding_window",
    }
)  # fmt: skip
_HARMLESS: Final = frozenset(
    {
        "add_cross_attention", "audio_token_index", "boa_token_index", "boi_token_index", "chunk_size",
        "chunk_size_feed_forward", "cross_attention_hidden_size", "decoder_sparse_step", "eoa_token_index",
        "eoi_token_index", "ignore_index", "image_token_index", "mamba_chunk_size", "output_hidden_states",
        "video_token_index", "cross_entropy_loss_weight", "use_kernel_state", "sliding_window_attn",
        "deepstack_visual_indexes", "sparse_step", "statefulness", "tie_cross_attention",
    }
)  # fmt: skip
"""Lengths of chunks of a computation, indexes of tokens, and settings of training."""
_MAX_SHOWN: Final = 40


def unknown_cache_keys(keys: Iterable[str], values: dict[str, object]) -> list[str]:
    """Those that have a value and are neither understood nor known to be harmless, sorted."""
    return sorted(
        key[:_MAX_SHOWN]
        for key in keys
        if isinstance(key, str)
        and key.isprintable()
        and key not in _UNDERSTOOD | _HARMLESS
        and values.get(key) not in (None, False, 0, [], {}, "")
        and not key.endswith(("_token_id", "_token_index", "_dtype"))
        and _SHAPING.search(key.lower())
    )
