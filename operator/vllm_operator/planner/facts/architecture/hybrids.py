"""Hybrid models: layers of attention among layers that keep a state."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from vllm_operator.planner.facts.architecture.attention import attention_block, latent_block
from vllm_operator.planner.facts.architecture.attention_shapes import HEADS, plain_shape
from vllm_operator.planner.facts.architecture.blocks import Block, Layer, vector
from vllm_operator.planner.facts.architecture.feedforward import (
    dense_block,
    dense_width,
    experts_block,
    experts_of,
    is_gated,
)
from vllm_operator.planner.facts.architecture.latent import latent_shape
from vllm_operator.planner.facts.architecture.states import (
    DeltaShape,
    Mamba2Shape,
    gated_delta_block,
    kimi_delta_block,
    lightning_block,
    mamba1_block,
    mamba2_block,
    short_conv_block,
)
from vllm_operator.planner.facts.errors import invalid
from vllm_operator.planner.facts.fields import Fields
from vllm_operator_api.model import MAX_LAYERS, ExpertFacts

_LETTERS: Final = {
    "mamba": "M", "mamba2": "M", "linear_attention": "M", "moe": "E", "sparse": "E", "attention": "*",
    "full_attention": "*", "mlp": "-", "dense": "-",
}  # fmt: skip
"""Names in ``layers_block_type`` of Nemotron-H, as the letters of ``hybrid_override_pattern``."""
_ATTENTION_KINDS: Final = frozenset({"attention", "full_attention", "indexed_attention", "hybrid"})

Mixers = tuple[list[Block], list[str]]


def single_block_layers(text: Fields, *, hidden: int) -> tuple[tuple[Layer, ...], ExpertFacts | None, list[str]] | None:
    """Nemotron-H: a layer is one block, attention, Mamba-2, experts or a dense block (``models/nemotron_h.py``).

    None: it is no such model.
    """
    pattern = _block_letters(text)
    if pattern is None:
        return None
    experts = experts_of(text, hidden) if "E" in pattern else None
    blocks: dict[str, Block] = {}
    for letter in sorted(set(pattern)):
        if letter == "M":
            blocks[letter] = mamba2_block(_nemotron_mamba(text, hidden), "mixer")
        elif letter == "*":
            window = text.number("sliding_window")
            shape = replace(plain_shape(text, hidden), kind="sliding" if window else "full", window=window)
            blocks[letter] = attention_block(shape)
        elif letter == "E" and experts is not None:
            blocks[letter] = experts_block(experts, hidden)
        elif letter == "-":
            blocks[letter] = dense_block(hidden, dense_width(text, hidden), gated=is_gated(text), module="mixer")
        else:
            invalid(f"config.json: hybrid_override_pattern has a layer {letter!r}, which vLLM does not know")
    norm = Block((vector("norm", hidden),))
    layers = {letter: Layer((norm, block)) for letter, block in blocks.items()}
    return tuple(layers[letter] for letter in pattern), experts.facts if experts else None, []


def _block_letters(text: Fields) -> str | None:
    pattern = text.raw("hybrid_override_pattern")
    if isinstance(pattern, str) and pattern:
        letters = pattern.replace("|", "")
        if len(letters) > MAX_LAYERS:
            invalid(
                f"config.json: hybrid_override_pattern has {len(letters)} layers; no model has more than {MAX_LAYERS}"
            )
        return letters
    if text.name("model_type") != "nemotron_h":
        return None
    names = text.names("layers_block_type") or text.names("layer_types")
    if not names:
        return None
    for name in names:
        if name not in _LETTERS:
            invalid(f"config.json: layers_block_type has a layer {name[:40]!r}, which vLLM does not know")
    return "".join(_LETTERS[name] for name in names)


def _nemotron_mamba(text: Fields, hidden: int) -> Mamba2Shape:
    return Mamba2Shape(
        hidden=hidden,
        heads=text.required("mamba_num_heads"),
        head_dim=text.required("mamba_head_dim"),
        groups=text.number("n_groups", "mamba_n_groups") or 1,
        state=text.required("ssm_state_size", "mamba_state_dim"),
        kernel=text.number("conv_kernel", "mamba_d_conv") or 4,
    )


def hybrid_mixers(text: Fields, *, hidden: int, count: int) -> Mixers | None:
    """One block per layer, and what had to be guessed; None: no layer keeps a state."""
    family = _family(text)
    return None if family is None else family(text, hidden, count)


def _family(text: Fields) -> Callable[[Fields, int, int], Mixers] | None:
    model_type = text.name("model_type") or ""
    if text.section("linear_attn_config") is not None:
        return _kimi_linear
    if "linear_num_value_heads" in text:
        return _gated_delta
    if model_type == "falcon_h1":
        return _parallel
    if model_type in ("mamba", "falcon_mamba", "mamba2"):
        return _pure_mamba
    if "attn_layer_period" in text:
        return _jamba
    if model_type == "zamba2":
        return _zamba2
    if "mamba_n_heads" in text:
        return _granite
    if "conv_L_cache" in text:
        return _short_convolutions
    if model_type.startswith(("bailing_hybrid", "bailing_moe_linear")) or text.count("layer_group_size") > 1:
        return _bailing
    return None


def _kimi_linear(text: Fields, hidden: int, count: int) -> Mixers:
    """Kimi-Linear, Kimi-K3: layers are counted from 1 (``transformers_utils/configs/kimi_linear.py``)."""
    linear = text.section("linear_attn_config") or text
    with_state = frozenset(linear.numbers("kda_layers") or ())
    state = kimi_delta_block(
        hidden=hidden,
        heads=linear.required("num_heads"),
        head_dim=linear.required("head_dim"),
        kernel=linear.number("short_conv_kernel_size") or 4,
        full_rank_gate=linear.flag("use_full_rank_gate"),
    )
    attention = latent_block(latent_shape(text, hidden)) if "kv_lora_rank" in text else _attention(text, hidden)
    return [state if layer + 1 in with_state else attention for layer in range(count)], []


def _gated_delta(text: Fields, hidden: int, count: int) -> Mixers:
    """Qwen3-Next, Qwen3.5, OLMo hybrid (``models/qwen3_next.py``)."""
    kinds = text.names("layer_types")
    if kinds is None:
        interval = text.count("full_attention_interval") or 4
        kinds = ["linear_attention" if (layer + 1) % interval else "full_attention" for layer in range(count)]
    keys = text.required("linear_num_key_heads")
    shape = DeltaShape(
        hidden=hidden,
        key_heads=keys,
        value_heads=text.required("linear_num_value_heads"),
        key_dim=text.required("linear_key_head_dim"),
        value_dim=text.required("linear_value_head_dim"),
        kernel=text.number("linear_conv_kernel_dim") or 4,
    )
    plain = plain_shape(text, hidden)
    gated = text.flag("attn_output_gate", default=(text.name("model_type") or "").startswith("qwen3_"))
    attention = attention_block(replace(plain, output_gate=gated))
    return _by_kind(kinds, count, attention, gated_delta_block(shape), ("linear_attention",))


def _granite(text: Fields, hidden: int, count: int) -> Mixers:
    """Granite 4 and Bamba: Mamba-2 or attention (``models/granitemoehybrid.py``)."""
    kinds = text.names("layer_types") or text.names("layers_block_type")
    if kinds is None:
        with_attention = frozenset(text.numbers("attn_layer_indices") or ())
        kinds = ["attention" if layer in with_attention else "mamba" for layer in range(count)]
    return _by_kind(kinds, count, _attention(text, hidden), _granite_mamba(text, hidden), ("mamba", "linear_attention"))


def _granite_mamba(text: Fields, hidden: int) -> Block:
    heads = text.required("mamba_n_heads")
    inner = text.number("mamba_d_ssm") or int((text.share("mamba_expand") or 2) * hidden)
    width = text.raw("mamba_d_head")
    head_dim = text.required("mamba_d_head") if isinstance(width, int) else max(1, inner // heads)
    shape = Mamba2Shape(
        hidden=hidden,
        heads=heads,
        head_dim=head_dim,
        groups=text.number("mamba_n_groups") or 1,
        state=text.required("mamba_d_state"),
        kernel=text.number("mamba_d_conv") or 4,
        inner=inner,
    )
    return mamba2_block(shape, "mamba")


def _parallel(text: Fields, hidden: int, count: int) -> Mixers:
    """Falcon-H1: attention and Mamba-2 side by side in every layer (``models/falcon_h1.py``)."""
    attention, state = _attention(text, hidden), _granite_mamba(text, hidden)
    return [Block(attention.weights + state.weights, attention.caches + state.caches)] * count, []


def _pure_mamba(text: Fields, hidden: int, count: int) -> Mixers:
    """Models without attention (``models/mamba.py``, ``models/mamba2.py``)."""
    if text.name("model_type") == "mamba2":
        shape = Mamba2Shape(
            hidden=hidden,
            heads=text.required("num_heads"),
            head_dim=text.required("head_dim"),
            groups=text.number("n_groups") or 1,
            state=text.required("state_size"),
            kernel=text.number("conv_kernel") or 4,
            inner=int((text.share("expand") or 2) * hidden),
        )
        return [mamba2_block(shape, "mixer")] * count, []
    inner = text.number("intermediate_size") or 2 * hidden
    block = mamba1_block(
        hidden=hidden,
        inner=inner,
        state=text.required("state_size"),
        kernel=text.number("conv_kernel") or 4,
        rank=text.required("time_step_rank") if isinstance(text.raw("time_step_rank"), int) else -(-hidden // 16),
        module="mixer",
    )
    return [block] * count, []


def _jamba(text: Fields, hidden: int, count: int) -> Mixers:
    """Mamba-1 with a layer of attention per period (``models/jamba.py``)."""
    period, offset = text.required("attn_layer_period"), text.count("attn_layer_offset")
    rank = text.raw("mamba_dt_rank")
    state = mamba1_block(
        hidden=hidden,
        inner=int((text.share("mamba_expand") or 2) * hidden),
        state=text.number("mamba_d_state") or 16,
        kernel=text.number("mamba_d_conv") or 4,
        rank=text.required("mamba_dt_rank") if isinstance(rank, int) else -(-hidden // 16),
        module="mamba",
    )
    attention = _attention(text, hidden)
    return [attention if layer % period == offset else state for layer in range(count)], []


def _zamba2(text: Fields, hidden: int, count: int) -> Mixers:
    """Mamba-2 in every layer; hybrid ones also run a block of attention that several share (``models/zamba2.py``).

    Attention works in twice the hidden size. Its weights are counted with each layer: an upper bound.
    """
    kinds = text.names("layers_block_type") or text.names("layer_types")
    if kinds is None:
        invalid("config.json has no layers_block_type")
    heads = text.number("n_mamba_heads") or 8
    inner = int((text.share("mamba_expand") or 2) * hidden)
    state = mamba2_block(
        Mamba2Shape(
            hidden=hidden,
            heads=heads,
            head_dim=text.number("mamba_headdim") or max(1, inner // heads),
            groups=text.number("mamba_ngroups") or 1,
            state=text.number("mamba_d_state") or 64,
            kernel=text.number("mamba_d_conv") or 4,
            inner=inner,
        ),
        "mamba",
    )
    plain = plain_shape(text, hidden)
    width = text.number("attention_head_dim") or max(1, 2 * hidden // plain.heads)
    attention = attention_block(replace(plain, head_dim=width, value_dim=width))
    both = Block(state.weights + attention.weights, state.caches + attention.caches)
    return [both if layer < len(kinds) and kinds[layer] == "hybrid" else state for layer in range(count)], []


def _short_convolutions(text: Fields, hidden: int, count: int) -> Mixers:
    """LFM2 (``models/lfm2.py``)."""
    kinds = text.names("layer_types")
    if kinds is None:
        listed = text.numbers("full_attn_idxs")
        full = frozenset(range(count) if listed is None else listed)
        kinds = ["full_attention" if layer in full else "conv" for layer in range(count)]
    state = short_conv_block(
        hidden=hidden, width=text.number("conv_dim") or hidden, kernel=text.number("conv_L_cache") or 3
    )
    return _by_kind(kinds, count, _attention(text, hidden), state, ("conv",))


def _bailing(text: Fields, hidden: int, count: int) -> Mixers:
    """Ling and Ring: a group ends with attention (``models/bailing_moe_linear.py``, ``models/bailing_moe_v3.py``)."""
    group = text.required("layer_group_size")
    architectures = text.raw("architectures")
    third = isinstance(architectures, list) and bool(architectures) and "V3" in str(architectures[0])
    heads = text.required(*HEADS)
    head_dim = text.number("head_dim") or max(1, hidden // heads)
    if third:
        state = kimi_delta_block(hidden=hidden, heads=heads, head_dim=head_dim, kernel=4, full_rank_gate=True)
        last = count // group * group
    else:
        state, last = lightning_block(hidden=hidden, heads=heads, head_dim=head_dim), count
    attention = latent_block(latent_shape(text, hidden)) if "kv_lora_rank" in text else _attention(text, hidden)
    return [attention if (layer + 1) % group == 0 or layer >= last else state for layer in range(count)], []


def _by_kind(kinds: list[str], count: int, attention: Block, state: Block, names: tuple[str, ...]) -> Mixers:
    if len(kinds) < count:
        invalid(f"config.json: layer_types has {len(kinds)} entries for {count} layers")
    guesses = {
        f"layers of the unknown kind {kind[:40]} are taken as full attention"
        for kind in kinds[:count]
        if kind not in names and kind not in _ATTENTION_KINDS
    }
    return [state if kind in names else attention for kind in kinds[:count]], sorted(guesses)


def _attention(text: Fields, hidden: int) -> Block:
    return attention_block(plain_shape(text, hidden))
