"""Facts of a model from its ``config.json``. Pure, and bounded: the document comes from the model's author."""

from __future__ import annotations

import json
from typing import Any, Final, NoReturn

from vllm_operator_api.conditions import Reason
from vllm_operator_api.runtime import ModelFacts

MAX_CONFIG_BYTES: Final = 8 * 1024 * 1024
"""Real ones have at most some ten KiB; indexes of sharded weights some MiB."""
_MAX_NUMBER: Final = 10**9
"""No dimension of any model comes near; a larger number is an error or an attack."""
_MAX_WEIGHTS_BYTES: Final = 10**15
_MAX_NAME: Final = 128
_MAX_SHARDS: Final = 20_000

_TEXT_CONFIGS: Final = ("text_config", "llm_config", "language_config", "thinker_config")
"""Where multimodal models keep the configuration of their language model."""
_EXTENDING_ROPE: Final = frozenset({"linear", "dynamic", "ntk"})
"""RoPE scalings whose factor multiplies the length (vLLM does the same); yarn multiplies the original length."""


class ModelError(Exception):
    """A fault of the model or of how it is named, as reason and message for a condition."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


def parse_json(text: bytes, what: str) -> dict[str, Any]:
    """A JSON object from a file of the model. The parser bounds its own depth and the length of numbers.

    Raises:
        ModelError: it is too large, too deep, not JSON, or not an object.
    """
    if len(text) > MAX_CONFIG_BYTES:
        _invalid(f"{what} has {len(text)} bytes; at most {MAX_CONFIG_BYTES} are read")
    try:
        document = json.loads(text)
    except RecursionError:
        _invalid(f"{what} is nested too deep")
    except ValueError as error:
        _invalid(f"{what} is not JSON: {str(error)[:200]}")
    if not isinstance(document, dict):
        _invalid(f"{what} is not a JSON object")
    return document


def index_shards(index: dict[str, Any], what: str) -> tuple[str, ...]:
    """Names of the files that a ``model.safetensors.index.json`` names, sorted.

    Raises:
        ModelError: there are none or too many, or a name is no plain file name.
    """
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        _invalid(f"{what} has no weight_map")
    names = set(weight_map.values())
    if len(names) > _MAX_SHARDS:
        _invalid(f"{what} names {len(names)} files; at most {_MAX_SHARDS} are read")
    for name in names:
        if not isinstance(name, str) or not name or len(name) > 255 or name.startswith(".") or set(name) & set("/\\\0"):
            _invalid(f"{what} names a file {str(name)[:100]!r}, which is not a plain file name")
    return tuple(sorted(names))


def model_facts(config: dict[str, Any], *, weights_bytes: int, source: str, revision: str | None = None) -> ModelFacts:
    """The facts that the planner needs.

    Missing values are as vLLM takes them: ``head_dim`` = hidden size / heads, KV heads = heads.

    Raises:
        ModelError: something essential is missing or absurd.
    """
    if not 0 < weights_bytes < _MAX_WEIGHTS_BYTES:
        _invalid(f"the weights have {weights_bytes} bytes")
    text = _text_config(config)
    hidden_size = _required(text, "hidden_size", "n_embd", "d_model", "dim")
    heads = _required(text, "num_attention_heads", "n_head", "n_heads", "num_heads")
    latent_rank = _number(text, "kv_lora_rank")
    return ModelFacts(
        source=source,
        architecture=_architecture(config, text),
        model_type=_name(config.get("model_type")),
        hidden_size=hidden_size,
        layers=_layers(text),
        attention_heads=heads,
        kv_heads=_kv_heads(text, heads),
        head_dim=_number(text, "head_dim") or max(1, hidden_size // heads),
        latent_dim=None if latent_rank is None else latent_rank + (_number(text, "qk_rope_head_dim") or 0),
        intermediate_size=_intermediate_size(text),
        moe_intermediate_size=_moe_intermediate_size(text),
        experts_per_token=_number(text, "num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_top_k"),
        vocab_size=_required_anywhere(config, text, "vocab_size"),
        max_position_embeddings=_longest(text),
        dtype=_dtype(config, text),
        quantization=_quantization(config, text),
        weights_bytes=weights_bytes,
        revision=revision,
    )


def _text_config(config: dict[str, Any]) -> dict[str, Any]:
    text = config
    for _ in range(3):  # thinker_config holds a text_config
        inner = next((text[key] for key in _TEXT_CONFIGS if isinstance(text.get(key), dict)), None)
        if inner is None:
            break
        text = inner
    return text


def _architecture(config: dict[str, Any], text: dict[str, Any]) -> str:
    for names in (config.get("architectures"), text.get("architectures")):
        if isinstance(names, list) and names and (name := _name(names[0])) is not None:
            return name
    return _invalid("config.json names no architecture (architectures): vLLM would not know which model it is")


def _layers(text: dict[str, Any]) -> int:
    layers = _number(text, "num_hidden_layers", "n_layer", "n_layers", "num_layers")
    if layers is not None:
        return layers
    for key in ("layers_block_type", "layer_types", "hybrid_override_pattern"):
        value = text.get(key)
        if isinstance(value, list | str) and 0 < len(value) < _MAX_NUMBER:
            return len(value)
    return _invalid("config.json has no num_hidden_layers")


def _kv_heads(text: dict[str, Any], heads: int) -> int:
    given = _number(text, "num_key_value_heads", "num_kv_heads", "n_head_kv", "multi_query_group_num")
    if given is not None:
        return given
    return 1 if text.get("multi_query") is True else heads


def _intermediate_size(text: dict[str, Any]) -> int | None:
    value = text.get("intermediate_size")
    if isinstance(value, list):  # one per layer
        value = max((entry for entry in value if isinstance(entry, int)), default=None)
        return _checked("intermediate_size", value)
    return _number(text, "intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size")


def _moe_intermediate_size(text: dict[str, Any]) -> int | None:
    given = _number(text, "moe_intermediate_size", "expert_intermediate_size")
    if given is not None:
        return given
    has_experts = _number(text, "num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
    return _intermediate_size(text) if has_experts else None


def _longest(text: dict[str, Any]) -> int | None:
    longest = _number(
        text, "max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "max_sequence_length"
    )
    scaling = text.get("rope_scaling") or text.get("rope_parameters")
    if longest is None or not isinstance(scaling, dict):
        return longest
    kind, factor = scaling.get("rope_type", scaling.get("type")), scaling.get("factor")
    if not isinstance(factor, int | float) or isinstance(factor, bool) or not 1 <= factor <= 1024:
        return longest
    if kind == "yarn":
        original = _number(scaling, "original_max_position_embeddings")
        return max(longest, int(original * factor)) if original is not None else int(longest * factor)
    return int(longest * factor) if kind in _EXTENDING_ROPE else longest


def _dtype(config: dict[str, Any], text: dict[str, Any]) -> str | None:
    for document in (text, config):
        for key in ("dtype", "torch_dtype"):
            if (name := _name(document.get(key))) is not None:
                return name.removeprefix("torch.")
    return None


def _quantization(config: dict[str, Any], text: dict[str, Any]) -> str | None:
    for document in (config, text):
        settings = document.get("quantization_config") or document.get("compression_config")
        if isinstance(settings, dict):
            return _name(settings.get("quant_method")) or _name(settings.get("quant_algo")) or "unknown"
    return None


def _required(document: dict[str, Any], *keys: str) -> int:
    number = _number(document, *keys)
    if number is None:
        _invalid(f"config.json has no {keys[0]}")
    return number


def _required_anywhere(config: dict[str, Any], text: dict[str, Any], key: str) -> int:
    number = _number(text, key) or _number(config, key)
    if number is None:
        _invalid(f"config.json has no {key}")
    return number


def _number(document: dict[str, Any], *keys: str) -> int | None:
    """The first of these keys that has a value, checked to be a sensible positive number."""
    for key in keys:
        value = document.get(key)
        if value is not None:
            return _checked(key, value)
    return None


def _checked(key: str, value: Any) -> int | None:
    if value is None:
        return None
    if isinstance(value, float) and value.is_integer() and abs(value) <= _MAX_NUMBER:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= _MAX_NUMBER:
        _invalid(f"config.json: {key}={str(value)[:50]} is not a number from 1 to {_MAX_NUMBER}")
    return value


def _name(value: Any) -> str | None:
    if not isinstance(value, str) or not value:
        return None
    if len(value) > _MAX_NAME or not value.isprintable():
        _invalid(f"config.json holds a name that is too long or not printable: {value[:50]!r}")
    return value


def _invalid(message: str) -> NoReturn:
    raise ModelError(Reason.MODEL_CONFIG_INVALID, message)
