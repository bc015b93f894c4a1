"""How the checkpoint's weights are quantised: what vLLM reads in ``quantization_config`` and its like."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from vllm_operator.planner.facts.errors import invalid
from vllm_operator.planner.facts.fields import Fields
from vllm_operator.planner.facts.quantization.kv_scheme import kv_cache_dtype
from vllm_operator.planner.facts.quantization.rules import Rules, rules_of
from vllm_operator.planner.facts.quantization.schemes import (
    FP8,
    FP8_PER_CHANNEL,
    MXFP4,
    MXFP8,
    NVFP4,
    Scheme,
    fp8_block,
    integer,
)
from vllm_operator_api.model import QuantizationFacts

_IGNORE_LISTS: Final = (
    "ignore",
    "modules_to_not_convert",
    "exclude_modules",
    "ignored_layers",
    "llm_int8_skip_modules",
)
_ALGORITHMS: Final[Mapping[str, tuple[str, Scheme]]] = {
    "FP8": ("modelopt", FP8),
    "FP8_PER_CHANNEL_PER_TOKEN": ("modelopt", FP8_PER_CHANNEL),
    "FP8_PB_WO": ("modelopt", fp8_block(128, 128)),
    "NVFP4": ("modelopt_fp4", NVFP4),
    "W4A16_NVFP4": ("modelopt_fp4", NVFP4),
    "MXFP8": ("modelopt_mxfp8", MXFP8),
    "MXFP4": ("mxfp4", MXFP4),
    "W4A16_AWQ": ("modelopt", integer(4, 128, zero_points=False)),
    "W4A8_AWQ": ("modelopt", integer(4, 128, zero_points=False)),
}
"""``quant_algo`` of ModelOpt: vLLM's method and the scheme of a weight (``layers/quantization/modelopt.py``)."""
_WEIGHT_ONLY: Final = frozenset({"W4A16_NVFP4", "W4A16_AWQ"})
_FP4_EXPERTS: Final = ("deepseek_v4", "deepseek_v41")
_MIXED: Final = "MIXED_PRECISION"


class Quantization:
    """What is known of a model's quantisation: its facts, and the scheme of each weight."""

    def __init__(self, facts: QuantizationFacts, rules: Rules, guesses: list[str]) -> None:
        self.facts = facts
        self.rules = rules
        self.guesses = guesses


def quantization_of(
    config: Mapping[str, Any], text: Fields, hf_quant_config: Mapping[str, Any] | None = None
) -> Quantization | None:
    """The quantisation of the checkpoint; None: it is not quantised.

    ``hf_quant_config`` is the content of ``hf_quant_config.json``, which ModelOpt writes beside the configuration;
    vLLM reads it where the configuration itself says nothing.
    """
    settings = _settings(config, text, hf_quant_config)
    if settings is None:
        return None
    inner = settings.section("quantization")
    if inner is not None and inner.name("quant_algo") is not None:
        return _modelopt(inner, settings)
    algorithm = (settings.name("quant_algo") or "").upper()
    method = (settings.name("quant_method") or "").lower().replace("compressed_tensors", "compressed-tensors")
    if method.startswith("modelopt") or (not method and algorithm):
        return _modelopt(settings, settings)
    return _by_method(method, settings, text)


def _settings(config: Mapping[str, Any], text: Fields, separate: Mapping[str, Any] | None) -> Fields | None:
    for document in (Fields(config), text):
        found = document.section("quantization_config", "compression_config")
        if found is not None:
            return found
    return None if separate is None else Fields(separate, "hf_quant_config.json")


def _by_method(method: str, settings: Fields, text: Fields) -> Quantization:
    if method == "compressed-tensors":
        return _compressed_tensors(settings)
    if method in ("fp8", "fbgemm_fp8", "deepseek_v4_fp8"):
        return _fp8(method, settings, text)
    if method in ("awq", "awq_marlin", "auto_awq", "gptq", "gptq_marlin", "auto_gptq", "auto-round", "inc"):
        return _integer_groups(method, settings)
    if method in ("mxfp4", "gpt_oss_mxfp4"):
        rules = rules_of(MXFP4, ignored=_ignored(settings), only_experts=True)
        return _made(QuantizationFacts(method="mxfp4", weight_bits=4, group_size=32), rules)
    if method == "bitsandbytes":
        return _bitsandbytes(settings)
    if method == "quark":
        return _quark(settings)
    bits = settings.number("bits", "w_bit", "num_bits")
    if bits is None or bits > 32:
        invalid(
            f"config.json: the quantisation quant_method={method[:40] or '-'} is unknown and says no bits; "
            "set spec.model.facts.weightsGiB"
        )
    guess = f"the quantisation {method[:40] or '-'} is unknown; every weight is taken with {bits} bits"
    rules = rules_of(Scheme(bits=bits), ignored=_ignored(settings))
    return _made(QuantizationFacts(method=method or "unknown", weight_bits=bits), rules, [guess])


