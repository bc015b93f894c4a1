"""How far a prediction can be trusted."""

from __future__ import annotations

from typing import Final

from vllm_operator.planner.choice.candidate import Candidate
from vllm_operator.planner.choice.plan import Confidence
from vllm_operator.planner.choice.request import PlanRequest
from vllm_operator_api.model import ModelFacts

MODELLED_VLLM_VERSIONS: Final = frozenset({"0.32.0"})
"""Releases whose memory model this is (read in their source, compared with their own functions)."""


def confidence(facts: ModelFacts, candidate: Candidate, request: PlanRequest) -> Confidence:
    """Confidence in the prediction of one candidate."""
    demand = candidate.use.demand
    if facts.guesses or request.vllm_version not in MODELLED_VLLM_VERSIONS or (demand and not demand.exact):
        return Confidence.LOW
    if candidate.confirmed or request.settings.kv_cache_bytes is not None:
        return Confidence.HIGH
    return Confidence.MEDIUM
