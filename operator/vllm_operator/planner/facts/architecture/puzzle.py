"""Models whose layers were chosen one by one (NVIDIA's puzzle): ``block_configs`` describes each."""

from __future__ import annotations

from vllm_operator.planner.facts.architecture.attention import AttentionShape, attention_block
from vllm_operator.planner.facts.architecture.attention_shapes import HEADS, checked
from vllm_operator.planner.facts.architecture.blocks import Block, Layer, vector
from vllm_operator.planner.facts.architecture.feedforward import dense_block
from vllm_operator.planner.facts.errors import invalid
from vllm_operator.planner.facts.fields import Fields


def puzzle_layers(text: Fields, hidden: int) -> tuple[tuple[Layer, ...], None, list[str]]:
    """The layers (``models/nemotron_nas.py``), no experts, and what had to be guessed."""
    guesses: set[str] = set()
    layers = []
    for entry in text.sections("block_configs") or []:
        attention, ffn = entry.section("attention"), entry.section("ffn")
        if attention is None or ffn is None:
            invalid("config.json: an entry of block_configs has no attention or no ffn")
        blocks: list[Block] = []
        if not attention.flag("no_op"):
            if attention.flag("replace_with_linear") or attention.number("window_length") is not None:
                guesses.add("a linear or windowed layer of block_configs is taken as full attention")
            blocks += [_attention(text, attention, hidden), Block((vector("input_layernorm", hidden),))]
        if not ffn.flag("no_op"):
            blocks += [_ffn(ffn, hidden), Block((vector("post_attention_layernorm", hidden),))]
        layers.append(Layer(tuple(blocks)))
    if not layers:
        invalid("config.json: block_configs is empty")
    return tuple(layers), None, sorted(guesses)


def _attention(text: Fields, attention: Fields, hidden: int) -> Block:
    heads = text.required(*HEADS)
    group = attention.number("n_heads_in_group")
    kv_heads = heads // group if group is not None else attention.number("num_key_value_heads") or heads
    head_dim = text.number("head_dim") or max(1, hidden // heads)
    shape = AttentionShape(hidden=hidden, heads=heads, kv_heads=max(1, kv_heads), head_dim=head_dim, value_dim=head_dim)
    return attention_block(checked(shape))


def _ffn(ffn: Fields, hidden: int) -> Block:
    factor = ffn.share("ffn_mult")
    width = ffn.required("intermediate_size") if factor is None else -(-int(2 * factor * hidden / 3) // 256) * 256
    return dense_block(hidden, max(1, width), gated=True)
