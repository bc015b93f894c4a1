"""Why nothing can be chosen, with what would help: the message of a condition."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from vllm_operator.planner.choice.candidate import Candidate, Evaluator
from vllm_operator.planner.choice.explain import considered
from vllm_operator.planner.choice.layouts import gpus_per_pod
from vllm_operator.planner.choice.remedies import remedies
from vllm_operator.planner.choice.request import PlanRequest
from vllm_operator.planner.choice.survey import Survey
from vllm_operator.planner.choice.words import degrees, gib, gib_up, requests
from vllm_operator.planner.constraints.check import violations
from vllm_operator.planner.inventory.pool import GpuPool
from vllm_operator.planner.layout import Layout
from vllm_operator.planner.problem import PlanProblem
from vllm_operator_api.conditions import Reason
from vllm_operator_api.model import ModelFacts

MAX_MESSAGE: Final = 1024
_MAX_REPLICAS: Final = 64
"""Of ``scaling.minReplicas``."""
_RULES_OF_TENSOR: Final = frozenset({"C0", "C1", "C2", "C3", "C4", "C5", "C6", "C6b", "C7", "C8"})


def refuse(facts: ModelFacts, request: PlanRequest, pools: Sequence[GpuPool], seen: Survey) -> PlanProblem:
    """The problem, by what has to be mended first: products, legality, hardware, concurrency, memory."""
    allowed = [pool for pool in pools if not request.products or pool.product in request.products]
    problem = (
        _no_such_product(request, pools, allowed)
        or _unsupported(seen, allowed)
        or _given_illegal(facts, request, allowed, seen)
        or _given_too_large(request, allowed, seen)
        or _nothing_legal(seen)
        or _concurrency(facts, request, seen)
        or _memory(facts, request, seen)
    )
    return PlanProblem(
        problem.reason, problem.message[:MAX_MESSAGE], considered(None, seen, request), seen.legal_tensor
    )


def _no_such_product(request: PlanRequest, pools: Sequence[GpuPool], allowed: Sequence[GpuPool]) -> PlanProblem | None:
    if allowed:
        return None
    there = ", ".join(dict.fromkeys(pool.product for pool in pools))
    return PlanProblem(
        Reason.NO_ACCELERATOR_NODES,
        f"no node has one of accelerator.products={', '.join(request.products)}; nodes with {request.resource_name} "
        f"have: {there}; correct the list, or leave it out",
    )


def _given_illegal(
    facts: ModelFacts, request: PlanRequest, allowed: Sequence[GpuPool], seen: Survey
) -> PlanProblem | None:
    """The degrees that the user has set break a rule of vLLM's on every pool."""
    given = request.given
    if not given.anything:
        return None
    layout = Layout(
        tensor=given.tensor or 1,
        pipeline=given.pipeline or 1,
        data=given.data or 1,
        expert_parallel=bool(given.expert_parallel),
    )
    broken = [violations(facts, layout, request.settings, pool.device) for pool in allowed]
    if not broken or not all(broken):
        return None
    what_to_do = "correct it, or set it to 'auto'"
    if broken[0][0].rule in _RULES_OF_TENSOR:
        what_to_do = f"legal tensor degrees here: {degrees(seen.legal_tensor)}; set one of them, or 'auto'"
    return PlanProblem(
        Reason.INVALID_PARALLELISM,
        f"parallelism {layout} is illegal for this model: {broken[0][0].message}; {what_to_do}",
    )


def _unsupported(seen: Survey, allowed: Sequence[GpuPool]) -> PlanProblem | None:
    if len(seen.unable) < len(allowed):
        return None
    by_product = {unable.pool.product: unable.violation.message for unable in seen.unable}
    told = "; ".join(f"{product}: {message}" for product, message in list(by_product.items())[:3])
    return PlanProblem(Reason.UNSUPPORTED_ON_ACCELERATOR, f"no accelerator here can run the model: {told}")


