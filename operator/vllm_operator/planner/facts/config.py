"""Facts of a model from its ``config.json``. Pure, and bounded: the document comes from the model's author."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any, Final

from vllm_operator.planner.facts.architecture.attention_shapes import HEADS
from vllm_operator.planner.facts.architecture.blocks import Layer, Part
from vllm_operator.planner.facts.architecture.layers import Layers, hidden_size, layer_count, model_layers
from vllm_operator.planner.facts.architecture.unknown_keys import unknown_cache_keys
from vllm_operator.planner.facts.errors import invalid
from vllm_operator.planner.facts.fields import Fields
from vllm_operator.planner.facts.length import longest_context
from vllm_operator.planner.facts.parameters import Shapes, Sizes, computed_sizes
from vllm_operator.planner.facts.quantization.checkpoint import Quantization, quantization_of
from vllm_operator.planner.facts.text_config import encoder_sections, text_fields
from vllm_operator.planner.facts.weights import LoadedWeights, weight_facts
from vllm_operator_api.model import MAX_LAYER_SHAPES, Cache, LayerShape, ModelFacts, QuantizationFacts

_MAX_GUESSES: Final = 8
_MAX_GUESS: Final = 200
_MAX_WIDTHS: Final = 64
_MAX_DIMENSION: Final = 2**31
"""Bounds of ``ModelFacts``."""
_DTYPES: Final = ("dtype", "torch_dtype")


def model_facts(
    config: Mapping[str, Any],
    *,
    source: str,
    weights: LoadedWeights | None = None,
    revision: str | None = None,
    hf_quant_config: Mapping[str, Any] | None = None,
) -> ModelFacts:
    """The facts that the planner needs.

    ``weights`` is what the files say about their size; without it the bytes are computed from the shapes and the
    quantisation, and ``WeightFacts.source`` says so. ``hf_quant_config`` is the file of that name beside the
    configuration, if there is one.

    Raises:
        ModelError: something essential is missing, absurd, or contradicts something else; the message has the value.
    """
    text = text_fields(config)
    architecture = _architecture(config, text)
    quantization = quantization_of(config, text, hf_quant_config)
    shapes, made = _shapes(config, text)
    sizes = computed_sizes(shapes, quantization.rules if quantization is not None else None)
    return ModelFacts(
        source=source[:1024],
        revision=revision,
        architecture=architecture,
        model_type=Fields(config).name("model_type"),
        hidden_size=shapes.hidden,
        vocab_size=shapes.vocab,
        attention_heads=text.number(*HEADS) or 1,
        **_layer_shapes(made.layers),
        intermediate_sizes=_widths(made.layers),
        experts=made.experts,
        max_position_embeddings=longest_context(text),
        dtype=_dtype(config, text),
        quantization=None if quantization is None else _with_coverage(quantization, sizes),
        weights=weight_facts(sizes, weights),
        multimodal=bool(shapes.encoders),
        guesses=_guesses(text, made, quantization, exact=weights is not None),
    )


def model_shapes(config: Mapping[str, Any]) -> Shapes:
    """What the weights are computed from.

    Raises:
        ModelError: as ``model_facts``.
    """
    return _shapes(config, text_fields(config))[0]


def _shapes(config: Mapping[str, Any], text: Fields) -> tuple[Shapes, Layers]:
    hidden = hidden_size(text)
    made = model_layers(text, hidden=hidden, count=layer_count(text))
    shapes = Shapes(
        text=text,
        hidden=hidden,
        vocab=text.required("vocab_size", "padded_vocab_size"),
        layers=made.layers,
        tied=_tied(config, text),
        encoders=encoder_sections(config),
    )
    return shapes, made


def _tied(config: Mapping[str, Any], text: Fields) -> bool:
    """Without a word it is False (transformers' ``PreTrainedConfig``); ``defaults.py`` has types that differ."""
    outer = config.get("tie_word_embeddings")
    return bool(outer) if isinstance(outer, bool) else text.flag("tie_word_embeddings")


def _architecture(config: Mapping[str, Any], text: Fields) -> str:
    for names in (config.get("architectures"), text.raw("architectures")):
        if isinstance(names, list) and names and isinstance(names[0], str) and names[0]:
            return text.checked_name("architectures", names[0])
    return invalid("config.json names no architecture (architectures): vLLM would not know which model it is")


def _layer_shapes(layers: tuple[Layer, ...]) -> dict[str, Any]:
    """The distinct shapes, and the letter of each layer's."""
    letters: dict[LayerShape, str] = {}
    known: dict[int, str] = {}
    pattern: list[str] = []
    for layer in layers:
        letter = known.get(id(layer))
        if letter is None:
            shape = LayerShape(caches=tuple(_bounded(cache) for block in layer.blocks for cache in block.caches))
            if shape not in letters and len(letters) == MAX_LAYER_SHAPES:
                invalid(f"config.json: its layers have more than {MAX_LAYER_SHAPES} different shapes of KV cache")
            letter = known[id(layer)] = letters.setdefault(shape, chr(ord("a") + len(letters)))
        pattern.append(letter)
    return {"layer_shapes": tuple(letters), "layer_pattern": "".join(pattern)}


def _bounded(cache: Cache) -> Cache:
    """The cache, if its dimensions are those of a model: some are products of what the configuration says."""
    for entry in fields(cache):
        value = getattr(cache, entry.name)
        if isinstance(value, int) and value > _MAX_DIMENSION:
            invalid(f"config.json: a layer would keep a state with {entry.name}={value}")
    return cache


def _widths(layers: tuple[Layer, ...]) -> tuple[int, ...]:
    widths = {width for layer in layers for block in layer.blocks for width in block.widths}
    if widths and max(widths) > _MAX_DIMENSION:
        invalid(f"config.json: a feed-forward block would be {max(widths)} wide")
    return tuple(sorted(widths)[-_MAX_WIDTHS:])


def _dtype(config: Mapping[str, Any], text: Fields) -> str | None:
    for document in (Fields(config), text):
        name = document.name(*_DTYPES)
        if name is not None:
            return name.removeprefix("torch.")
    return None


def _with_coverage(quantization: Quantization, sizes: Sizes) -> QuantizationFacts:
    return replace(
        quantization.facts,
        ignores_attention=Part.ATTENTION in sizes.left_out,
        ignores_shared_experts=Part.SHARED in sizes.left_out,
    )


def _guesses(text: Fields, made: Layers, quantization: Quantization | None, *, exact: bool) -> tuple[str, ...]:
    guesses = list(made.guesses)
    if quantization is not None and not exact:
        guesses += quantization.guesses
    keys = unknown_cache_keys(text.keys, {key: text.raw(key) for key in text.keys})
    if keys:
        guesses.append(f"not understood, and perhaps of weight for the KV cache: {', '.join(keys)}")
    return tuple(guess[:_MAX_GUESS] for guess in guesses[:_MAX_GUESSES])
