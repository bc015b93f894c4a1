"""DeepSeek-V4: every layer keeps a window of latents, and most a compressed latent of everything before it.

vLLM lays these caches out together (``models/deepseek_v4/attention.py``, ``compressor.py``). The shapes here say what a
layer keeps per token, a compressed latent as its share of one; ``kv_cache.compressed`` counts blocks from them.
"""

from __future__ import annotations

from typing import Final

from vllm_operator.planner.facts.architecture.attention import IndexShape, index_weights
from vllm_operator.planner.facts.architecture.attention_shapes import HEADS
from vllm_operator.planner.facts.architecture.blocks import Block, Part, Weight, column, replicated, vector
from vllm_operator.planner.facts.errors import invalid
from vllm_operator.planner.facts.fields import Fields
from vllm_operator_api.model import AttentionCache, Cache, IndexCache, LatentCache

_INDEXED_RATIO: Final = 4
"""Only layers with this ratio have an indexer, and their compressor overlaps: it is twice as wide."""


def compressed_layers(text: Fields, *, hidden: int, count: int) -> list[Block]:
    """One block per layer."""
    ratios = text.numbers("compress_ratios") or []
    if len(ratios) < count:
        invalid(f"config.json: compress_ratios has {len(ratios)} entries for {count} layers")
    blocks = {ratio: _block(text, hidden, max(1, ratio)) for ratio in set(ratios[:count])}
    return [blocks[ratio] for ratio in ratios[:count]]


def _block(text: Fields, hidden: int, ratio: int) -> Block:
    heads, width = text.required(*HEADS), text.required("head_dim")
    query_rank, groups = text.required("q_lora_rank"), text.required("o_groups")
    out_rank = text.required("o_lora_rank")
    window = text.required("sliding_window")
    weights = [
        replicated("attn.wq_a", hidden, query_rank, Part.ATTENTION),
        replicated("attn.wkv", hidden, width, Part.ATTENTION),
        column("attn.wq_b", query_rank, heads * width, Part.ATTENTION),
        column("attn.wo_a", max(1, heads * width // groups), groups * out_rank, Part.ATTENTION),
        column("attn.wo_b", groups * out_rank, hidden, Part.ATTENTION),
        vector("attn.norm", query_rank + width + heads),
    ]
    # The window's rows hold one vector, not a key and a value: half of its width each.
    half = max(1, width // 2)
    caches: tuple[Cache, ...] = (
        AttentionCache(kind="sliding", kv_heads=1, head_dim=half, value_dim=half, window_tokens=window),
    )
    if ratio > 1:
        overlap = 2 if ratio == _INDEXED_RATIO else 1
        weights += _compressor("attn.compressor", hidden, width, ratio, overlap)
        caches += (LatentCache(rank=-(-width // ratio)),)
    if ratio == _INDEXED_RATIO:
        index = IndexShape(heads=text.required("index_n_heads"), head_dim=text.required("index_head_dim"))
        weights += index_weights(hidden, query_rank, index)[:1]
        weights += _compressor("attn.indexer.compressor", hidden, index.head_dim, ratio, overlap=2)
        weights.append(vector("attn.indexer.weights_proj", hidden * index.heads))
        caches += (IndexCache(head_dim=-(-index.head_dim // ratio)),)
    return Block(tuple(weights), caches)


def _compressor(module: str, hidden: int, width: int, ratio: int, overlap: int) -> list[Weight]:
    columns = 2 * overlap * width
    return [
        Weight(f"{module}.wkv_gate", columns, hidden, Part.ATTENTION, replicated=True, linear=False),
        vector(f"{module}.ape", ratio * overlap * width + width),
    ]
