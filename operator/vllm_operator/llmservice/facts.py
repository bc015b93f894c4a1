"""What is known of the model, from the Job that reads it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from pydantic import ValidationError

from vllm_operator.engine.clock import parse_rfc3339
from vllm_operator.kube.kinds import Manifest, ObjectRef
from vllm_operator.manifests.common import MODEL_FACTS_COMPONENT
from vllm_operator_api.conditions import Reason
from vllm_operator_api.model import ModelFacts
from vllm_operator_api.names import COMPONENT_LABEL
from vllm_operator_api.runtime import ModelFactsError, ModelFactsResult


@dataclass(frozen=True, slots=True, kw_only=True)
class FactsJob:
    """A model-facts Job, finished or not."""

    ref: ObjectRef
    uid: str
    state: Literal["running", "complete", "failed"]
    finished_at: datetime | None
    result: ModelFactsResult | None
    """The last termination message of its pods; of a failed Job: of its last try."""
    detail: str
    """What it waits for or died of, where there is no result."""
    claim_missing: bool = False
    """Its pod waits for a PersistentVolumeClaim that does not exist."""
    image_problem: bool = False
    """Its pod waits for an image that cannot be pulled."""
    silent: bool = False
    """Its pod has ended without a result that can be read."""
    podless_since: datetime | None = None
    """The Job controller has begun with it and there is no pod."""
    mounting_since: datetime | None = None
    """Its pod has a node and its container is still being made: a volume may be missing, of which only events tell."""


@dataclass(frozen=True, slots=True)
class FactsState:
    """All model-facts Jobs of a service: normally none or one."""

    jobs: tuple[FactsJob, ...] = ()

    def job(self, name: str) -> FactsJob | None:
        """The Job of this name."""
        return next((job for job in self.jobs if job.ref.name == name), None)


def observe_facts(jobs: Iterable[Manifest], pods: tuple[Manifest, ...]) -> FactsState:
    """Typed view of the model-facts Jobs among ``jobs``; their results lie in the statuses of ``pods``."""
    return FactsState(
        tuple(
            _facts_job(job, pods)
            for job in jobs
            if (job["metadata"].get("labels") or {}).get(COMPONENT_LABEL) == MODEL_FACTS_COMPONENT
            and not job["metadata"].get("deletionTimestamp")
        )
    )


def _facts_job(job: Manifest, pods: tuple[Manifest, ...]) -> FactsJob:
    uid = job["metadata"]["uid"]
    own = sorted((pod for pod in pods if _controlled_by(pod, uid)), key=_created)
    conditions = {c["type"]: c for c in (job.get("status") or {}).get("conditions") or [] if c.get("status") == "True"}
    state: Literal["running", "complete", "failed"] = "running"
    finished = conditions.get("Complete")
    if finished is not None:
        state = "complete"
    elif (finished := conditions.get("Failed")) is not None:
        state = "failed"
    result = next((found for pod in reversed(own) if (found := _result(pod)) is not None), None)
    waiting = _waiting(own[-1]) if own else {}
    unscheduled = _unscheduled_message(own[-1]) if own else ""
    started_at = parse_time((job.get("status") or {}).get("startTime"))
    return FactsJob(
        ref=ObjectRef.of(job),
        uid=uid,
        state=state,
        finished_at=parse_time((finished or {}).get("lastTransitionTime")),
        result=result,
        detail=_detail(own, waiting, unscheduled, (finished or {}).get("message", "")),
        claim_missing="persistentvolumeclaim" in unscheduled and "not found" in unscheduled,
        image_problem=waiting.get("reason") in IMAGE_REASONS,
        silent=result is None and bool(own) and _terminated(own[-1]) is not None,
        podless_since=started_at if state == "running" and not own else None,
        mounting_since=_mounting_since(own[-1]) if own else None,
    )


def _mounting_since(pod: Manifest) -> datetime | None:
    if _waiting(pod).get("reason") != "ContainerCreating":
        return None
    conditions = (pod.get("status") or {}).get("conditions") or []
    bound: dict[str, Any] = next(
        (c for c in conditions if c.get("type") == "PodScheduled" and c.get("status") == "True"), {}
    )
    return parse_time(bound.get("lastTransitionTime"))


IMAGE_REASONS = frozenset(
    {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError"}
)
"""The kubelet's reasons for a container that waits for its image."""


def _detail(own: list[Manifest], waiting: dict[str, Any], unscheduled: str, job_message: str) -> str:
    if unscheduled:
        return unscheduled
    if waiting.get("reason") not in (None, "ContainerCreating", "PodInitializing"):
        return f"{waiting['reason']}: {waiting.get('message', '')}".strip()
    if not own:
        return job_message
    terminated = _terminated(own[-1])
    if terminated is not None:
        reason = terminated.get("reason", "Error")
        code = terminated.get("exitCode")
        return f"its container ended with exit code {code} ({reason}) and said nothing that can be read"
    return job_message


def _result(pod: Manifest) -> ModelFactsResult | None:
    message = (_terminated(pod) or {}).get("message")
    if not message:
        return None
    try:
        result = ModelFactsResult.model_validate_json(message)
    except ValidationError:
        return None
    if (result.facts is None) == (result.error is None):
        return None
    return result


def _terminated(pod: Manifest) -> dict[str, Any] | None:
    state = _container(pod).get("state") or {}
    terminated: dict[str, Any] | None = state.get("terminated")
    return terminated


def _waiting(pod: Manifest) -> dict[str, Any]:
    waiting: dict[str, Any] = (_container(pod).get("state") or {}).get("waiting") or {}
    return waiting


def _container(pod: Manifest) -> dict[str, Any]:
    statuses = (pod.get("status") or {}).get("containerStatuses") or [{}]
    first: dict[str, Any] = statuses[0]
    return first


def _unscheduled_message(pod: Manifest) -> str:
    for condition in (pod.get("status") or {}).get("conditions") or []:
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return str(condition.get("message", ""))
    return ""


def _controlled_by(pod: Manifest, uid: str) -> bool:
    return any(owner.get("uid") == uid for owner in pod["metadata"].get("ownerReferences") or ())


def _created(pod: Manifest) -> tuple[str, str]:
    return str(pod["metadata"].get("creationTimestamp", "")), pod["metadata"]["name"]


def parse_time(text: Any) -> datetime | None:
    """A time that Kubernetes or the operator wrote; None when it is absent or not one."""
    try:
        return parse_rfc3339(str(text)) if text else None
    except ValueError:
        return None


def read_facts(job: FactsJob, source: str) -> ModelFacts | ModelFactsError | None:
    """What a Job found out, None while it is at it. A failed Job is an error that may pass."""
    if job.result is not None and (job.state != "running" or job.result.facts is not None):
        if job.result.error is None:
            return job.result.facts
        error = job.result.error
        named = error.message if source in error.message else f"{source}: {error.message}"
        return error.model_copy(update={"message": named})
    if job.claim_missing:
        return ModelFactsError(
            reason=Reason.MODEL_NOT_FOUND,
            message=f"the model {source} cannot be read: {job.detail}; create the PersistentVolumeClaim",
        )
    if job.image_problem:
        return ModelFactsError(
            reason=Reason.MODEL_FACTS_UNAVAILABLE,
            message=f"the model {source} cannot be read: the operator's image cannot be pulled: {job.detail}",
        )
    if job.state == "failed" or (job.state == "complete" and job.silent):
        return ModelFactsError(
            reason=Reason.MODEL_FACTS_UNAVAILABLE,
            message=f"the model {source} cannot be read: {job.detail or 'the Job failed'}; it is tried again",
        )
    return None
