"""What the user is told of one service. Pure.

Messages hold no number that moves by itself: a condition is written when something happened, not when time passed.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from vllm_operator.engine.plan import Failure
from vllm_operator.kube.kinds import JOB, SERVICE
from vllm_operator.llmservice.closed_loop import (
    SeenCache,
    learned_of_running,
    merged_calibration,
    mismatch,
    observed_use,
    seen_cache,
)
from vllm_operator.llmservice.conditions import ConditionState, find_condition, merge_conditions
from vllm_operator.llmservice.drain import Wakefulness
from vllm_operator.llmservice.engines import memory_limit
from vllm_operator.llmservice.facts import parse_time
from vllm_operator.llmservice.failures import StartFailure, start_failure
from vllm_operator.llmservice.observe import EnginePod, Observed
from vllm_operator.llmservice.plan import Decision
from vllm_operator.llmservice.plan_status import refused_plan
from vllm_operator.llmservice.planning import Planned
from vllm_operator.llmservice.workers import last_activity_time, leases_status, missing_heartbeats, workers_status
from vllm_operator.manifests.llmservice_service import service_url
from vllm_operator.planner.choice.waiting import waiting_for
from vllm_operator.planner.inventory.pools import for_resource
from vllm_operator.planner.problem import PlanProblem
from vllm_operator.planner.record import PlanRecord
from vllm_operator_api.conditions import ConditionStatus, LLMServiceCondition, Reason
from vllm_operator_api.v1alpha1 import LLMService, LLMServiceStatus
from vllm_operator_api.v1alpha1.llmservice_status import CalibrationStatus, PlanStatus

_TRUE: Final = ConditionStatus.TRUE
_FALSE: Final = ConditionStatus.FALSE
_UNKNOWN: Final = ConditionStatus.UNKNOWN
_UNREAD_REASONS: Final = frozenset(
    {
        Reason.MODEL_NOT_FOUND,
        Reason.MODEL_CONFIG_INVALID,
        Reason.MODEL_FACTS_UNAVAILABLE,
        Reason.GATED_MODEL,
        Reason.HUB_RATE_LIMITED,
        Reason.UNSAFE_WEIGHTS,
    }
)
"""Reasons that stay while the model is read once more, so that they do not come and go with each try."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusConfig:
    """What messages and URLs need to know of the installation."""

    cluster_domain: str
    agent_credentials_secret: str
    operator_started_at: datetime


def service_status(
    service: LLMService,
    observed: Observed,
    decision: Decision,
    failures: tuple[Failure, ...],
    config: StatusConfig,
    now: datetime,
) -> LLMServiceStatus:
    """The whole status, from what is, what was decided and what the API server refused."""
    previous = service.status
    desired = _desired(observed, decision)
    live = observed.live_pods
    ready_replicas = sum(pod.ready for pod in live)
    plan = _plan(previous, observed, decision)
    states = [
        _accepted(decision, failures),
        _planned(service, observed, decision, failures, desired),
        _model_loaded(observed, desired),
        _ready(service, observed, decision, failures, desired),
        _asleep(observed, desired),
        _degraded(service, observed, failures, config, now),
        _queue_available(observed),
    ]
    return LLMServiceStatus(
        observed_generation=service.generation,
        conditions=merge_conditions(previous.conditions, states, service.generation, now),
        desired_replicas=desired,
        replicas=len(live),
        ready_replicas=ready_replicas,
        ready=f"{ready_replicas}/{desired}",
        url=service_url(service.name, service.namespace, config.cluster_domain),
        plan=plan,
        calibration=_calibration(previous, observed, decision),
        workers=workers_status(observed, previous.workers, service.spec.queue.heartbeat_seconds, now),
        leases=leases_status(observed.heartbeats),
        last_activity_time=last_activity_time(observed.heartbeats, previous.last_activity_time, now),
    )