def _fp8(method: str, settings: Fields, text: Fields) -> Quantization:
    """``layers/quantization/fp8.py``; experts of DeepSeek-V4 may be FP4 (``models/deepseek_v4/quant_config.py``)."""
    edges = settings.numbers("weight_block_size")
    if edges is not None and (len(edges) != 2 or min(edges) < 1):
        invalid(f"config.json: weight_block_size={edges!s:.50} is not two numbers from 1")
    block = (edges[0], edges[1]) if edges else None
    scheme = fp8_block(*block) if block else (FP8_PER_CHANNEL if method == "fbgemm_fp8" else FP8)
    experts = None
    if text.name("model_type") in _FP4_EXPERTS and (text.name("expert_dtype") or "fp4") == "fp4":
        experts = NVFP4 if (settings.name("moe_quant_algo") or "").upper() == "NVFP4" else MXFP4
    ignored = [] if experts is not None else _ignored(settings)
    rules = rules_of(scheme, ignored=ignored, experts=experts)
    facts = QuantizationFacts(
        method="fp8" if method != "fbgemm_fp8" else method, weight_bits=8, activation_bits=8, block=block,
        kv_cache_dtype=kv_cache_dtype(settings, method),
    )  # fmt: skip
    return _made(facts, rules)


def _integer_groups(method: str, settings: Fields) -> Quantization:
    bits = settings.number("bits", "w_bit") or 4
    if bits > 16:
        invalid(f"config.json: {method} with bits={bits}")
    raw = settings.raw("group_size") if "group_size" in settings else settings.raw("q_group_size")
    group = None if raw == -1 else settings.number("group_size", "q_group_size") or 128
    symmetric = settings.flag("sym", default=method.startswith(("gptq", "auto")))
    rules = rules_of(integer(bits, group, zero_points=not symmetric or "gptq" in method), ignored=_ignored(settings))
    name = "awq" if "awq" in method else "gptq" if "gptq" in method else method
    return _made(QuantizationFacts(method=name, weight_bits=bits, group_size=group), rules)


def _bitsandbytes(settings: Fields) -> Quantization:
    """4 bits with a scale per 64, or 8 bits with one per row."""
    four = settings.flag("load_in_4bit", default=not settings.flag("load_in_8bit"))
    scheme = Scheme(bits=4, group=64, scale_bytes=1) if four else Scheme(bits=8, scale_bytes=4)
    rules = rules_of(scheme, ignored=_ignored(settings))
    return _made(QuantizationFacts(method="bitsandbytes", weight_bits=scheme.bits), rules)


def _quark(settings: Fields) -> Quantization:
    """AMD Quark: the global scheme of weights (``layers/quantization/quark``)."""
    everywhere = settings.section("global_quant_config")
    weight = everywhere.section("weight") if everywhere is not None else None
    dtype = (weight.name("dtype") if weight is not None else None) or ""
    scheme = {"fp8_e4m3": FP8, "int8": FP8_PER_CHANNEL, "fp4": MXFP4, "int4": integer(4, 128, zero_points=True)}.get(
        dtype
    )
    guesses = []
    if scheme is None:
        scheme, guesses = FP8, [f"the quark data type {dtype[:40] or '-'} is unknown; 8 bits are assumed"]
    rules = rules_of(scheme, ignored=_strings(settings, "exclude"))
    return _made(QuantizationFacts(method="quark", weight_bits=scheme.bits), rules, guesses)


def _compressed_tensors(settings: Fields) -> Quantization:
    """``layers/quantization/compressed_tensors``: groups of targets, each with a scheme of its weights."""
    groups = settings.section("config_groups")
    chosen: list[tuple[list[str], Scheme]] = []
    bits, activations, group_size, block = 16, None, None, None
    for name in list(groups.keys)[:64] if groups is not None else []:
        entry = groups.section(name) if groups is not None else None
        weights = entry.section("weights") if entry is not None else None
        if entry is None or weights is None:
            continue
        scheme = _tensor_scheme(weights, entry.name("format") or settings.name("format") or "")
        inputs = entry.section("input_activations")
        if scheme.bits < bits:
            bits, group_size, block = scheme.bits, scheme.group, scheme.block
            activations = inputs.number("num_bits") if inputs is not None else None
        chosen.append((_strings(entry, "targets"), scheme))
    if not chosen:
        invalid("config.json: quantization_config of compressed-tensors has no weights in its config_groups")
    facts = QuantizationFacts(
        method="compressed-tensors", weight_bits=bits, activation_bits=_bits(activations), group_size=group_size,
        block=block, kv_cache_dtype=kv_cache_dtype(settings, "compressed-tensors"),
    )  # fmt: skip
    by_class = [scheme for targets, scheme in chosen if any("." not in target for target in targets)]
    targets = {target: scheme for names, scheme in chosen for target in names if "." in target}
    return _made(facts, rules_of(by_class[0] if by_class else None, ignored=_ignored(settings), named=targets))


