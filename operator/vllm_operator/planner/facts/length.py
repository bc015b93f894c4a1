"""Longest context that the configuration allows (``config/model.py: _get_and_verify_max_len``)."""

from __future__ import annotations

from typing import Any, Final

from vllm_operator.planner.facts.fields import Fields

_KEYS: Final = (
    "max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "model_max_length", "max_target_positions",
    "max_sequence_length", "max_seq_length", "seq_len",
)  # fmt: skip
_UNSCALED: Final = frozenset(
    {"su", "longrope", "llama3", "yarn", "deepseek_yarn", "deepseek_llama_scaling", "default", "mrope", "proportional"}
)
"""RoPE types whose ``max_position_embeddings`` is already the scaled one."""
_MAX_FACTOR: Final = 1024
_MAX_TOKENS: Final = 2**40


def longest_context(text: Fields) -> int | None:
    """Tokens; None: the configuration does not say (vLLM then takes 2048)."""
    lengths = [number for key in _KEYS if (number := text.number(key)) is not None]
    if not lengths:
        return None
    longest = text.number("model_max_length") or min(lengths)
    if "gemma3" in (text.name("model_type") or ""):  # already scaled
        return longest
    return min(_MAX_TOKENS, int(longest * _factor(text.raw("rope_scaling"), text.raw("rope_parameters"))))


def _factor(*documents: Any) -> float:
    for document in documents:
        if not isinstance(document, dict):
            continue
        nested = [value for value in document.values() if isinstance(value, dict)]
        for rope in [*nested, document]:
            kind, factor = rope.get("rope_type", rope.get("type")), rope.get("factor")
            if not isinstance(kind, str) or kind in _UNSCALED or isinstance(factor, bool):
                continue
            if isinstance(factor, int | float) and 1 <= factor <= _MAX_FACTOR:
                return float(factor)
    return 1.0