def _plan(previous: LLMServiceStatus, observed: Observed, decision: Decision) -> PlanStatus | None:
    """The plan in force with what its engines tell of themselves; of a plan that cannot be made what was looked at."""
    outcome, workload = decision.outcome, observed.workload
    if not isinstance(outcome, Planned):
        if workload is not None:
            return previous.plan  # of the engines that run
        if isinstance(outcome, PlanProblem) and (outcome.considered or outcome.legal_tensor):
            return refused_plan(outcome)
        return None
    seen = _seen(observed)
    if seen is None or workload is None or workload.record != outcome.record:
        return outcome.status
    return outcome.status.model_copy(update={"observed": observed_use(outcome.record, seen)})


def _seen(observed: Observed) -> SeenCache | None:
    record = None if observed.workload is None else observed.workload.record
    return None if record is None else seen_cache(record, observed)


def _calibration(previous: LLMServiceStatus, observed: Observed, decision: Decision) -> list[CalibrationStatus]:
    record, seen = None if observed.workload is None else observed.workload.record, _seen(observed)
    learned = decision.learned if record is None or seen is None else learned_of_running(record, seen)
    return merged_calibration(previous.calibration, learned)


def status_document(status: LLMServiceStatus) -> dict[str, Any]:
    """The status as the API server takes it."""
    return status.model_dump(mode="json", by_alias=True, exclude_none=True)


def status_facts(status: LLMServiceStatus) -> Hashable:
    """What is written at once when it changes; the rest is numbers, written at intervals."""
    conditions = tuple((c.type, c.status, c.reason, c.message, c.observed_generation) for c in status.conditions)
    plan = None if status.plan is None else status.plan.model_dump_json()
    calibration = tuple((entry.key, entry.overhead_mib) for entry in status.calibration)
    return (conditions, status.desired_replicas, status.replicas, status.ready, status.url, plan, calibration)


def _desired(observed: Observed, decision: Decision) -> int:
    if decision.drain is not None:
        return decision.drain.replicas
    return 0 if observed.workload is None else observed.workload.replicas


def _accepted(decision: Decision, failures: tuple[Failure, ...]) -> ConditionState:
    if decision.rejected is not None:
        return ConditionState(LLMServiceCondition.ACCEPTED, _FALSE, decision.rejected.reason, decision.rejected.message)
    conflict = next((failure for failure in failures if failure.conflict), None)
    if conflict is not None:
        return ConditionState(LLMServiceCondition.ACCEPTED, _FALSE, Reason.NAME_CONFLICT, conflict.message)
    return ConditionState(LLMServiceCondition.ACCEPTED, _TRUE, Reason.VALID, "the spec is valid")


def _planned(
    service: LLMService,
    observed: Observed,
    decision: Decision,
    failures: tuple[Failure, ...],
    desired: int,
) -> ConditionState:
    outcome = decision.outcome
    if isinstance(outcome, Planned):
        return _has_plan(service, observed, outcome, desired)
    if isinstance(outcome, PlanProblem):
        return ConditionState(LLMServiceCondition.PLANNED, _FALSE, outcome.reason, outcome.message)
    if outcome is None:
        return ConditionState(
            LLMServiceCondition.PLANNED, _UNKNOWN, Reason.NOT_ACCEPTED, "the spec is not accepted; see Accepted"
        )
    refused = next((failure for failure in failures if failure.ref.kind == JOB.kind), None)
    if refused is not None:
        message = f"the model {service.spec.model.id} cannot be read: {refused.message}"
        return ConditionState(LLMServiceCondition.PLANNED, _FALSE, Reason.MODEL_FACTS_UNAVAILABLE, message)
    before = find_condition(service.status.conditions, LLMServiceCondition.PLANNED)
    if before is not None and before.reason in _UNREAD_REASONS and before.observed_generation == service.generation:
        return ConditionState(LLMServiceCondition.PLANNED, before.status, Reason(before.reason), before.message)
    return ConditionState(
        LLMServiceCondition.PLANNED,
        _UNKNOWN,
        Reason.READING_MODEL_FACTS,
        f"the configuration of {service.spec.model.id} is being read: {outcome.detail}",
    )


