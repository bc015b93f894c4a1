"""Shape of the attention of each layer of a plain or sliding-window transformer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from vllm_operator.planner.facts.architecture.attention import AttentionShape, attention_block
from vllm_operator.planner.facts.architecture.blocks import Block, Part, column, vector
from vllm_operator.planner.facts.architecture.windows import Window, windows
from vllm_operator.planner.facts.errors import invalid
from vllm_operator.planner.facts.fields import Fields
from vllm_operator_api.model import IndexCache

HEADS: Final = ("num_attention_heads", "n_head", "n_heads", "num_heads", "encoder_attention_heads")
_KV_HEADS: Final = (
    "num_key_value_heads", "n_head_kv", "num_kv_heads", "multi_query_group_num", "num_attention_groups",
    "num_query_groups",
)  # fmt: skip
"""``get_total_num_kv_heads`` of ``transformers_utils/model_arch_config_convertor.py``."""
_HEAD_DIMS: Final = ("head_dim", "hidden_size_per_head", "attention_head_dim", "kv_channels")
_MODELS_WITH_QK_NORM: Final = ("qwen3", "gemma3", "gemma4", "glm4_moe", "minimax", "step3", "hunyuan", "olmo")


def plain_shape(text: Fields, hidden: int) -> AttentionShape:
    """The attention that the configuration gives for all layers.

    Missing values are as vLLM takes them: KV heads = heads, ``head_dim`` = hidden size / heads.

    Raises:
        ModelError: the numbers contradict each other.
    """
    heads = text.required(*HEADS)
    kv_heads = _kv_heads(text, heads)
    head_dim = text.number(*_HEAD_DIMS) or max(1, hidden // heads)
    shape = AttentionShape(
        hidden=hidden,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        value_dim=text.number("v_head_dim") or head_dim,
        output_gate=text.flag("attn_output_gate"),
        norms=2 * head_dim if _has_qk_norm(text) else 0,
        biases=(heads + 2 * kv_heads) * head_dim if text.flag("attention_bias") or text.flag("qkv_bias") else 0,
    )
    return checked(shape)


def checked(shape: AttentionShape) -> AttentionShape:
    """The shape, if its query heads can share its KV heads.

    Raises:
        ModelError: there are more KV heads than heads, or they do not divide them.
    """
    if shape.kv_heads > shape.heads or shape.heads % shape.kv_heads:
        invalid(
            f"config.json: num_attention_heads={shape.heads} cannot share num_key_value_heads={shape.kv_heads}: "
            "the former must be a multiple of the latter"
        )
    return shape


def attention_mixers(text: Fields, *, hidden: int, count: int) -> tuple[list[Block], list[str]]:
    """One block per layer, and what had to be guessed."""
    plain = plain_shape(text, hidden)
    kinds, guesses = (_mimo_windows(text, count), []) if "hybrid_layer_pattern" in text else windows(text, count)
    own_until = count - text.count("num_kv_shared_layers")
    indexed = _indexed_layers(text)
    blocks: dict[tuple[AttentionShape, bool], Block] = {}
    mixers: list[Block] = []
    for layer, window in enumerate(kinds):
        shape = checked(replace(_of_layer(text, plain, layer, window), shares_kv=layer >= own_until))
        key = (shape, layer in indexed)
        if key not in blocks:
            block = attention_block(shape)
            blocks[key] = _with_index(text, block, hidden) if layer in indexed else block
        mixers.append(blocks[key])
    return mixers, guesses


def _of_layer(text: Fields, plain: AttentionShape, layer: int, window: Window) -> AttentionShape:
    kind, tokens = window
    shape = replace(plain, kind=kind, window=tokens)
    if kind == "sliding" and "swa_num_key_value_heads" in text:
        shape = _mimo_sliding(text, shape)
    if kind == "full" and "global_head_dim" in text:
        shape = _gemma4_full(text, shape)
    if kind == "sliding" and text.section("attention_other_setting") is not None:
        shape = _step_sliding(text, shape)
    per_layer = _entry(text, "num_attention_heads_per_layer", layer)
    kv_per_layer = _entry(text, "num_key_value_heads_per_layer", layer) or _entry(text, "num_kv_heads", layer)
    return replace(shape, heads=per_layer or shape.heads, kv_heads=kv_per_layer or shape.kv_heads)


def _mimo_windows(text: Fields, count: int) -> list[Window]:
    """1: sliding (``models/mimo_v2.py``)."""
    pattern = text.numbers("hybrid_layer_pattern") or []
    if len(pattern) < count:
        invalid(f"config.json: hybrid_layer_pattern has {len(pattern)} entries for {count} layers")
    tokens = text.required("sliding_window_size", "sliding_window")
    return [("sliding", tokens) if entry == 1 else ("full", None) for entry in pattern[:count]]


def _mimo_sliding(text: Fields, shape: AttentionShape) -> AttentionShape:
    head_dim = text.number("swa_head_dim") or shape.head_dim
    return replace(
        shape,
        heads=text.number("swa_num_attention_heads") or shape.heads,
        kv_heads=text.required("swa_num_key_value_heads"),
        head_dim=head_dim,
        value_dim=text.number("swa_v_head_dim") or head_dim,
    )


def _gemma4_full(text: Fields, shape: AttentionShape) -> AttentionShape:
    """Full layers have their own head width, and KV heads where keys equal values (``models/gemma4.py``)."""
    head_dim = text.required("global_head_dim")
    kv_heads = text.number("num_global_key_value_heads") if text.flag("attention_k_eq_v") else None
    return replace(
        shape, head_dim=head_dim, value_dim=head_dim, kv_heads=kv_heads or shape.kv_heads, norms=2 * head_dim
    )


def _step_sliding(text: Fields, shape: AttentionShape) -> AttentionShape:
    other = text.section("attention_other_setting")
    if other is None or other.name("attention_type") != "sliding_attention":
        return shape
    head_dim = other.number("head_dim") or shape.head_dim
    return replace(
        shape,
        heads=other.number("num_attention_heads") or shape.heads,
        kv_heads=other.number("num_attention_groups") or shape.kv_heads,
        head_dim=head_dim,
        value_dim=head_dim,
    )


def _kv_heads(text: Fields, heads: int) -> int:
    if text.name("model_type") in ("falcon", "RefinedWeb", "RefinedWebModel"):
        if not text.flag("new_decoder_architecture") and text.flag("multi_query", default=True):
            return 1
    elif text.flag("multi_query") and text.number(*_KV_HEADS) is None:  # GPT BigCode
        return 1
    section = text.section("attn_config")  # DBRX
    if section is not None and (given := section.number("kv_n_heads")) is not None:
        return given
    return text.number(*_KV_HEADS) or heads


def _has_qk_norm(text: Fields) -> bool:
    return text.flag("use_qk_norm") or (text.name("model_type") or "").startswith(_MODELS_WITH_QK_NORM)


def _entry(text: Fields, key: str, layer: int) -> int | None:
    value: Any = text.raw(key)
    if not isinstance(value, list):
        return None
    numbers = text.numbers(key) or []
    return numbers[layer] or None if layer < len(numbers) else None


def _indexed_layers(text: Fields) -> frozenset[int]:
    """Layers with the index of block-sparse attention (``models/minimax_m3/nvidia/model.py``)."""
    section = text.section("sparse_attention_config")
    if section is None:
        return frozenset()
    flags = section.numbers("sparse_attention_freq") or []
    return frozenset(layer for layer, flag in enumerate(flags) if flag)


def _with_index(text: Fields, block: Block, hidden: int) -> Block:
    """Beside keys and values an index key per token; its queries are cut like the KV heads."""
    section = text.section("sparse_attention_config") or text
    width, heads = section.required("sparse_index_dim"), section.required("sparse_num_index_heads")
    weights = (
        *block.weights,
        column("self_attn.index_q_proj", hidden, heads * width, Part.ATTENTION),
        column("self_attn.index_k_proj", hidden, width, Part.ATTENTION),
        vector("self_attn.index_norm", 2 * width),
    )
    return Block(weights, (*block.caches, IndexCache(head_dim=width)), block.widths)
