"""Layers of models with multi-head latent attention (DeepSeek, Kimi-K2, GLM-5 and their like)."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from vllm_operator.planner.facts.architecture.attention import (
    AttentionShape,
    IndexShape,
    LatentShape,
    attention_block,
    latent_block,
)
from vllm_operator.planner.facts.architecture.attention_shapes import HEADS
from vllm_operator.planner.facts.architecture.blocks import Block
from vllm_operator.planner.facts.fields import Fields

_MODEL_TYPES: Final = frozenset(
    {
        "axk1", "bailing_hybrid", "deepseek_v2", "deepseek_v3", "deepseek_v32", "deepseek_v4", "deepseek_v41",
        "deepseek_vl_v2", "dots3_note", "glm4_moe_lite", "glm5_next", "glm5_next_text", "glm_moe_dsa", "hy_v4",
        "kimi_k2", "kimi_linear", "longcat_flash", "pangu_ultra_moe", "deepseek_mtp", "sarvam_mla",
    }
)  # fmt: skip
"""Types whose attention vLLM runs on the latent itself (``is_deepseek_mla`` of
``transformers_utils/model_arch_config_convertor.py``)."""
_ARCHITECTURES: Final = ("Deepseek", "KimiK2", "Kimi", "GlmMoeDsa", "MistralLarge3", "LongcatFlash")
_UNKNOWN: Final = "kv_lora_rank of an unknown model type {type}: taken as full attention of all heads"


def is_latent(text: Fields) -> bool:
    """Whether the configuration describes low-rank keys and values."""
    return "kv_lora_rank" in text


def latent_mixers(text: Fields, *, hidden: int, count: int) -> tuple[list[Block], list[str]]:
    """One block per layer, and what had to be guessed."""
    shape = latent_shape(text, hidden)
    model_type = text.name("model_type") or ""
    architectures = text.raw("architectures")
    first = architectures[0] if isinstance(architectures, list) and architectures else ""
    if model_type not in _MODEL_TYPES and not str(first).startswith(_ARCHITECTURES):
        guesses = [] if model_type == "minicpm3" else [_UNKNOWN.format(type=model_type[:40] or "-")]
        return [_expanded(shape)] * count, guesses
    index = index_shape(text)
    if index is None:
        doubled = 2 if model_type == "longcat_flash" or str(first).startswith("LongcatFlash") else 1
        block = latent_block(shape)
        if doubled == 2:  # two sublayers of attention per layer (models/longcat_flash.py)
            block = Block(block.weights * 2, block.caches * 2)
        return [block] * count, []
    with_index = latent_block(shape, index, sparse=True)
    without = latent_block(shape, sparse=True)
    shares = _shares_index(text, count)
    return [without if shares[layer] else with_index for layer in range(count)], []


def latent_shape(text: Fields, hidden: int) -> LatentShape:
    """Shape of the latent attention."""
    heads = text.required(*HEADS)
    return LatentShape(
        hidden=hidden,
        heads=heads,
        rank=text.required("kv_lora_rank"),
        rope_dim=text.count("qk_rope_head_dim"),
        nope_dim=text.count("qk_nope_head_dim") or max(1, hidden // heads),
        value_dim=text.number("v_head_dim") or text.count("qk_nope_head_dim") or max(1, hidden // heads),
        query_rank=text.number("q_lora_rank"),
        output_gate=text.flag("mla_use_output_gate"),
    )


def index_shape(text: Fields) -> IndexShape | None:
    """The indexer of DeepSeek sparse attention; None: the model has none."""
    if "index_topk" not in text or "index_head_dim" not in text:
        return None
    return IndexShape(heads=text.required("index_n_heads"), head_dim=text.required("index_head_dim"))


def _shares_index(text: Fields, count: int) -> list[bool]:
    """Whether a layer uses the index of an earlier one and so keeps none (``models/deepseek_v32/attention.py``)."""
    pattern = text.raw("index_topk_pattern")
    if isinstance(pattern, str | list):
        return [layer < len(pattern) and pattern[layer] == "S" for layer in range(count)]
    every = max(1, text.count("index_topk_freq"))
    offset = text.count("index_skip_topk_offset") if "index_skip_topk_offset" in text else 2
    return [max(layer - offset + 1, 0) % every != 0 for layer in range(count)]


def _expanded(shape: LatentShape) -> Block:
    """Keys and values of every head, values padded to the width of keys (``models/minicpm3.py``)."""
    width = shape.nope_dim + shape.rope_dim
    block = attention_block(
        AttentionShape(hidden=shape.hidden, heads=shape.heads, kv_heads=shape.heads, head_dim=width, value_dim=width)
    )
    return replace(latent_block(shape), caches=block.caches)
