"""Why this layout, and why not the others, in a bounded number of words."""

from __future__ import annotations

from typing import Final

from vllm_operator.planner.choice.candidate import Candidate
from vllm_operator.planner.choice.layouts import power_of_two
from vllm_operator.planner.choice.request import PlanRequest
from vllm_operator.planner.choice.score import score
from vllm_operator.planner.choice.survey import Survey
from vllm_operator.planner.choice.words import gib, gib_up, requests
from vllm_operator.planner.layout import Layout
from vllm_operator.planner.problem import Considered

MAX_CONSIDERED: Final = 10
MAX_REASON: Final = 1024
_MAX_WHY: Final = 200
_ROOM_FOR_REFUSED: Final = 3


def reason(best: Candidate, tightest: Candidate, seen: Survey, request: PlanRequest) -> str:
    """One line: the choice, its memory, and what the next smaller one lacks."""
    use, layout = tightest.use, best.layout
    how = "is given and legal" if request.given.anything else _how(best)
    text = (
        f"{layout} {how}: per {tightest.pool.product} ({gib(tightest.pool.usable_bytes)} GiB usable) "
        f"{gib(use.weights_bytes)} GiB of weights and {gib(use.overhead_bytes)} GiB of overhead"
    )
    if use.demand is not None:
        length = request.settings.max_length_tokens
        text += f"; {gib(use.kv_available_bytes)} GiB of KV cache hold {requests(use.max_concurrency)} requests "
        text += f"of {length} tokens"
    if use.marginal:
        text += f"; it fits with less than the margin of {gib(use.margin_bytes)} GiB that predictions need"
    smaller = [
        candidate
        for candidate in seen.candidates
        if candidate.layout.gpus < layout.gpus and not candidate.trusted and candidate.pool is best.pool
    ]
    if smaller and not request.given.anything:
        before = max(smaller, key=lambda candidate: (candidate.layout.gpus, candidate.use.slack_bytes))
        text += f"; {before.layout} {why(before, request)}"
    return text[:MAX_REASON]


def _how(best: Candidate) -> str:
    if best.layout.gpus == 1:
        return "is enough"
    odd = not power_of_two(best.layout.tensor) or not power_of_two(best.layout.pipeline)
    kind = "cut" if odd else "cut in powers of two"
    return f"is the {kind} with the fewest GPUs ({best.layout.gpus}) that fits"


def why(candidate: Candidate, request: PlanRequest) -> str:
    """What speaks against a legal candidate that was not chosen."""
    use = candidate.use
    if not use.fits:
        if use.demand is not None and request.min_concurrency > 1 and use.max_concurrency >= 1:
            return (
                f"holds {requests(use.max_concurrency)} requests of full length, "
                f"fewer than concurrency.min={request.min_concurrency}"
            )
        return f"is short of {gib_up(use.shortfall_bytes)} GiB per GPU"
    if use.marginal:
        return f"fits, but {gib_up(-use.slack_bytes)} GiB of the margin of {gib(use.margin_bytes)} GiB are missing"
    return f"fits and needs {candidate.layout.gpus} GPU{'s' if candidate.layout.gpus > 1 else ''}"


def considered(best: Candidate | None, seen: Survey, request: PlanRequest) -> tuple[Considered, ...]:
    """At most ten: the chosen one, then legal ones by GPUs, then illegal ones and products that cannot run it."""
    chosen = [] if best is None else [_entry(best, "chosen")]
    others = [candidate for candidate in seen.candidates if candidate is not best]
    others.sort(key=lambda candidate: (candidate.layout.pipeline, candidate.layout.data, score(candidate, request)))
    refused = [_refused(i.pool.product, i.violation.message, i.layout) for i in seen.illegal]
    refused += [_refused(unable.pool.product, unable.violation.message, Layout()) for unable in seen.unable]
    room = MAX_CONSIDERED - len(chosen) - min(len(refused), _ROOM_FOR_REFUSED)
    entries = [*chosen, *(_entry(candidate, why(candidate, request)) for candidate in others[:room]), *refused]
    first_of = {(entry.layout, entry.product): entry for entry in reversed(entries)}
    return tuple(entry for entry in entries if first_of[entry.layout, entry.product] is entry)[:MAX_CONSIDERED]


def _entry(candidate: Candidate, text: str) -> Considered:
    return Considered(
        layout=candidate.layout, product=candidate.pool.product, fits=candidate.use.fits, reason=text[:_MAX_WHY]
    )


def _refused(product: str, message: str, layout: Layout) -> Considered:
    return Considered(layout=layout, product=product, fits=False, reason=message[:_MAX_WHY])
