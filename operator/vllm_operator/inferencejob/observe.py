"""What is known of one InferenceJob, as plain values. Reads the cache and the view of the queue, nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Protocol

from pydantic import ValidationError

from vllm_operator.engine.clock import parse_rfc3339
from vllm_operator.kube.kinds import JOB, LLM_SERVICE, POD, Manifest, ObjectRef
from vllm_operator.manifests.common import DRIVER_COMPONENT
from vllm_operator.manifests.driver_job import DriverTarget
from vllm_operator.queue.view import QueueView, SeenHeartbeat, ShardCounts
from vllm_operator_api.conditions import LLMServiceCondition
from vllm_operator_api.names import COMPONENT_LABEL
from vllm_operator_api.queue import JobProgress
from vllm_operator_api.v1alpha1.inferencejob import InferenceJob
from vllm_operator_api.v1alpha1.llmservice import LLMServiceSpec

TERMINAL_REPORTS: Final = ("Succeeded", "Failed")
_ENDED_PODS: Final = ("Succeeded", "Failed")


class CacheView(Protocol):
    """What is read of the cache."""

    def get(self, ref: ObjectRef) -> Manifest | None: ...
    def labelled(self, owner_uid: str, kind: str) -> tuple[Manifest, ...]: ...


@dataclass(frozen=True, slots=True)
class Service:
    """The LLMService that the job names."""

    name: str
    target: DriverTarget
    lease_seconds: int
    heartbeat_seconds: int
    state: str
    """Reason and message of its Ready condition."""


@dataclass(frozen=True, slots=True)
class Driver:
    """A driver Job."""

    name: str
    uid: str
    complete: bool
    failed_message: str | None


@dataclass(frozen=True, slots=True)
class DriverPod:
    """A pod of a driver Job that still exists."""

    name: str
    scheduling_message: str | None
    waiting_message: str | None
    running_since: datetime | None
    ended: bool
    """Its containers have ended for good."""
    reports: tuple[JobProgress, ...]
    """What ended containers of it left: the kubelet keeps the last two."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """Everything that plan and status depend on, besides the job itself."""

    service: Service | None
    drivers: tuple[Driver, ...]
    pods: tuple[DriverPod, ...]
    progress: JobProgress | None
    counts: ShardCounts | None
    heartbeats: tuple[SeenHeartbeat, ...]
    queue_connected: bool
    queue_problem: str | None

    @property
    def final_report(self) -> JobProgress | None:
        """How the job ended, if it has. A success that was reported once stays one.

        A pod's status is the proof; the queue's word counts only when the Job is complete and its pod is gone.
        """
        reports = [report for pod in self.pods for report in pod.reports]
        if not reports and self.progress is not None and any(driver.complete for driver in self.drivers):
            reports = [self.progress]
        for phase in TERMINAL_REPORTS:
            for report in reports:
                if report.phase == phase:
                    return report
        return None


def observe(job: InferenceJob, cache: CacheView, queue: QueueView) -> Observed:
    """The state of the world around ``job`` now."""
    service = _service(cache.get(ObjectRef(LLM_SERVICE.kind, job.namespace, job.spec.service_ref.name)))
    drivers = tuple(
        _driver(manifest)
        for manifest in cache.labelled(job.uid, JOB.kind)
        if _is_driver(manifest) and not manifest["metadata"].get("deletionTimestamp")
    )
    uids = {driver.uid for driver in drivers}
    pods = tuple(
        _pod(manifest)
        for manifest in cache.labelled(job.uid, POD.kind)
        if _is_driver(manifest) and uids & {owner["uid"] for owner in manifest["metadata"].get("ownerReferences") or ()}
    )
    return Observed(
        service=service,
        drivers=drivers,
        pods=pods,
        progress=queue.progress(job.uid),
        counts=queue.shard_counts(job.uid),
        heartbeats=queue.heartbeats(service.target.queue_id) if service else (),
        queue_connected=queue.connected,
        queue_problem=queue.problem,
    )


def _service(manifest: Manifest | None) -> Service | None:
    """None also for one that is being deleted, or that this version cannot read."""
    if manifest is None or manifest["metadata"].get("deletionTimestamp"):
        return None
    try:
        spec = LLMServiceSpec.model_validate(manifest.get("spec") or {})
    except ValidationError:
        return None
    metadata = manifest["metadata"]
    names = spec.model.served_names
    return Service(
        name=metadata["name"],
        target=DriverTarget(
            queue_id=metadata["uid"],
            model=names[0] if names else metadata["name"],
            workers=max(1, spec.scaling.min_replicas),
            slots=spec.queue.max_jobs,
        ),
        lease_seconds=spec.queue.lease_seconds,
        heartbeat_seconds=spec.queue.heartbeat_seconds,
        state=_state(manifest),
    )


def _state(manifest: Manifest) -> str:
    for condition in (manifest.get("status") or {}).get("conditions") or ():
        if condition.get("type") == LLMServiceCondition.READY.value:
            message = condition.get("message")
            return f"{condition.get('reason')}: {message}" if message else str(condition.get("reason"))
    return "not looked at yet"


def _is_driver(manifest: Manifest) -> bool:
    return (manifest["metadata"].get("labels") or {}).get(COMPONENT_LABEL) == DRIVER_COMPONENT


def _driver(manifest: Manifest) -> Driver:
    conditions = {
        condition["type"]: condition
        for condition in (manifest.get("status") or {}).get("conditions") or ()
        if condition.get("status") == "True"
    }
    failed = conditions.get("Failed")
    return Driver(
        name=manifest["metadata"]["name"],
        uid=manifest["metadata"]["uid"],
        complete="Complete" in conditions,
        failed_message=None if failed is None else f"{failed.get('reason')}: {failed.get('message')}",
    )


def _pod(manifest: Manifest) -> DriverPod:
    status = manifest.get("status") or {}
    statuses = status.get("containerStatuses") or ()
    states = [
        state for container in statuses for state in (container.get("state") or {}, container.get("lastState") or {})
    ]
    waiting = next((state["waiting"] for state in states if "waiting" in state), None)
    running = next((state["running"] for state in states if "running" in state), None)
    started = (running or {}).get("startedAt")
    return DriverPod(
        name=manifest["metadata"]["name"],
        scheduling_message=_scheduling_message(status),
        waiting_message=_waiting_message(waiting),
        running_since=parse_rfc3339(started) if started else None,
        ended=status.get("phase") in _ENDED_PODS,
        reports=tuple(
            report
            for state in states
            if (report := _report((state.get("terminated") or {}).get("message"))) is not None
        ),
    )


def _scheduling_message(status: dict[str, Any]) -> str | None:
    for condition in status.get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return str(condition.get("message") or condition.get("reason"))
    return None


def _waiting_message(waiting: dict[str, Any] | None) -> str | None:
    if waiting is None or waiting.get("reason") in (None, "ContainerCreating", "PodInitializing"):
        return None
    return f"{waiting['reason']}: {waiting.get('message') or 'no more is known'}"


def _report(message: str | None) -> JobProgress | None:
    if not message:
        return None
    try:
        return JobProgress.model_validate_json(message)
    except ValidationError:
        return None
