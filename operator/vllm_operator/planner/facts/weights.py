"""Bytes of the weights: measured ones where they are known, split by the computed shares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from vllm_operator.planner.facts.architecture.blocks import Part
from vllm_operator.planner.facts.errors import invalid
from vllm_operator.planner.facts.parameters import Sizes
from vllm_operator_api.model import WeightFacts, WeightsSource

MAX_BYTES: Final = 10**15
"""Bound of ``WeightFacts``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedWeights:
    """What the files say about the weights."""

    total_bytes: int
    source: WeightsSource
    embedding_bytes: int | None = None
    head_bytes: int | None = None
    expert_bytes: int | None = None
    encoder_bytes: int | None = None
    """None: not told apart."""
    holds_speculative: bool = False
    """Whether the total includes layers for multi-token prediction: they are taken off by their computed size."""


def weight_facts(sizes: Sizes, measured: LoadedWeights | None) -> WeightFacts:
    """The bytes that vLLM loads, by category.

    Raises:
        ModelError: the total is no size that weights can have.
    """
    if measured is None:
        measured = LoadedWeights(total_bytes=max(1, sizes.total), source=WeightsSource.COMPUTED)
    if not 0 < measured.total_bytes <= MAX_BYTES:
        invalid(f"the weights would have {measured.total_bytes} bytes; no model has more than {MAX_BYTES}")
    total = measured.total_bytes
    if measured.holds_speculative:
        total -= min(sizes.speculative, total // 2)
    scale = total / max(1, sizes.total)

    def share(known: int | None, computed: int) -> int:
        return min(total, int(computed * scale) if known is None else known)

    return WeightFacts(
        total_bytes=total,
        source=measured.source,
        embedding_bytes=share(measured.embedding_bytes, sizes.parts[Part.EMBEDDING]),
        head_bytes=share(measured.head_bytes, sizes.parts[Part.HEAD]),
        expert_bytes=share(measured.expert_bytes, sizes.parts[Part.EXPERTS]),
        replicated_bytes=share(None, sizes.replicated),
        encoder_bytes=share(measured.encoder_bytes, sizes.parts[Part.ENCODER]),
    )
