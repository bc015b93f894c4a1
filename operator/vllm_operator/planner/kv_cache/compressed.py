"""DeepSeek-V4's compressed attention: several caches per layer, with pages of several sizes side by side in a block.

Every layer keeps a short sliding window of latents. A layer that compresses keeps one latent per ``ratio`` tokens for
all of them, and what its compressor has not finished; one that compresses by 4 also keeps an index with the same two
parts (models/deepseek_v4/attention.py, compressor.py; v1/attention/backends/mla/sparse_swa.py).
"""

from __future__ import annotations

from typing import Final

from vllm_operator.planner.kv_cache.layer_cache import LayerCache, ceil_div
from vllm_operator_api.model import AttentionCache, LatentCache, LayerShape, ModelFacts

BLOCK_TOKENS: Final = 256
WINDOW_BLOCK_TOKENS: Final = 64
LATENT_BYTES: Final = 584
"""448 bytes without position, 128 with, 8 of scales (fp8_ds_mla, the only format that is modelled)."""
INDEX_KEY_DIM: Final = 128
INDEX_BYTES: Final = 132
"""128 bytes and a float32 scale."""
PAGE_ALIGNMENT_BYTES: Final = 576
INDEXED_RATIO: Final = 4
"""This ratio overlaps its windows, so that its compressor remembers two of them, and is read through an index."""
COMPRESSOR_BLOCK_TOKENS: Final = {4: 4, 128: 8}
FLOAT32_BYTES: Final = 4


def is_compressed(facts: ModelFacts) -> bool:
    """Whether a model keeps its cache this way."""
    return facts.architecture.startswith("DeepseekV4")


def compressed_caches(shape: LayerShape) -> list[LayerCache]:
    """The caches of one layer, the same on every GPU of a stage.

    Facts count the latents of a layer that compresses as what is left of the width per token, which gives the ratio.
    """
    window = next((cache for cache in shape.caches if isinstance(cache, AttentionCache)), None)
    latent = next((cache for cache in shape.caches if isinstance(cache, LatentCache)), None)
    if window is None:
        return []
    caches = [_window(window.window_tokens or 0, WINDOW_BLOCK_TOKENS, LATENT_BYTES)]
    if latent is not None:
        width = window.head_dim + window.value_dim
        ratio = width // latent.rank
        caches += [_latents(ratio, LATENT_BYTES), _compressor(ratio, width)]
        if ratio == INDEXED_RATIO:
            caches += [_latents(ratio, INDEX_BYTES), _compressor(ratio, INDEX_KEY_DIM)]
    return caches


def _page(content_bytes: int) -> int:
    return ceil_div(content_bytes, PAGE_ALIGNMENT_BYTES) * PAGE_ALIGNMENT_BYTES


def _window(window_tokens: int, block_tokens: int, token_bytes: int) -> LayerCache:
    return LayerCache(
        kind="sliding",
        block_tokens=block_tokens,
        page_bytes=_page(block_tokens * token_bytes),
        shape=(token_bytes,),
        window_tokens=window_tokens,
    )


def _latents(ratio: int, state_bytes: int) -> LayerCache:
    page = _page(BLOCK_TOKENS // ratio * state_bytes)
    return LayerCache(kind="latent", block_tokens=BLOCK_TOKENS, page_bytes=page, shape=(ratio, state_bytes))


def _compressor(ratio: int, width: int) -> LayerCache:
    """Keys and scores of the tokens that are not compressed yet."""
    windows = 2 if ratio == INDEXED_RATIO else 1
    token_bytes = 2 * windows * width * FLOAT32_BYTES
    return _window(windows * ratio, COMPRESSOR_BLOCK_TOKENS.get(ratio, INDEXED_RATIO), token_bytes)