def _has_plan(service: LLMService, observed: Observed, outcome: Planned, desired: int) -> ConditionState:
    kind = LLMServiceCondition.PLANNED
    waits = _waiting(service, observed, outcome.record, desired)
    if waits is not None:
        return ConditionState(kind, _TRUE, Reason.WAITING_FOR_CAPACITY, f"{outcome.record.layout} fits, but {waits}")
    seen = _seen(observed)
    current = observed.workload is not None and observed.workload.record == outcome.record
    differs = mismatch(outcome.record, seen) if current and seen is not None else None
    if differs is not None:
        return ConditionState(kind, _TRUE, Reason.PLAN_MISMATCH, differs)
    return ConditionState(kind, _TRUE, Reason.PLANNED, outcome.status.reason or str(outcome.record.layout))


def _waiting(service: LLMService, observed: Observed, record: PlanRecord, desired: int) -> str | None:
    """What a replica that is wanted and has no node waits for."""
    if sum(pod.node is not None for pod in observed.live_pods) >= desired:
        return None
    pools = for_resource(observed.inventory, service.spec.accelerator.resource_name)
    planned = [pool for pool in pools if pool.product in record.products]
    return waiting_for(planned, record.layout, observed.quota_left) if planned else None


def _model_loaded(observed: Observed, desired: int) -> ConditionState:
    kind, live = LLMServiceCondition.MODEL_LOADED, observed.live_pods
    if any(pod.ready for pod in live):
        return ConditionState(kind, _TRUE, Reason.SERVING, "at least one engine has loaded the model")
    if observed.workload is not None and desired == 0:
        return ConditionState(kind, _FALSE, Reason.ASLEEP, "no engine runs")
    if any(pod.running for pod in live):
        return ConditionState(kind, _FALSE, Reason.LOADING, "an engine loads the model")
    reason = Reason.STARTING if observed.workload is not None else Reason.PLANNING
    return ConditionState(kind, _FALSE, reason, "no engine runs yet")


def _ready(
    service: LLMService,
    observed: Observed,
    decision: Decision,
    failures: tuple[Failure, ...],
    desired: int,
) -> ConditionState:
    kind = LLMServiceCondition.READY
    live = observed.live_pods
    serving = [pod for pod in live if pod.ready and pod.routable]
    if any(failure.conflict and failure.ref.kind == SERVICE.kind for failure in failures):
        return ConditionState(kind, _FALSE, Reason.NOT_ACCEPTED, "clients cannot reach the engines; see Accepted")
    draining = decision.drain is not None and decision.drain.wakefulness is Wakefulness.DRAINING
    if serving and not draining:
        return _serving(service, observed, decision, len(serving), desired)
    if decision.rejected is not None or any(failure.conflict for failure in failures):
        return ConditionState(kind, _FALSE, Reason.NOT_ACCEPTED, "the spec is not accepted; see Accepted")
    if decision.drain is None:
        planned = _planned(service, observed, decision, failures, desired)
        reason = planned.reason if planned.status is _FALSE else Reason.PLANNING
        return ConditionState(kind, _FALSE, reason, planned.message)
    if draining:
        return ConditionState(
            kind, _FALSE, Reason.DRAINING, "idle and out of routing; a last look before the engines are stopped"
        )
    if desired == 0:
        return ConditionState(
            kind, _FALSE, Reason.ASLEEP, "no engine runs, because there was no request for scaling.idleAfter"
        )
    return _starting(service, observed)


def _serving(service: LLMService, observed: Observed, decision: Decision, serving: int, desired: int) -> ConditionState:
    kind = LLMServiceCondition.READY
    if decision.rejected is not None:
        message = f"{serving} engine(s) serve the last accepted spec; see Accepted"
        return ConditionState(kind, _TRUE, Reason.SERVING, message)
    if decision.drain is None:
        message = f"{serving} engine(s) serve the last spec that could be planned; see Planned"
        return ConditionState(kind, _TRUE, Reason.SERVING, message)
    if serving < desired:
        failure = _start_failure(service, observed)
        message = f"{serving} of {desired} engines serve"
        if failure is not None:
            message += f"; {failure.reason}: {failure.message}"
        return ConditionState(kind, _TRUE, Reason.UPDATING, message)
    return ConditionState(kind, _TRUE, Reason.SERVING, f"{serving} engine(s) serve")


