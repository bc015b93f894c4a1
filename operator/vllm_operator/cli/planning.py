"""What the planner says of one model, with the numbers that the command prints beside its verdict. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from vllm_operator.cli.options import MAX_LENGTH_TOKENS
from vllm_operator.planner.choice.candidate import Candidate, Evaluator
from vllm_operator.planner.choice.choose import choose
from vllm_operator.planner.choice.confidence import confidence
from vllm_operator.planner.choice.plan import Choice, Confidence
from vllm_operator.planner.choice.refusal import closest
from vllm_operator.planner.choice.remedies import longest_length
from vllm_operator.planner.choice.request import PlanRequest
from vllm_operator.planner.choice.survey import survey
from vllm_operator.planner.engine_settings import EngineSettings
from vllm_operator.planner.inventory.pool import GpuPool
from vllm_operator.planner.layout import Layout
from vllm_operator.planner.memory.use import MemoryUse
from vllm_operator.planner.problem import Considered, PlanProblem
from vllm_operator_api.conditions import Reason
from vllm_operator_api.model import ModelFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """Memory of one layout on one product."""

    layout: Layout
    product: str
    usable_bytes: int
    settings: EngineSettings
    use: MemoryUse
    confidence: Confidence
    longest_tokens: int
    """Longest request that would fit ``at_once`` times, and that the model allows; 0: none."""
    at_once: int
    """Requests of full length that must fit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanReport:
    """Everything that ``kubectl-llm plan`` prints."""

    reason: Reason
    message: str
    facts: ModelFacts | None = None
    """None: the model was not looked at, for something is wrong before that."""
    layout: Layout | None = None
    """None: nothing fits."""
    products: tuple[str, ...] = ()
    """On which the layout fits, the best first."""
    prediction: Prediction | None = None
    """Of the layout on the product with the least to spare; where nothing fits, of what comes closest."""
    legal_tensor: tuple[int, ...] = ()
    considered: tuple[Considered, ...] = ()

    @property
    def feasible(self) -> bool:
        """Whether there is a plan."""
        return self.layout is not None


def plan_report(
    facts: ModelFacts, request: PlanRequest, pools: Sequence[GpuPool], problem: PlanProblem | None = None
) -> PlanReport:
    """Choose among the pools, and tell the choice or why there is none.

    ``problem``: what forbids the model whatever fits; the memory is predicted all the same.
    """
    outcome = problem or choose(facts, request, pools)
    if isinstance(outcome, PlanProblem):
        return _refused(facts, request, pools, outcome)
    return PlanReport(
        reason=Reason.PLANNED,
        message=outcome.reason,
        facts=facts,
        layout=outcome.layout,
        products=tuple(dict.fromkeys(pool.product for pool in outcome.pools)),
        prediction=_prediction(facts, request, _chosen(outcome)),
        legal_tensor=outcome.legal_tensor,
        considered=outcome.considered,
    )


def _refused(facts: ModelFacts, request: PlanRequest, pools: Sequence[GpuPool], problem: PlanProblem) -> PlanReport:
    seen = survey(facts, request, pools, Evaluator(facts, request))
    return PlanReport(
        reason=problem.reason,
        message=problem.message,
        facts=facts,
        prediction=_prediction(facts, request, closest(seen)) if seen.candidates else None,
        legal_tensor=problem.legal_tensor or seen.legal_tensor,
        considered=problem.considered,
    )


def _chosen(choice: Choice) -> Candidate:
    return Candidate(
        pool=choice.planned_for, layout=choice.layout, settings=choice.settings, use=choice.use, confirmed=False
    )


def _prediction(facts: ModelFacts, request: PlanRequest, candidate: Candidate) -> Prediction:
    return Prediction(
        layout=candidate.layout,
        product=candidate.pool.product,
        usable_bytes=candidate.pool.usable_bytes,
        settings=candidate.settings,
        use=candidate.use,
        confidence=confidence(facts, candidate, request),
        longest_tokens=_longest(facts, request, candidate),
        at_once=request.min_concurrency,
    )


def _longest(facts: ModelFacts, request: PlanRequest, candidate: Candidate) -> int:
    """Beyond the length that is asked, too."""
    longest = facts.max_position_embeddings or MAX_LENGTH_TOKENS
    settings = replace(candidate.settings, max_length_tokens=min(longest, MAX_LENGTH_TOKENS))
    return longest_length(facts, request, replace(candidate, settings=settings))
