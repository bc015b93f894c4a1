"""The layers of a model, in order: each with what it keeps per request and what it weighs.

Which of the families below a model belongs to is read off the keys of its configuration, in the order in which they
decide in vLLM's models; the functions name the model file that they follow.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from vllm_operator.planner.facts.architecture.attention_shapes import attention_mixers
from vllm_operator.planner.facts.architecture.blocks import Block, Layer, vector
from vllm_operator.planner.facts.architecture.compressed import compressed_layers
from vllm_operator.planner.facts.architecture.feedforward import FeedForward, feed_forward
from vllm_operator.planner.facts.architecture.hybrids import hybrid_mixers, single_block_layers
from vllm_operator.planner.facts.architecture.latent import is_latent, latent_mixers
from vllm_operator.planner.facts.architecture.puzzle import puzzle_layers
from vllm_operator.planner.facts.errors import invalid
from vllm_operator.planner.facts.fields import Fields
from vllm_operator_api.model import MAX_LAYERS, ExpertFacts

_LAYER_COUNTS: Final = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
_HIDDEN_SIZES: Final = ("hidden_size", "n_embd", "d_model", "dim")


@dataclass(frozen=True, slots=True)
class Layers:
    """All layers of a model."""

    layers: tuple[Layer, ...]
    experts: ExpertFacts | None = None
    guesses: list[str] = field(default_factory=list)


def hidden_size(text: Fields) -> int:
    """Width of the residual stream."""
    return text.required(*_HIDDEN_SIZES)


def layer_count(text: Fields) -> int:
    """How many layers the configuration says it has; a pattern's length where it gives no number.

    Raises:
        ModelError: it says nothing, or more than any model has.
    """
    if (text.name("model_type") or "").startswith("longcat_flash"):  # each holds two sublayers of attention
        count = text.number("num_layers", "num_hidden_layers")
    else:
        count = text.number(*_LAYER_COUNTS)
    if count is None:
        pattern = text.raw("hybrid_override_pattern")
        listed = (
            pattern if isinstance(pattern, str) else text.entries("layers_block_type") or text.entries("layer_types")
        )
        count = len(listed) if listed else invalid("config.json has no num_hidden_layers")
    if count > MAX_LAYERS:
        invalid(f"config.json: num_hidden_layers={count}; no model has more than {MAX_LAYERS} layers")
    return count


def model_layers(text: Fields, *, hidden: int, count: int) -> Layers:
    """The layers.

    Raises:
        ModelError: the configuration contradicts itself.
    """
    if text.sections("block_configs") is not None:
        return Layers(*puzzle_layers(text, hidden))
    single = single_block_layers(text, hidden=hidden)
    if single is not None:
        return Layers(*single)
    ffn = feed_forward(text, layers=count, hidden=hidden)
    norms = Block((vector("input_layernorm", 2 * hidden),))
    mixers, guesses = _mixers(text, hidden=hidden, count=count)
    return Layers(_zipped(mixers, ffn, norms), ffn.experts, guesses)


def _mixers(text: Fields, *, hidden: int, count: int) -> tuple[list[Block], list[str]]:
    if text.entries("compress_ratios") is not None:
        return compressed_layers(text, hidden=hidden, count=count), []
    hybrid = hybrid_mixers(text, hidden=hidden, count=count)
    if hybrid is not None:
        return hybrid
    if is_latent(text):
        return latent_mixers(text, hidden=hidden, count=count)
    return attention_mixers(text, hidden=hidden, count=count)


def _zipped(mixers: list[Block], ffn: FeedForward, norms: Block) -> tuple[Layer, ...]:
    known: dict[tuple[int, int], Layer] = {}
    layers: list[Layer] = []
    for mixer, block in zip(mixers, ffn.blocks, strict=True):
        key = (id(mixer), id(block))
        layers.append(known.setdefault(key, Layer((norms, mixer, block))))
    return tuple(layers)
