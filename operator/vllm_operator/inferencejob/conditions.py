"""Conditions of one InferenceJob: what each says, and why. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from vllm_operator.engine.plan import Failure
from vllm_operator.inferencejob.observe import Observed
from vllm_operator.inferencejob.parse import SpecProblem
from vllm_operator.inferencejob.plan import Ending
from vllm_operator_api.conditions import ConditionStatus, InferenceJobCondition, Reason
from vllm_operator_api.queue import JobProgress
from vllm_operator_api.v1alpha1.inferencejob import InferenceJob, Phase

_TRUE: Final = ConditionStatus.TRUE
_FALSE: Final = ConditionStatus.FALSE
_UNKNOWN: Final = ConditionStatus.UNKNOWN
_SILENT_DRIVER_SECONDS: Final = 45.0
"""A driver reports every 10 s at least; connecting takes it some seconds."""
_INPUT_REASONS: Final = frozenset(
    {
        Reason.INPUT_NOT_FOUND,
        Reason.INPUT_EMPTY,
        Reason.INPUT_NOT_REGULAR_FILE,
        Reason.INPUT_CHANGED,
        Reason.OUTPUT_EXISTS,
    }
)


@dataclass(frozen=True, slots=True)
class ConditionState:
    """A condition without its times."""

    type: InferenceJobCondition
    status: ConditionStatus
    reason: Reason
    message: str = ""


def conditions(
    job: InferenceJob,
    problem: SpecProblem | None,
    observed: Observed,
    ending: Ending | None,
    failures: tuple[Failure, ...],
    phase: Phase,
    report: JobProgress | None,
    queue_refusal: str | None,
    driver_credentials_secret: str,
    now: datetime,
) -> list[ConditionState]:
    """All conditions, in the order in which a job goes through them."""
    return [
        _accepted(problem),
        _input_ready(job, observed, ending, report),
        _workers_ready(job, observed, ending),
        _queue_available(observed, phase, report, queue_refusal, driver_credentials_secret, now),
        *_ended(problem, observed, ending, failures, phase, report),
    ]


def _accepted(problem: SpecProblem | None) -> ConditionState:
    if problem is not None:
        return ConditionState(InferenceJobCondition.ACCEPTED, _FALSE, Reason.INVALID_SPEC, problem.message)
    return ConditionState(InferenceJobCondition.ACCEPTED, _TRUE, Reason.VALID)


def _input_ready(
    job: InferenceJob, observed: Observed, ending: Ending | None, report: JobProgress | None
) -> ConditionState:
    kind = InferenceJobCondition.INPUT_READY
    if ending is not None and ending.reason in _INPUT_REASONS:
        return ConditionState(kind, _FALSE, ending.reason, _named_input(job, ending))
    if report is not None and report.rows_total is not None:
        return ConditionState(kind, _TRUE, Reason.INPUT_VALID, f"the input has {report.rows_total} rows")
    message = _first(pod.scheduling_message for pod in observed.pods)
    source, destination = job.spec.input.persistent_volume_claim, job.spec.output.persistent_volume_claim
    if message is not None and "persistentvolumeclaim" in message:
        if source is not None and f'"{source.claim_name}"' in message:
            return ConditionState(kind, _FALSE, Reason.INPUT_NOT_FOUND, f"the driver waits: {message}")
        if destination is not None and f'"{destination.claim_name}"' in message:
            return ConditionState(kind, _FALSE, Reason.STORAGE_ERROR, f"the driver waits, for its output: {message}")
    before = next((c for c in job.status.conditions if c.type == kind.value and c.status is _TRUE), None)
    if before is not None:
        return ConditionState(kind, _TRUE, Reason.INPUT_VALID, before.message)
    return ConditionState(kind, _UNKNOWN, Reason.READING_INPUT)


def _named_input(job: InferenceJob, ending: Ending) -> str:
    file = job.spec.input.config_map
    if file is not None and ending.reason is Reason.INPUT_NOT_FOUND:
        return f"ConfigMap {file.name!r} of this namespace has no key {file.key!r}, or does not exist"
    return ending.message


def _workers_ready(job: InferenceJob, observed: Observed, ending: Ending | None) -> ConditionState:
    kind = InferenceJobCondition.WORKERS_READY
    if observed.service is None:
        name = job.spec.service_ref.name
        waits = "" if ending else "; the job waits for it"
        return ConditionState(
            kind, _FALSE, Reason.SERVICE_NOT_FOUND, f"LLMService {name!r} does not exist in this namespace{waits}"
        )
    ready = any(
        seen.heartbeat.state == "running"
        and seen.heartbeat.engine is not None
        and seen.heartbeat.engine.ready
        and seen.age_seconds <= 3 * observed.service.heartbeat_seconds + 2
        for seen in observed.heartbeats
    )
    if ready:
        return ConditionState(kind, _TRUE, Reason.WORKERS_READY)
    message = f"no worker of LLMService {observed.service.name!r} is ready; the service: {observed.service.state}"
    return ConditionState(kind, _FALSE, Reason.SERVICE_NOT_READY, message)


def _queue_available(
    observed: Observed,
    phase: Phase,
    report: JobProgress | None,
    queue_refusal: str | None,
    driver_credentials_secret: str,
    now: datetime,
) -> ConditionState:
    kind = InferenceJobCondition.QUEUE_AVAILABLE
    if not observed.queue_connected:
        message = f"the operator has no connection to the queue: {observed.queue_problem or 'it is not known why'}"
        return ConditionState(kind, _FALSE, Reason.QUEUE_UNAVAILABLE, message)
    if queue_refusal is not None:
        message = f"the queue does not take the job: {queue_refusal}"
        return ConditionState(kind, _FALSE, Reason.QUEUE_UNAVAILABLE, message)
    silent = report is None and any(
        pod.running_since is not None and (now - pod.running_since).total_seconds() > _SILENT_DRIVER_SECONDS
        for pod in observed.pods
    )
    if silent and phase != "Succeeded":
        message = (
            f"the driver runs but is not heard: is Secret {driver_credentials_secret!r} in this namespace "
            "(chart value queue.namespaces), and may its pod reach the queue?"
        )
        return ConditionState(kind, _FALSE, Reason.QUEUE_UNAVAILABLE, message)
    return ConditionState(kind, _TRUE, Reason.QUEUE_CONNECTED)


def _ended(
    problem: SpecProblem | None,
    observed: Observed,
    ending: Ending | None,
    failures: tuple[Failure, ...],
    phase: Phase,
    report: JobProgress | None,
) -> tuple[ConditionState, ConditionState]:
    complete, failed = InferenceJobCondition.COMPLETE, InferenceJobCondition.FAILED
    if ending is not None and ending.succeeded:
        return (
            ConditionState(complete, _TRUE, ending.reason, ending.message),
            ConditionState(failed, _FALSE, ending.reason),
        )
    if ending is not None:
        return (
            ConditionState(complete, _FALSE, ending.reason),
            ConditionState(failed, _TRUE, ending.reason, ending.message),
        )
    reason, message = _under_way(problem, observed, failures, phase, report)
    return ConditionState(complete, _FALSE, reason, message), ConditionState(failed, _FALSE, reason)


def _under_way(
    problem: SpecProblem | None,
    observed: Observed,
    failures: tuple[Failure, ...],
    phase: Phase,
    report: JobProgress | None,
) -> tuple[Reason, str]:
    if problem is not None:
        return Reason.INVALID_SPEC, problem.message
    if failures:
        reason = Reason.NAME_CONFLICT if failures[0].conflict else Reason.APPLY_FAILED
        return reason, f"{failures[0].ref}: {failures[0].message}"
    if observed.service is None:
        return Reason.SERVICE_NOT_FOUND, "the job waits for its service"
    if report is not None and report.reason == Reason.STORAGE_ERROR.value:
        return Reason.STORAGE_ERROR, report.message
    if phase == "Pending":
        stuck = _first(pod.scheduling_message or pod.waiting_message for pod in observed.pods)
        return Reason.DRIVER_STARTING, f"the driver waits: {stuck}" if stuck else "the driver starts"
    stuck = _first(pod.waiting_message for pod in observed.pods)
    if stuck is not None:
        return Reason.DRIVER_STARTING, f"the driver is started again: {stuck}"
    return (Reason.READING_INPUT, "") if phase == "Validating" else (Reason.RUNNING, "")


def _first(messages: Iterable[str | None]) -> str | None:
    return next((message for message in messages if message), None)
