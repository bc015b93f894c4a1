"""The status of one InferenceJob. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from vllm_operator.engine.clock import rfc3339
from vllm_operator.engine.plan import Failure
from vllm_operator.inferencejob.conditions import ConditionState, conditions
from vllm_operator.inferencejob.observe import Observed
from vllm_operator.inferencejob.parse import SpecProblem
from vllm_operator.inferencejob.plan import Ending, OutputFacts
from vllm_operator_api.conditions import InferenceJobCondition, Reason
from vllm_operator_api.meta import MAX_CONDITION_MESSAGE_LENGTH, Condition
from vllm_operator_api.queue import JobProgress
from vllm_operator_api.v1alpha1.inferencejob import (
    InferenceJob,
    InferenceJobStatus,
    OutputStatus,
    Phase,
    RowsStatus,
    ShardsStatus,
    UsageStatus,
)
from vllm_operator_api.v1alpha1.llmservice_status import LeasesStatus, WorkersStatus, WorkerStatus

MAX_WORKERS: Final = 16
_STEP_SECONDS: Final = 10
"""Times of heartbeats and ages of leases are told to this, so that a job that waits is not written all the time."""
_STALE_HEARTBEATS: Final = 3
_STALE_MARGIN_SECONDS: Final = 2.0
_UNDER_WAY: Final[dict[str, Phase]] = {
    "Validating": "Validating",
    "Running": "Running",
    "Finalizing": "Finalizing",
    "Succeeded": "Finalizing",
    "Failed": "Finalizing",
}
"""Phase of a job by its driver's report; that it has ended is known by the pod's status only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """What the status is made from."""

    problem: SpecProblem | None
    observed: Observed
    ending: Ending | None
    output: OutputFacts
    failures: tuple[Failure, ...]
    queue_refusal: str | None
    """Why the queue did not take the job, if it was asked to."""
    driver_credentials_secret: str


def job_status(job: InferenceJob, situation: Situation, now: datetime) -> InferenceJobStatus:
    """The whole status as it is now."""
    report = _report(situation)
    phase = _phase(job, situation, report)
    states = conditions(
        job,
        situation.problem,
        situation.observed,
        situation.ending,
        situation.failures,
        phase,
        report,
        situation.queue_refusal,
        situation.driver_credentials_secret,
        now,
    )
    rows = _rows(job, report)
    done = rows.completed + rows.failed
    started = job.status.start_time or (None if phase == "Pending" else rfc3339(now))
    return InferenceJobStatus(
        observed_generation=job.generation,
        phase=phase,
        conditions=_merged(job, states, now),
        rows=rows,
        progress=None if rows.total is None else f"{done}/{rows.total}",
        shards=_shards(job, situation, report),
        leases=_leases(job, situation),
        workers=None if situation.ending else _workers(situation.observed, now),
        usage=_usage(job, report),
        output=_output(job, situation),
        start_time=started,
        completion_time=(job.status.completion_time or rfc3339(now)) if situation.ending else None,
    )


def status_document(status: InferenceJobStatus) -> dict[str, Any]:
    """As it is written to the object."""
    return status.model_dump(by_alias=True, exclude_none=True, mode="json")


def status_facts(status: InferenceJobStatus) -> Hashable:
    """What is worth a write at once: not counts of rows and shards, not ages."""
    return (
        status.phase,
        tuple((c.type, c.status, c.reason, c.message) for c in status.conditions),
        tuple((item.name, item.state) for item in status.workers.items) if status.workers else None,
        status.leases is not None and status.leases.active > 0,
        status.output.location if status.output else None,
        None if status.rows is None else status.rows.total,
    )


def _report(situation: Situation) -> JobProgress | None:
    if situation.ending is not None and situation.ending.report is not None:
        return situation.ending.report
    return situation.observed.final_report or situation.observed.progress


def _phase(job: InferenceJob, situation: Situation, report: JobProgress | None) -> Phase:
    ending = situation.ending
    if ending is not None:
        if not ending.succeeded:
            return "Failed"
        return "PartiallySucceeded" if ending.reason is Reason.ROWS_FAILED else "Succeeded"
    if situation.problem is not None or situation.observed.service is None:
        return "Pending"
    if report is not None:
        return _UNDER_WAY[report.phase]
    before = job.status.phase
    pod_runs = any(pod.running_since is not None for pod in situation.observed.pods)
    return before if pod_runs and before in ("Validating", "Running", "Finalizing") else "Pending"


