"""Mistral's own ``params.json`` as the configuration that vLLM makes of it (``transformers_utils/configs/mistral.py``).

Models in that format have their weights in ``consolidated*.safetensors``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from vllm_operator.planner.facts.errors import invalid

_NAMES: Final = {
    "dim": "hidden_size", "n_kv_heads": "num_key_value_heads", "n_layers": "num_hidden_layers",
    "n_heads": "num_attention_heads", "hidden_dim": "intermediate_size", "tied_embeddings": "tie_word_embeddings",
}  # fmt: skip
_EXPERT_NAMES: Final = {
    "route_every_n": "moe_layer_freq", "first_k_dense_replace": "first_k_dense_replace",
    "num_experts_per_tok": "num_experts_per_tok", "num_experts": "n_routed_experts",
    "expert_hidden_dim": "moe_intermediate_size", "num_shared_experts": "n_shared_experts",
}  # fmt: skip
_DEFAULT_LENGTH: Final = 128_000


def is_mistral(params: Mapping[str, Any]) -> bool:
    """Whether this is such a document rather than a ``config.json``."""
    return "dim" in params and "n_layers" in params and "hidden_size" not in params


def from_mistral(params: Mapping[str, Any]) -> dict[str, Any]:
    """The document in the names of a ``config.json``.

    Raises:
        ModelError: it describes something that vLLM does not load either.
    """
    config = {_NAMES.get(key, key): value for key, value in params.items()}
    config.setdefault("max_position_embeddings", _DEFAULT_LENGTH)
    _sliding_window(config)
    _quantization(config)
    experts = params.get("moe")
    if isinstance(experts, dict):
        config |= {name: experts[key] for key, name in _EXPERT_NAMES.items() if experts.get(key) is not None}
        shared = bool(experts.get("num_shared_experts"))
        config["architectures"] = ["MistralLarge3ForCausalLM" if shared else "MixtralForCausalLM"]
        config["model_type"] = "deepseek_v3" if shared else "mixtral"
    else:
        config["architectures"] = ["MistralForCausalLM"]
        config["model_type"] = "deepseek_v3" if config.get("qk_nope_head_dim") else "mistral"
    config.setdefault("sliding_window", None)
    vision = _vision(params)
    if vision is None:
        return config
    config["vision_config"] = vision
    return {**config, "architectures": ["PixtralForConditionalGeneration"]}


def _sliding_window(config: dict[str, Any]) -> None:
    """A list has the window of each layer of a pattern that repeats, None for a full one."""
    window = config.get("sliding_window")
    if not isinstance(window, list):
        return
    layers = config.get("num_hidden_layers")
    widths = {entry for entry in window if isinstance(entry, int)}
    if not window or len(widths) > 1 or not isinstance(layers, int) or isinstance(layers, bool) or layers > 1024:
        invalid(f"params.json: sliding_window={str(window)[:50]} is not one window for some layers")
    config["layer_types"] = [
        "full_attention" if window[layer % len(window)] is None else "sliding_attention" for layer in range(layers)
    ]
    config["sliding_window"] = next(iter(widths), None)


def _quantization(config: dict[str, Any]) -> None:
    settings = config.pop("quantization", None)
    if not isinstance(settings, dict):
        return
    if settings.get("qformat_weight") == "fp8_e4m3":
        config["quantization_config"] = {"quant_method": "fp8", "activation_scheme": "static"}
    elif str(settings.get("quant_method", "")).lower().replace("_", "-") == "compressed-tensors":
        config["quantization_config"] = {**settings, "quant_method": "compressed-tensors"}
    else:
        invalid(f"params.json: the quantisation {str(settings)[:80]} is unknown; set spec.model.facts.weightsGiB")


def _vision(params: Mapping[str, Any]) -> dict[str, Any] | None:
    nested = params.get("multimodal")
    found = nested.get("vision_encoder_args") if isinstance(nested, dict) else None
    found = found or params.get("vision_encoder")
    return {**found, "hidden_act": "silu"} if isinstance(found, dict) else None