def _starting(service: LLMService, observed: Observed) -> ConditionState:
    kind = LLMServiceCondition.READY
    live = observed.live_pods
    failure = _start_failure(service, observed)
    if failure is not None:
        return ConditionState(kind, _FALSE, failure.reason, failure.message)
    before = find_condition(service.status.conditions, LLMServiceCondition.READY)
    loading = any(pod.running and not pod.node_lost for pod in live)
    doing = "an engine loads the model" if loading else _pods_are_made(service, live)
    if before is not None and before.reason in (Reason.ASLEEP, Reason.WAKING):
        return ConditionState(kind, _FALSE, Reason.WAKING, f"it wakes up: {doing}")
    return ConditionState(kind, _FALSE, Reason.LOADING if loading else Reason.STARTING, doing)


def _start_failure(service: LLMService, observed: Observed) -> StartFailure | None:
    workload = observed.workload
    record = None if workload is None else workload.record
    return start_failure(workload, observed.live_pods, memory_limit(service.spec, record))


def _pods_are_made(service: LLMService, live: tuple[EnginePod, ...]) -> str:
    lost = next((pod for pod in live if pod.node_lost), None)
    if lost is not None:
        return (
            f"the node {lost.node} does not answer; Kubernetes makes another pod for {lost.name} when it gives the "
            "node up, by default after five minutes"
        )
    bound = next((pod for pod in live if pod.node is not None), None)
    if bound is None:
        return "engine pods are being made and scheduled"
    return (
        f"the pod {bound.name} is being started on {bound.node}: its volumes are attached and its image is pulled; if "
        f"that lasts, see kubectl describe pod {bound.name} -n {service.namespace}"
    )


def _asleep(observed: Observed, desired: int) -> ConditionState:
    """A sleeping service sleeps on while a new spec is refused or planned."""
    kind = LLMServiceCondition.ASLEEP
    if observed.workload is not None and desired == 0:
        return ConditionState(kind, _TRUE, Reason.IDLE, "there was no request for scaling.idleAfter; a job wakes it")
    return ConditionState(kind, _FALSE, Reason.AWAKE, "it is not put to sleep")


def _degraded(
    service: LLMService, observed: Observed, failures: tuple[Failure, ...], config: StatusConfig, now: datetime
) -> ConditionState:
    kind = LLMServiceCondition.DEGRADED
    refused = next((failure for failure in failures if not failure.conflict), None)
    if refused is not None:
        message = f"{refused.ref} cannot be written or deleted: {refused.message}; it is tried again"
        return ConditionState(kind, _TRUE, Reason.APPLY_FAILED, message)
    listening_since = _listening_since(service, config, now)
    silent = missing_heartbeats(observed, service.spec.queue.heartbeat_seconds, listening_since, now)
    if silent and observed.queue_connected:
        return ConditionState(
            kind,
            _TRUE,
            Reason.WORKER_HEARTBEAT_MISSING,
            f"the queue agent of {', '.join(silent[:5])} is not heard: it serves requests, but takes no jobs and does "
            f"not go to sleep; see its log, and whether the Secret {config.agent_credentials_secret} is in namespace "
            f"{service.namespace} (chart value queue.namespaces)",
        )
    return ConditionState(kind, _FALSE, Reason.AS_EXPECTED, "nothing is wrong")


def _listening_since(service: LLMService, config: StatusConfig, now: datetime) -> datetime:
    """Since when a heartbeat would have been heard: the operator runs, and is connected to the queue."""
    before = find_condition(service.status.conditions, LLMServiceCondition.QUEUE_AVAILABLE)
    connected = before is not None and before.status is _TRUE
    since = parse_time(before.last_transition_time) if before is not None and connected else None
    return max(config.operator_started_at, since or now)


def _queue_available(observed: Observed) -> ConditionState:
    kind = LLMServiceCondition.QUEUE_AVAILABLE
    if observed.queue_connected:
        return ConditionState(kind, _TRUE, Reason.QUEUE_CONNECTED, "the operator is connected to the queue")
    why = observed.queue_problem or "there is no connection"
    return ConditionState(
        kind,
        _FALSE,
        Reason.QUEUE_UNAVAILABLE,
        f"the operator has no connection to the queue: {why}; requests are served, jobs wait, nothing goes to sleep",
    )