def _tensor_scheme(weights: Fields, form: str) -> Scheme:
    bits = weights.number("num_bits") or 8
    if bits > 16:
        invalid(f"config.json: quantization_config with num_bits={bits}")
    group = weights.number("group_size") if weights.raw("group_size") != -1 else None
    if form.startswith("mxfp4"):
        return MXFP4
    if form.startswith("nvfp4") or (weights.name("type") == "float" and bits == 4):
        return Scheme(bits=4, group=group or 16, scale_bytes=1)
    edges = weights.numbers("block_structure") if isinstance(weights.raw("block_structure"), list) else None
    if edges is not None and len(edges) == 2 and min(edges) > 0:
        return fp8_block(edges[0], edges[1])
    if bits >= 8:
        return FP8 if weights.name("strategy") == "tensor" else FP8_PER_CHANNEL
    return integer(bits, group, zero_points=not weights.flag("symmetric", default=True))


def _modelopt(settings: Fields, outer: Fields) -> Quantization:
    """``layers/quantization/modelopt.py``: one algorithm for all, or one per module (mixed precision)."""
    algorithm = (settings.name("quant_algo") or "").upper()
    ignored = _ignored(settings) or _ignored(outer)
    kv_cache = kv_cache_dtype(outer, outer.name("quant_method") or "", inner=settings)
    if algorithm == _MIXED:
        named = _named_algorithms(settings)
        rules = rules_of(None, ignored=ignored, named=named)
        bits = min((scheme.bits for scheme in named.values()), default=8)
        facts = QuantizationFacts(
            method="modelopt_mixed", weight_bits=bits, activation_bits=bits,
            group_size=min((s.group for s in named.values() if s.group and s.bits == bits), default=None),
            kv_cache_dtype=kv_cache,
        )  # fmt: skip
        return _made(facts, rules)
    known = _ALGORITHMS.get(algorithm)
    if known is None:
        invalid(
            f"the ModelOpt quantisation quant_algo={algorithm[:40] or '-'} is unknown; set spec.model.facts.weightsGiB"
        )
    method, scheme = known
    group = settings.number("group_size")
    if group is not None and scheme.group is not None:
        scheme = Scheme(bits=scheme.bits, group=group, scale_bytes=scheme.scale_bytes, zero_bits=scheme.zero_bits)
    facts = QuantizationFacts(
        method=method, weight_bits=scheme.bits,
        activation_bits=None if algorithm in _WEIGHT_ONLY else min(8, scheme.bits),
        group_size=scheme.group, block=scheme.block, kv_cache_dtype=kv_cache,
    )  # fmt: skip
    return _made(facts, rules_of(scheme, ignored=ignored))


def _named_algorithms(settings: Fields) -> dict[str, Scheme]:
    layers = settings.section("quantized_layers")
    if layers is None:
        invalid("config.json: the ModelOpt quantisation MIXED_PRECISION has no quantized_layers")
    schemes: dict[str, Scheme] = {}
    for name in layers.keys:
        entry = layers.raw(name)
        algorithm = entry.get("quant_algo") if isinstance(entry, dict) else None
        known = _ALGORITHMS.get(algorithm.upper()) if isinstance(algorithm, str) else None
        if known is not None:
            schemes[name] = known[1]
    return schemes


def _ignored(settings: Fields) -> list[str]:
    for key in _IGNORE_LISTS:
        found = _strings(settings, key)
        if found:
            return found
    return []


def _strings(settings: Fields, key: str) -> list[str]:
    value = settings.raw(key)
    return [entry for entry in value if isinstance(entry, str)] if isinstance(value, list) else []


def _bits(number: int | None) -> int | None:
    return number if number is not None and number <= 32 else None


def _made(facts: QuantizationFacts, rules: Rules, guesses: list[str] | None = None) -> Quantization:
    return Quantization(facts, rules, [*(guesses or []), *rules.guesses])
