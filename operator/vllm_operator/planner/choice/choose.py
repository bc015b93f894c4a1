"""The decision: the best layout and the pools it may run on, or why there is none."""

from __future__ import annotations

from collections.abc import Sequence

from vllm_operator.planner.choice.candidate import Candidate, Evaluator
from vllm_operator.planner.choice.confidence import confidence
from vllm_operator.planner.choice.explain import considered, reason
from vllm_operator.planner.choice.plan import Choice
from vllm_operator.planner.choice.request import PlanRequest
from vllm_operator.planner.choice.score import room, score
from vllm_operator.planner.choice.survey import Survey, survey
from vllm_operator.planner.inventory.pool import GpuPool
from vllm_operator.planner.problem import PlanProblem
from vllm_operator_api.model import ModelFacts


def choose(facts: ModelFacts, request: PlanRequest, pools: Sequence[GpuPool]) -> Choice | PlanProblem:
    """Choose for a model among ``pools`` (all of ``request.resource_name``, at least one). Pure.

    Trusted candidates come first; one that fits only without the margin is taken when there is no other.
    """
    allowed = [pool for pool in pools if not request.products or pool.product in request.products]
    seen = survey(facts, request, allowed, Evaluator(facts, request))
    best = _best(seen, request)
    if best is None:
        from vllm_operator.planner.choice.refusal import refuse  # tables of products and remedies: most plans need none

        return refuse(facts, request, pools, seen)
    alternatives = _alternatives(best, seen, request)
    tightest = min(alternatives, key=lambda candidate: (candidate.use.slack_bytes, candidate.pool.product))
    return Choice(
        layout=best.layout,
        settings=best.settings,
        pools=tuple(candidate.pool for candidate in alternatives),
        planned_for=tightest.pool,
        use=tightest.use,
        legal_tensor=seen.legal_tensor,
        considered=considered(best, seen, request),
        reason=reason(best, tightest, seen, request),
        confidence=confidence(facts, tightest, request),
    )


def _best(seen: Survey, request: PlanRequest) -> Candidate | None:
    trusted = [candidate for candidate in seen.candidates if candidate.trusted]
    if trusted:
        return min(trusted, key=lambda candidate: score(candidate, request))
    fitting = [candidate for candidate in seen.candidates if candidate.use.fits]
    return min(fitting, key=lambda candidate: room(candidate, request), default=None)


def _alternatives(best: Candidate, seen: Survey, request: PlanRequest) -> list[Candidate]:
    """The candidates with the same layout and settings that are as good a fit, the best first."""
    same = [
        candidate
        for candidate in seen.candidates
        if candidate.layout == best.layout
        and candidate.settings == best.settings
        and candidate.use.fits
        and candidate.trusted == best.trusted
        and candidate.pool.device.vendor == best.pool.device.vendor
    ]
    return sorted(same, key=lambda candidate: score(candidate, request))
