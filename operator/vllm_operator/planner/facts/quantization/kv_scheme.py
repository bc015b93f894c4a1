"""Data type of the KV cache that a checkpoint asks for (``utils/torch_utils.py: get_kv_cache_quant_algo_string``)."""

from __future__ import annotations

from typing import Final

from vllm_operator.planner.facts.fields import Fields

_ALGORITHMS: Final = {"fp8": "fp8", "fp8_e4m3": "fp8", "nvfp4": "nvfp4"}


def kv_cache_dtype(settings: Fields, method: str, *, inner: Fields | None = None) -> str | None:
    """``fp8``, ``nvfp4``, or None: the model's own type.

    ModelOpt's is used where ``quant_method`` names ModelOpt. compressed-tensors' ``kv_cache_scheme`` always means FP8
    (``layers/attention/attention.py``).
    """
    if method == "compressed-tensors":
        return "fp8" if settings.section("kv_cache_scheme") is not None else None
    if not method.startswith("modelopt"):
        return None
    for source in (inner, settings):
        if source is None:
            continue
        scheme = source.section("kv_cache_scheme")
        if scheme is not None:
            return _of_scheme(scheme)
        name = source.name("kv_cache_scheme", "kv_cache_quant_algo")
        if name is not None:
            return _ALGORITHMS.get(name.lower())
    return None


def _of_scheme(scheme: Fields) -> str | None:
    if scheme.name("type") != "float":
        return None
    bits = scheme.number("num_bits")
    if bits == 8 and scheme.raw("dynamic") is False:
        return "fp8"
    return "nvfp4" if bits == 4 else None