def _rows(job: InferenceJob, report: JobProgress | None) -> RowsStatus:
    if report is None or report.rows_total is None:
        return job.status.rows or RowsStatus()
    return RowsStatus(total=report.rows_total, completed=report.rows_completed, failed=report.rows_failed)


def _usage(job: InferenceJob, report: JobProgress | None) -> UsageStatus:
    if report is None or report.rows_total is None:
        return job.status.usage or UsageStatus()
    return UsageStatus(prompt_tokens=report.prompt_tokens, completion_tokens=report.completion_tokens)


def _shards(job: InferenceJob, situation: Situation, report: JobProgress | None) -> ShardsStatus:
    before = job.status.shards or ShardsStatus()
    counts = situation.observed.counts
    total, committed = before.total, before.committed
    if report is not None and report.rows_total is not None:
        total, committed = report.shards_total, report.shards_committed
    left = max(0, (total or 0) - committed)
    leased = 0 if situation.ending or counts is None else min(counts.leased, left)
    return ShardsStatus(
        total=total,
        committed=committed,
        leased=leased,
        pending=0 if situation.ending else left - leased,
        redelivered=before.redelivered if counts is None else max(before.redelivered, counts.redelivered),
    )


def _leases(job: InferenceJob, situation: Situation) -> LeasesStatus:
    if situation.ending is not None:
        return LeasesStatus()
    ages = [
        lease.age_seconds + seen.age_seconds
        for seen in situation.observed.heartbeats
        for lease in seen.heartbeat.leases
        if lease.job_uid == job.uid
    ]
    return LeasesStatus(
        active=len(ages), oldest_seconds=int(max(ages) // _STEP_SECONDS * _STEP_SECONDS) if ages else None
    )


def _workers(observed: Observed, now: datetime) -> WorkersStatus | None:
    if observed.service is None:
        return None
    limit_seconds = _STALE_HEARTBEATS * observed.service.heartbeat_seconds + _STALE_MARGIN_SECONDS
    items = []
    ready = stale = 0
    for seen in observed.heartbeats:
        heartbeat = seen.heartbeat
        is_stale = seen.age_seconds > limit_seconds
        stale += is_stale
        ready += (
            not is_stale and heartbeat.state == "running" and heartbeat.engine is not None and heartbeat.engine.ready
        )
        items.append(
            WorkerStatus(
                name=heartbeat.worker,
                node=heartbeat.node,
                state="stale" if is_stale else heartbeat.state,
                in_flight=heartbeat.engine.in_flight if heartbeat.engine else None,
                leases=len(heartbeat.leases),
                last_heartbeat_time=_coarse(now - timedelta(seconds=seen.age_seconds)),
            )
        )
    items.sort(key=lambda item: (item.state == "stale", item.name))
    return WorkersStatus(ready=ready, stale=stale, items=items[:MAX_WORKERS])


def _output(job: InferenceJob, situation: Situation) -> OutputStatus | None:
    ending = situation.ending
    if ending is None or not ending.succeeded or ending.report is None:
        return None
    volume, config_map = job.spec.output.persistent_volume_claim, job.spec.output.config_map
    if volume is not None:
        return OutputStatus(
            location=f"pvc://{volume.claim_name}/{volume.path}",
            bytes=ending.report.output_bytes,
            sha256=ending.report.output_sha256,
        )
    assert config_map is not None
    content = situation.output.content or b""
    return OutputStatus(
        location=f"configmap://{config_map.name}/{config_map.key}",
        bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
    )


def _merged(job: InferenceJob, states: list[ConditionState], now: datetime) -> list[Condition]:
    """The time of a condition changes when its status does, and only then."""
    before = {condition.type: condition for condition in job.status.conditions}
    merged = []
    for state in states:
        known = before.get(state.type.value)
        same = known is not None and known.status == state.status
        merged.append(
            Condition(
                type=state.type.value,
                status=state.status,
                reason=state.reason.value,
                message=state.message[:MAX_CONDITION_MESSAGE_LENGTH],
                observed_generation=job.generation,
                last_transition_time=known.last_transition_time if known is not None and same else rfc3339(now),
            )
        )
    return merged


def _coarse(moment: datetime) -> str:
    seconds = int(moment.timestamp()) // _STEP_SECONDS * _STEP_SECONDS
    return rfc3339(datetime.fromtimestamp(seconds, tz=moment.tzinfo))


EVENT_CONDITIONS: Final = (InferenceJobCondition.COMPLETE, InferenceJobCondition.FAILED)
"""Conditions whose turning True is an event."""