def _given_too_large(request: PlanRequest, allowed: Sequence[GpuPool], seen: Survey) -> PlanProblem | None:
    """The degrees that the user has set need more GPUs than a pod, or a group of pods, can have."""
    if seen.candidates or not request.given.anything:
        return None
    given = request.given
    gpus = (given.tensor or 1) * (given.pipeline or 1) * (given.data or 1)
    most = max(gpus_per_pod(request, pool) for pool in allowed)
    several = "" if request.allow_multi_node else ", or allow several nodes (parallelism.allowMultiNode)"
    return PlanProblem(
        Reason.INVALID_PARALLELISM,
        f"the given parallelism needs {gpus} GPUs, more than any node offers to one pod ({most}); legal tensor degrees "
        f"here: {degrees(seen.legal_tensor)}; set one of them, or 'auto'{several}",
    )


def _nothing_legal(seen: Survey) -> PlanProblem | None:
    if seen.candidates:
        return None
    rules = "; ".join(dict.fromkeys(illegal.violation.message for illegal in seen.illegal))
    return PlanProblem(Reason.INVALID_PARALLELISM, f"no cut of this model over the GPUs of a node is legal: {rules}")


def _concurrency(facts: ModelFacts, request: PlanRequest, seen: Survey) -> PlanProblem | None:
    """One request of full length fits somewhere, but not ``concurrency.min`` of them."""
    if request.min_concurrency == 1:
        return None
    single = replace(request, min_concurrency=1)
    evaluator = Evaluator(facts, single)
    fitting = [each for each in (evaluator.candidate(e.pool, e.layout) for e in seen.candidates) if each.use.fits]
    if not fitting:
        return None
    best = max(seen.candidates, key=lambda each: (each.use.max_concurrency, -each.layout.gpus))

    def replicas(candidate: Candidate) -> int:
        return -(-request.min_concurrency // max(1, int(candidate.use.max_concurrency)))

    cheapest = min(fitting, key=lambda each: (replicas(each) * each.layout.gpus, each.layout.gpus))
    helpful = remedies(facts, request, best)
    advice = f" (concurrency.min=1, scaling.minReplicas={replicas(cheapest)})"
    if replicas(cheapest) > _MAX_REPLICAS:
        advice = ", more than one service may have"
    return PlanProblem(
        Reason.CONCURRENCY_UNMET,
        f"concurrency.min={request.min_concurrency} requests of {request.settings.max_length_tokens} tokens do not fit "
        f"at once: at best {requests(best.use.max_concurrency)} do, with {best.layout} on {best.pool.product}; "
        f"{replicas(cheapest)} replicas with {cheapest.layout} on {cheapest.pool.product} hold as many{advice}"
        f"{_or(helpful)}",
    )


def _memory(facts: ModelFacts, request: PlanRequest, seen: Survey) -> PlanProblem:
    best = closest(seen)
    use, settings = best.use, request.settings
    left = f"{gib(max(0, use.kv_available_bytes))} left for it"
    asked = "one request" if request.min_concurrency == 1 else f"{request.min_concurrency} requests"
    cache = f", {gib(use.needed_bytes)} of KV cache for {asked}, {left}" if use.demand is not None else ""
    message = (
        f"model.maxLength={settings.max_length_tokens} does not fit: at best, with {best.layout} on "
        f"{best.pool.product} ({gib(best.pool.usable_bytes)} GiB usable), it is short of {gib_up(use.shortfall_bytes)} "
        f"GiB per GPU ({gib(use.weights_bytes)} GiB of weights, {gib(use.overhead_bytes)} of overhead{cache}); legal "
        f"tensor degrees here: {degrees(seen.legal_tensor)}"
    )
    return PlanProblem(Reason.INSUFFICIENT_GPU_MEMORY, message + _or(remedies(facts, request, best)))


def closest(seen: Survey) -> Candidate:
    """The candidate that is short of least."""
    return min(seen.candidates, key=lambda candidate: (candidate.use.shortfall_bytes, candidate.layout.gpus))


def _or(helpful: Sequence[str]) -> str:
    return f"; {', or '.join(helpful)}" if helpful else ""
