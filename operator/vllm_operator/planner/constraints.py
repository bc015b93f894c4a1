"""Which tensor-parallel degrees vLLM can run a model at, and its own reason against the others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from vllm_operator_api.runtime import ModelFacts

MAX_TENSOR: Final = 64
"""Largest degree that a spec may give. A node may offer far more of a resource that is not whole GPUs."""
VOCABULARY_PADDING: Final = 64
"""vLLM pads the vocabulary to a multiple of this (``vocab_parallel_embedding.py``)."""


def attention_heads_rule(facts: ModelFacts, tensor: int) -> str | None:
    """C1: the attention heads are divided over the GPUs."""
    if facts.attention_heads % tensor:
        return f"the {facts.attention_heads} attention heads must be divisible by the tensor parallel size"
    return None


def kv_heads_rule(facts: ModelFacts, tensor: int) -> str | None:
    """C2: the KV heads are divided, or each is copied equally often. Latent attention has none to divide (C3)."""
    if facts.latent_dim is not None:
        return None
    if facts.kv_heads >= tensor:
        if facts.kv_heads % tensor:
            return f"the {facts.kv_heads} KV heads must be divisible by the tensor parallel size"
    elif tensor % facts.kv_heads:
        return f"a tensor parallel size above the {facts.kv_heads} KV heads must be a multiple of them"
    return None


def vocabulary_rule(facts: ModelFacts, tensor: int) -> str | None:
    """C4: the padded vocabulary is divided over the GPUs."""
    padded = -(-facts.vocab_size // VOCABULARY_PADDING) * VOCABULARY_PADDING
    if padded % tensor:
        return (
            f"the vocabulary of {facts.vocab_size}, padded to {padded}, must be divisible by the tensor parallel size"
        )
    return None


def intermediate_rule(facts: ModelFacts, tensor: int) -> str | None:
    """C5: the feed-forward layers are divided over the GPUs, dense ones and each expert."""
    if facts.intermediate_size is not None and facts.intermediate_size % tensor:
        return f"the intermediate size {facts.intermediate_size} must be divisible by the tensor parallel size"
    if facts.moe_intermediate_size is not None and facts.moe_intermediate_size % tensor:
        size = facts.moe_intermediate_size
        return f"the experts' intermediate size {size} must be divisible by the tensor parallel size"
    return None


RULES: Final[tuple[Callable[[ModelFacts, int], str | None], ...]] = (
    attention_heads_rule,
    kv_heads_rule,
    vocabulary_rule,
    intermediate_rule,
)


def broken_rule(facts: ModelFacts, tensor: int) -> str | None:
    """VLLM's reason against this degree, None when it is legal."""
    return next((broken for rule in RULES if (broken := rule(facts, tensor)) is not None), None)


def legal_degrees(facts: ModelFacts, largest: int) -> tuple[int, ...]:
    """All legal degrees up to ``largest`` (and to ``MAX_TENSOR``), ascending."""
    return tuple(degree for degree in range(1, min(largest, MAX_TENSOR) + 1) if broken_rule(facts, degree) is None)
