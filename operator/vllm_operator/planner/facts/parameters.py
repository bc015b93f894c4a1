"""Parameters of a model by what they belong to, and the bytes that they take as the checkpoint stores them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from vllm_operator.planner.facts.architecture.blocks import Layer, Part, Weight
from vllm_operator.planner.facts.encoders import encoder_weights
from vllm_operator.planner.facts.fields import Fields
from vllm_operator.planner.facts.quantization.rules import Rules
from vllm_operator.planner.facts.quantization.schemes import Scheme, unquantised
from vllm_operator.planner.facts.speculative import speculative_layers, speculative_weights

_ELEMENT_BYTES: Final = 2
"""bfloat16 and float16. A float32 checkpoint is loaded as bfloat16 (``config/model.py: _resolve_auto_dtype``)."""


@dataclass(frozen=True, slots=True)
class Shapes:
    """What the weights of a model are computed from."""

    text: Fields
    hidden: int
    vocab: int
    layers: tuple[Layer, ...]
    tied: bool
    """The output projection is the embedding."""
    encoders: list[Fields]


@dataclass(frozen=True, slots=True)
class Sizes:
    """Bytes by part, and of parts that cut across."""

    parts: Counter[Part]
    replicated: int
    """What every GPU of a tensor-parallel group holds whole, whatever it belongs to."""
    speculative: int
    """Of layers for multi-token prediction: beside ``parts``, not in them."""
    left_out: frozenset[Part]
    """Parts of whose linear layers none is quantised."""

    @property
    def total(self) -> int:
        """Bytes that vLLM loads."""
        return self.parts.total()


def computed_sizes(shapes: Shapes, rules: Rules | None, element_bytes: int = _ELEMENT_BYTES) -> Sizes:
    """Bytes by part. ``rules`` say what is quantised; None: nothing is."""
    plain = unquantised(element_bytes)
    parts: Counter[Part] = Counter()
    replicated = 0
    linear: set[Part] = set()
    quantised: set[Part] = set()
    for layer, weight in _placed(shapes):
        scheme = None if rules is None else rules.scheme(layer, weight)
        size = _bytes(weight, scheme or plain)
        parts[weight.part] += size
        replicated += size if weight.replicated else 0
        if weight.linear:
            (linear if scheme is None else quantised).add(weight.part)
    return Sizes(parts, replicated, _speculative(shapes, rules, plain), frozenset(linear - quantised))


def _placed(shapes: Shapes) -> Iterator[tuple[int | None, Weight]]:
    """Every weight and the layer it is in; None: in none."""
    for position, layer in enumerate(shapes.layers):
        for weight in _weights(layer):
            yield position, weight
    for weight in _outer(shapes):
        yield None, weight


def _bytes(weight: Weight, scheme: Scheme) -> int:
    return scheme.bytes_of(weight.outputs, weight.inputs) * weight.copies


def _outer(shapes: Shapes) -> list[Weight]:
    hidden, vocab = shapes.hidden, shapes.vocab
    weights = [
        Weight("model.embed_tokens", vocab, hidden, Part.EMBEDDING),
        Weight("model.norm", hidden, 1, Part.OTHER, replicated=True, linear=False),
        *encoder_weights(shapes.encoders, hidden),
    ]
    if not shapes.tied:
        weights.append(Weight("lm_head", vocab, hidden, Part.HEAD))
    width = shapes.text.count("hidden_size_per_layer_input")
    if width:  # Gemma 3n and 4: an embedding per layer beside the first one
        own = shapes.text.number("vocab_size_per_layer_input") or vocab
        weights.append(Weight("model.embed_tokens_per_layer", own, width * len(shapes.layers), Part.EMBEDDING))
    return weights


def _weights(layer: Layer) -> Iterable[Weight]:
    return (weight for block in layer.blocks for weight in block.weights)


def _speculative(shapes: Shapes, rules: Rules | None, plain: Scheme) -> int:
    count = speculative_layers(shapes.text)
    if count == 0:
        return 0
    weights = speculative_weights(shapes.text, shapes.layers, hidden=shapes.hidden, vocab=shapes.vocab)
    layer = len(shapes.layers)
    schemes = [None if rules is None else rules.scheme(layer, weight) for weight in weights]
    return count * sum(_bytes(weight, scheme or plain) for weight, scheme in zip(weights, schemes, strict=True))
