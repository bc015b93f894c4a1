"""Attention blocks: what vLLM's attention layers keep per token, and their weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vllm_operator.planner.facts.architecture.blocks import Block, Part, Weight, column, replicated, vector
from vllm_operator_api.model import AttentionCache, Cache, IndexCache, LatentCache

_ATTENTION = Part.ATTENTION
_MODULE = "self_attn"


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionShape:
    """A (grouped-query) attention layer."""

    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    value_dim: int
    kind: Literal["full", "sliding", "chunked"] = "full"
    window: int | None = None
    output_gate: bool = False
    """The query projection is twice as wide, the other half gates the output (Qwen3-Next)."""
    norms: int = 0
    """Elements of the norms of query and key."""
    biases: int = 0
    shares_kv: bool = False
    """It reads the KV cache of an earlier layer: it keeps nothing and has no key and value projection."""


def attention_block(shape: AttentionShape) -> Block:
    """Queries, keys and values of all heads (``layers/attention/attention.py``)."""
    queries = shape.heads * shape.head_dim * (2 if shape.output_gate else 1)
    weights = [column(f"{_MODULE}.q_proj", shape.hidden, queries, _ATTENTION)]
    caches: tuple[Cache, ...] = ()
    if not shape.shares_kv:
        weights += [
            column(f"{_MODULE}.k_proj", shape.hidden, shape.kv_heads * shape.head_dim, _ATTENTION),
            column(f"{_MODULE}.v_proj", shape.hidden, shape.kv_heads * shape.value_dim, _ATTENTION),
        ]
        caches = (kv_cache(shape),)
    weights.append(column(f"{_MODULE}.o_proj", shape.heads * shape.value_dim, shape.hidden, _ATTENTION))
    if shape.norms:
        weights.append(vector(f"{_MODULE}.q_norm", shape.norms))
    if shape.biases:
        weights.append(vector(f"{_MODULE}.bias", shape.biases))
    return Block(tuple(weights), caches)


def kv_cache(shape: AttentionShape) -> AttentionCache:
    """What such a layer keeps."""
    return AttentionCache(
        kind=shape.kind,
        kv_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        value_dim=shape.value_dim,
        window_tokens=shape.window,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentShape:
    """A multi-head latent attention layer (``layers/attention/mla_attention.py``)."""

    hidden: int
    heads: int
    rank: int
    """``kv_lora_rank``."""
    rope_dim: int
    nope_dim: int
    value_dim: int
    query_rank: int | None
    """``q_lora_rank``; None: queries are projected at once."""
    output_gate: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexShape:
    """The indexer of DeepSeek sparse attention (``models/deepseek_v32/attention.py``)."""

    heads: int
    head_dim: int


def latent_block(shape: LatentShape, index: IndexShape | None = None, *, sparse: bool = False) -> Block:
    """One latent per token. ``sparse``: read through an index, of this layer or of an earlier one."""
    hidden, width = shape.hidden, shape.nope_dim + shape.rope_dim
    weights = [
        replicated(f"{_MODULE}.kv_a_proj_with_mqa", hidden, shape.rank + shape.rope_dim, _ATTENTION),
        vector(f"{_MODULE}.kv_a_layernorm", shape.rank),
        column(f"{_MODULE}.kv_b_proj", shape.rank, shape.heads * (shape.nope_dim + shape.value_dim), _ATTENTION),
        column(f"{_MODULE}.o_proj", shape.heads * shape.value_dim, hidden, _ATTENTION),
    ]
    if shape.query_rank is None:
        weights.append(column(f"{_MODULE}.q_proj", hidden, shape.heads * width, _ATTENTION))
    else:
        weights += [
            replicated(f"{_MODULE}.q_a_proj", hidden, shape.query_rank, _ATTENTION),
            vector(f"{_MODULE}.q_a_layernorm", shape.query_rank),
            column(f"{_MODULE}.q_b_proj", shape.query_rank, shape.heads * width, _ATTENTION),
        ]
    if shape.output_gate:
        weights.append(column(f"{_MODULE}.g_proj", hidden, shape.heads * shape.value_dim, _ATTENTION))
    caches: tuple[Cache, ...] = (LatentCache(rank=shape.rank, rope_dim=shape.rope_dim, sparse=sparse),)
    if index is not None:
        weights += index_weights(hidden, shape.query_rank or hidden, index)
        caches += (IndexCache(head_dim=index.head_dim),)
    return Block(tuple(weights), caches)


def index_weights(hidden: int, query_rank: int, index: IndexShape) -> list[Weight]:
    """Weights of an indexer: whole on every GPU."""
    return [
        replicated(f"{_MODULE}.indexer.wq_b", query_rank, index.heads * index.head_dim, _ATTENTION),
        replicated(f"{_MODULE}.indexer.wk", hidden, index.head_dim, _ATTENTION),
        Weight(f"{_MODULE}.indexer.weights_proj", index.heads, hidden, _ATTENTION, replicated=True, linear=False),
        vector(f"{_MODULE}.indexer.k_norm", 2 * index.head_dim),
    ]
