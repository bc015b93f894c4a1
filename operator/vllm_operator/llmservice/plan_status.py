"""The planner's choice as the user reads it in ``status.plan``. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from vllm_operator.planner.choice.plan import Choice
from vllm_operator.planner.choice.words import gib, requests
from vllm_operator.planner.problem import Considered, PlanProblem
from vllm_operator.planner.record import PlanRecord
from vllm_operator_api.model import ModelFacts
from vllm_operator_api.v1alpha1.llmservice_status import CandidateStatus, PlanStatus, PredictedUse


def plan_status(choice: Choice, facts: ModelFacts) -> PlanStatus:
    """What was chosen, why, and what is expected of it."""
    use, layout = choice.use, choice.layout
    keeps_cache = use.demand is not None
    return PlanStatus(
        tensor=layout.tensor,
        pipeline=layout.pipeline,
        data=layout.data,
        gpus=layout.gpus,
        nodes=layout.nodes,
        product=", ".join(dict.fromkeys(pool.product for pool in choice.pools))[:253],
        max_length=choice.settings.max_length_tokens,
        architecture=facts.architecture,
        reason=choice.reason,
        confidence=choice.confidence.value,
        facts_from=facts_from(facts)[:512],
        legal_tensor=list(choice.legal_tensor),
        predicted=PredictedUse(
            weights_gib=gib(use.weights_bytes),
            overhead_gib=gib(use.overhead_bytes),
            kv_cache_gib=gib(use.kv_available_bytes) if keeps_cache else None,
            kv_cache_tokens=use.kv_tokens if keeps_cache else None,
            max_concurrency=requests(use.max_concurrency) if keeps_cache else None,
        ),
        candidates=candidates_status(choice.considered),
    )


def bare_status(record: PlanRecord) -> PlanStatus:
    """What a kept plan says by itself, where its explanation is lost."""
    layout = record.layout
    return PlanStatus(
        tensor=layout.tensor,
        pipeline=layout.pipeline,
        data=layout.data,
        gpus=layout.gpus,
        nodes=layout.nodes,
        product=", ".join(record.products)[:253],
        reason=f"{layout} was planned before",
    )


def refused_plan(problem: PlanProblem) -> PlanStatus:
    """What was looked at before it turned out that nothing fits."""
    return PlanStatus(legal_tensor=list(problem.legal_tensor) or None, candidates=candidates_status(problem.considered))


def candidates_status(considered: Iterable[Considered]) -> list[CandidateStatus]:
    """What was looked at."""
    return [
        CandidateStatus(
            tensor=entry.layout.tensor,
            pipeline=entry.layout.pipeline,
            data=entry.layout.data,
            product=entry.product[:253],
            fits=entry.fits,
            reason=entry.reason[:256],
        )
        for entry in considered
    ]


def facts_from(facts: ModelFacts) -> str:
    """Where the model's numbers come from, and what had to be guessed."""
    weights = {"given": "as given", "computed": "computed from the configuration"}
    how = weights.get(facts.weights.source.value, f"from {facts.weights.source.value}")
    guessed = f"; guessed: {'; '.join(facts.guesses)}" if facts.guesses else ""
    return f"{facts.source}; weights {how}{guessed}"
