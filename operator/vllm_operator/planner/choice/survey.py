"""All layouts on all pools: those that can be predicted, and why the others cannot run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from vllm_operator.planner.choice.candidate import Candidate, Evaluator
from vllm_operator.planner.choice.layouts import gpus_per_pod, layouts, power_of_two
from vllm_operator.planner.choice.legality import Legality
from vllm_operator.planner.choice.request import PlanRequest
from vllm_operator.planner.choice.score import preference, score
from vllm_operator.planner.constraints.check import Violation
from vllm_operator.planner.inventory.pool import GpuPool
from vllm_operator.planner.layout import Layout
from vllm_operator_api.model import ModelFacts

_LARGER_SHOWN: Final = 2


@dataclass(frozen=True, slots=True)
class Illegal:
    """A layout that vLLM refuses for this model."""

    pool: GpuPool
    layout: Layout
    violation: Violation


@dataclass(frozen=True, slots=True)
class Unable:
    """A pool whose accelerators cannot run the model at all."""

    pool: GpuPool
    violation: Violation


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What was looked at."""

    candidates: tuple[Candidate, ...]
    illegal: tuple[Illegal, ...]
    unable: tuple[Unable, ...]
    legal_tensor: tuple[int, ...]
    """All legal degrees up to the GPUs of the largest node."""


def survey(facts: ModelFacts, request: PlanRequest, pools: Sequence[GpuPool], evaluator: Evaluator) -> Survey:
    """Predict legal layouts on pools that can run the model, the preferred products and the fewest GPUs first.

    It ends with the first number of GPUs at which a layout fits with the margin, for no other can be better
    (``score``), and adds what the next larger ones on that pool would give, for the explanation.
    """
    illegal: list[Illegal] = []
    unable: list[Unable] = []
    legal: dict[tuple[int, int], list[tuple[GpuPool, Layout]]] = {}
    legality = Legality(facts, request.settings)
    for pool in pools:
        unable_because = legality.unable(pool.device)
        if unable_because is not None:
            unable.append(Unable(pool, unable_because))
            continue
        for layout in layouts(facts, request, pool, legality):
            broken = legality.violation(layout, pool.device)
            if broken is not None:
                illegal.append(Illegal(pool, layout, broken))
            else:
                legal.setdefault((preference(pool, request), layout.gpus), []).append((pool, layout))
        illegal += _usual_but_illegal(request, pool, legality)
    largest = max((gpus_per_pod(request, pool) for pool in pools), default=1)
    return Survey(
        candidates=tuple(_predicted(legal, request, evaluator)),
        illegal=tuple(illegal),
        unable=tuple(unable),
        legal_tensor=legality.legal_tensor(largest, pools[0].device) if pools else (),
    )


_Legal = dict[tuple[int, int], list[tuple[GpuPool, Layout]]]
"""Legal layouts by preference of the product and number of GPUs."""


def _predicted(legal: _Legal, request: PlanRequest, evaluator: Evaluator) -> list[Candidate]:
    candidates: list[Candidate] = []
    passed_over: list[tuple[GpuPool, Layout]] = []
    for level in sorted(legal):
        found: list[Candidate] = []
        for pool, layout in legal[level]:
            if _is_usual(layout) or not evaluator.is_hopeless(pool, layout):
                found.append(evaluator.candidate(pool, layout))
            else:
                passed_over.append((pool, layout))
        candidates += found
        trusted = [candidate for candidate in found if candidate.trusted]
        if trusted:
            best = min(trusted, key=lambda candidate: score(candidate, request))
            return [*candidates, *_beside(best, legal, level, evaluator)]
    if not any(candidate.use.fits for candidate in candidates):
        most = max((layout.gpus for _, layout in passed_over), default=0)
        candidates += [evaluator.candidate(pool, layout) for pool, layout in passed_over if layout.gpus == most]
    return candidates


def _is_usual(layout: Layout) -> bool:
    """Tensor parallelism alone: what users compare with, so it is always predicted and shown."""
    return layout.gpus == layout.tensor


def _beside(best: Candidate, legal: _Legal, level: tuple[int, int], evaluator: Evaluator) -> list[Candidate]:
    """The same layout on less preferred products, and the next larger ones on the same pool."""
    later = [(pool, layout) for other in sorted(legal) if other > level for pool, layout in legal[other]]
    same = [(pool, layout) for pool, layout in later if layout == best.layout]
    larger = [(pool, layout) for pool, layout in later if pool is best.pool and _is_usual(layout)]
    return [evaluator.candidate(pool, layout) for pool, layout in (*same, *larger[:_LARGER_SHOWN])]


def _usual_but_illegal(request: PlanRequest, pool: GpuPool, legality: Legality) -> list[Illegal]:
    """Powers of two that a user would expect and the model does not allow."""
    if request.given.anything:
        return []
    expected = (tensor for tensor in range(2, gpus_per_pod(request, pool) + 1) if power_of_two(tensor))
    found = ((Layout(tensor=tensor), legality.violation(Layout(tensor=tensor), pool.device)) for tensor in expected)
    return [Illegal(pool, layout, broken) for layout, broken in found if broken is not None]
