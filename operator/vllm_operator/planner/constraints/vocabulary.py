"""C4: tensor parallelism cuts the embedding and the output projection along the vocabulary."""

from __future__ import annotations

from typing import Final

from vllm_operator.planner.constraints.rule import Case, uneven

PADDING: Final = 64
"""``DEFAULT_VOCAB_PADDING_SIZE`` of ``model_executor/layers/vocab_parallel_embedding.py``."""


def vocabulary(case: Case) -> str | None:
    """The padded vocabulary is divided (``vocab_parallel_embedding.py:301``); powers of two up to 64 always do."""
    padded = -(-case.facts.vocab_size // PADDING) * PADDING
    if padded % case.tensor:
        return uneven(f"the vocabulary of {case.facts.vocab_size} tokens, padded to {padded},", case.tensor)
    return None
