"""State-space and linear attention blocks: a state of constant size per request (``layers/mamba/mamba_utils.py``)."""

from __future__ import annotations

from dataclasses import dataclass

from vllm_operator.planner.facts.architecture.blocks import Block, Part, column, replicated, vector
from vllm_operator_api.model import StateCache

_STATE = Part.STATE


@dataclass(frozen=True, slots=True, kw_only=True)
class Mamba2Shape:
    """A Mamba-2 mixer (``layers/mamba/mamba_mixer2.py``)."""

    hidden: int
    heads: int
    head_dim: int
    groups: int
    state: int
    kernel: int
    inner: int | None = None
    """Width inside; None: heads times their width."""


def mamba2_block(shape: Mamba2Shape, module: str) -> Block:
    """Mamba-2: ``in_proj`` yields gate, convolved input with B and C, and a step per head."""
    inner = shape.inner or shape.heads * shape.head_dim
    convolved = inner + 2 * shape.groups * shape.state
    return Block(
        weights=(
            column(f"{module}.in_proj", shape.hidden, inner + convolved + shape.heads, _STATE),
            vector(f"{module}.conv1d", convolved * (shape.kernel + 1)),
            vector(f"{module}.A_log", 3 * shape.heads),
            vector(f"{module}.norm", inner),
            column(f"{module}.out_proj", inner, shape.hidden, _STATE),
        ),
        caches=(
            StateCache(
                kind="mamba2",
                heads=shape.heads,
                head_dim=shape.head_dim,
                state_size=shape.state,
                key_heads=shape.groups,
                conv_kernel=shape.kernel,
            ),
        ),
    )


def mamba1_block(*, hidden: int, inner: int, state: int, kernel: int, rank: int, module: str) -> Block:
    """Mamba-1 (``layers/mamba/mamba_mixer.py``): every channel is a head of width 1."""
    return Block(
        weights=(
            column(f"{module}.in_proj", hidden, 2 * inner, _STATE),
            vector(f"{module}.conv1d", inner * (kernel + 1)),
            column(f"{module}.x_proj", inner, rank + 2 * state, _STATE),
            column(f"{module}.dt_proj", rank, inner, _STATE),
            vector(f"{module}.A_log", inner * (state + 2)),
            column(f"{module}.out_proj", inner, hidden, _STATE),
        ),
        caches=(StateCache(kind="mamba1", heads=inner, head_dim=1, state_size=state, conv_kernel=kernel),),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class DeltaShape:
    """A gated delta net (Qwen3-Next, Qwen3.5)."""

    hidden: int
    key_heads: int
    value_heads: int
    key_dim: int
    value_dim: int
    kernel: int


def gated_delta_block(shape: DeltaShape) -> Block:
    """``layers/mamba/gdn``: projections of query, key, value, output gate, and two numbers per value head."""
    keys, values = shape.key_heads * shape.key_dim, shape.value_heads * shape.value_dim
    convolved = 2 * keys + values
    return Block(
        weights=(
            column("linear_attn.in_proj_qkv", shape.hidden, convolved, _STATE),
            column("linear_attn.in_proj_z", shape.hidden, values, _STATE),
            column("linear_attn.in_proj_ba", shape.hidden, 2 * shape.value_heads, _STATE),
            vector("linear_attn.conv1d", convolved * shape.kernel),
            vector("linear_attn.A_log", 2 * shape.value_heads),
            vector("linear_attn.norm", shape.value_dim),
            column("linear_attn.out_proj", values, shape.hidden, _STATE),
        ),
        caches=(
            StateCache(
                kind="gdn",
                heads=shape.value_heads,
                head_dim=shape.value_dim,
                state_size=shape.key_dim,
                key_heads=shape.key_heads,
                conv_kernel=shape.kernel,
            ),
        ),
    )


def kimi_delta_block(*, hidden: int, heads: int, head_dim: int, kernel: int, full_rank_gate: bool) -> Block:
    """Kimi delta attention (``models/kimi_k3/nvidia/kda.py``)."""
    width = heads * head_dim
    gate = (
        [column("self_attn.g_proj", hidden, width, _STATE)]
        if full_rank_gate
        else [
            replicated("self_attn.g_a_proj", hidden, head_dim, _STATE),
            column("self_attn.g_b_proj", head_dim, width, _STATE),
        ]
    )
    return Block(
        weights=(
            column("self_attn.q_proj", hidden, width, _STATE),
            column("self_attn.k_proj", hidden, width, _STATE),
            column("self_attn.v_proj", hidden, width, _STATE),
            *gate,
            replicated("self_attn.f_a_proj", hidden, head_dim, _STATE),
            column("self_attn.f_b_proj", head_dim, width, _STATE),
            column("self_attn.b_proj", hidden, heads, _STATE),
            vector("self_attn.q_conv1d", 3 * width * kernel),
            vector("self_attn.dt_bias", width + heads + head_dim),
            column("self_attn.o_proj", width, hidden, _STATE),
        ),
        caches=(
            StateCache(
                kind="kda", heads=heads, head_dim=head_dim, state_size=head_dim, key_heads=heads, conv_kernel=kernel
            ),
        ),
    )


def lightning_block(*, hidden: int, heads: int, head_dim: int) -> Block:
    """Linear attention without a convolution (``models/bailing_moe_linear.py``)."""
    width = heads * head_dim
    return Block(
        weights=(
            column("attention.query_key_value", hidden, 3 * width, _STATE),
            column("attention.g_proj", hidden, width, _STATE),
            column("attention.dense", width, hidden, _STATE),
            vector("attention.g_norm", width),
        ),
        caches=(StateCache(kind="lightning", heads=heads, head_dim=head_dim, state_size=head_dim),),
    )


def short_conv_block(*, hidden: int, width: int, kernel: int) -> Block:
    """A gated convolution (``models/lfm2.py``): its state is the last inputs of each channel."""
    return Block(
        weights=(
            column("conv.in_proj", hidden, 3 * width, _STATE),
            vector("conv.conv", width * kernel),
            column("conv.out_proj", width, hidden, _STATE),
        ),
        caches=(StateCache(kind="short_conv", heads=width, head_dim=1, state_size=1, conv_kernel=kernel),),
    )
