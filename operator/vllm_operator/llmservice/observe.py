"""What is, as typed values: the engines' workload, its pods, the facts Job, demand, GPUs and heartbeats. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Protocol

from pydantic import ValidationError

from vllm_operator.kube.kinds import DEPLOYMENT, LEADER_WORKER_SET, NODE, Manifest, ObjectRef
from vllm_operator.llmservice.facts import FactsState, observe_facts, parse_time
from vllm_operator.manifests.common import ENGINE_COMPONENT, MODEL_FACTS_COMPONENT
from vllm_operator.manifests.engine_deployment import engine_deployment_name
from vllm_operator.manifests.engine_pod import ENGINE_CONTAINER
from vllm_operator.manifests.leader_worker_set import leader_worker_set_name
from vllm_operator.planner.inventory.nodes import node_ready
from vllm_operator.planner.inventory.pool import Inventory
from vllm_operator.planner.record import PlanRecord, parse_plan_record
from vllm_operator.queue.view import QueueView, SeenHeartbeat
from vllm_operator_api.names import (
    COMPONENT_LABEL,
    FENCED_AT_ANNOTATION,
    INFERENCE_JOB_KIND,
    PLAN_ANNOTATION,
    PLAN_KEY_ANNOTATION,
    ROUTABLE_LABEL,
)
from vllm_operator_api.runtime import EngineExit
from vllm_operator_api.v1alpha1.llmservice import LLMService

_RUNNING_PHASE: Final = "Running"
_ENDED_PHASES: Final = frozenset({"Failed", "Succeeded"})


class CacheView(Protocol):
    """What is read of the operator's cache."""

    def get(self, ref: ObjectRef) -> Manifest | None: ...

    def list(self, kind: str, namespace: str | None = None) -> tuple[Manifest, ...]: ...

    def labelled(self, owner_uid: str, kind: str) -> tuple[Manifest, ...]: ...


class ClusterView(Protocol):
    """What is known of the cluster's accelerators, shared by all services. None of these calls does I/O."""

    def inventory(self) -> Inventory:
        """The pools of all accelerators."""
        ...

    def quota_left(self, namespace: str, resource_name: str) -> int | None:
        """Accelerators that the namespace's ResourceQuotas leave; None: no quota, or not known."""
        ...

    @property
    def leader_worker_set(self) -> bool:
        """Whether the cluster has LeaderWorkerSets."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerExit:
    """The last end of the engine container."""

    exit_code: int
    reason: str
    message: str

    @property
    def told(self) -> EngineExit | None:
        """What the runtime says of the end, where it could say it: another message is of the kubelet or the image."""
        try:
            return EngineExit.model_validate_json(self.message)
        except ValidationError:
            return None


@dataclass(frozen=True, slots=True, kw_only=True)
class EnginePod:
    """A pod with an engine's HTTP server."""

    name: str
    uid: str
    node: str | None
    ready: bool
    ready_since: datetime | None
    routable: bool
    fenced_at: datetime | None
    terminating: bool
    """It is being deleted, or has ended for good (evicted) and only its object is left."""
    node_lost: bool = False
    """The node it is bound to does not answer or is gone: what its status says is of the past."""
    running: bool = False
    """The engine container runs (it may still be loading)."""
    running_since: datetime | None = None
    waiting_reason: str = ""
    waiting_message: str = ""
    unschedulable_message: str = ""
    last_exit: ContainerExit | None = None
    plan_key: str = ""
    """``PlanRecord.key`` of the plan that it was made from."""
    node_labels: Mapping[str, str] = field(default_factory=dict)
    """Of the node that it is bound to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineWorkload:
    """The Deployment or LeaderWorkerSet of a service's engines, as it is."""

    ref: ObjectRef
    uid: str
    replicas: int
    """Asked for, not those that exist."""
    record: PlanRecord | None
    created_at: str = ""
    replica_failure: str = ""
    """Why the API server refuses its pods."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """Everything that plan and status of one service are functions of, beside its spec."""

    workloads: tuple[EngineWorkload, ...]
    """One; for the moment of a change between a plan on one node and one on several, two."""
    pods: tuple[EnginePod, ...]
    facts: FactsState
    inventory: Inventory
    leader_worker_set: bool
    """Whether the cluster has LeaderWorkerSets."""
    quota_left: int | None
    """Accelerators that the namespace's quota leaves; None: no quota, or not known."""
    demanding_jobs: tuple[str, ...]
    """InferenceJobs with work for this service."""
    heartbeats: Mapping[str, SeenHeartbeat]
    """By pod name; only of pods that exist, by uid."""
    queue_connected: bool
    queue_problem: str | None = None

    @property
    def workload(self) -> EngineWorkload | None:
        """What makes the engines: of two the newer one."""
        return max(self.workloads, key=lambda workload: workload.created_at, default=None)

    @property
    def live_pods(self) -> tuple[EnginePod, ...]:
        """Pods that are not being deleted."""
        return tuple(pod for pod in self.pods if not pod.terminating)


def observe(service: LLMService, cache: CacheView, queue: QueueView, cluster: ClusterView) -> Observed:
    """Collect what memory holds about a service. No I/O."""
    manifests = cache.labelled(service.uid, "Pod")
    pods = tuple(_engine_pod(pod, _node(pod, cache)) for pod in manifests if _component(pod) == ENGINE_COMPONENT)
    facts_pods = tuple(pod for pod in manifests if _component(pod) == MODEL_FACTS_COMPONENT)
    uids = {pod.name: pod.uid for pod in pods}
    return Observed(
        workloads=_workloads(service, cache),
        pods=pods,
        facts=observe_facts(cache.labelled(service.uid, "Job"), facts_pods),
        inventory=cluster.inventory(),
        leader_worker_set=cluster.leader_worker_set,
        quota_left=cluster.quota_left(service.namespace, service.spec.accelerator.resource_name),
        demanding_jobs=tuple(
            job["metadata"]["name"]
            for job in cache.list(INFERENCE_JOB_KIND, service.namespace)
            if _demands(job, service.name)
        ),
        heartbeats={
            seen.heartbeat.worker: seen
            for seen in queue.heartbeats(service.uid)
            if uids.get(seen.heartbeat.worker) == seen.heartbeat.pod_uid
        },
        queue_connected=queue.connected,
        queue_problem=queue.problem,
    )


def _component(manifest: Manifest) -> str:
    return str((manifest["metadata"].get("labels") or {}).get(COMPONENT_LABEL, ""))


def _demands(job: Manifest, service_name: str) -> bool:
    reference = (job.get("spec") or {}).get("serviceRef") or {}
    phase = (job.get("status") or {}).get("phase")
    return (
        reference.get("name") == service_name
        and phase == _RUNNING_PHASE
        and not job["metadata"].get("deletionTimestamp")
    )


def _workloads(service: LLMService, cache: CacheView) -> tuple[EngineWorkload, ...]:
    refs = (
        ObjectRef(DEPLOYMENT.kind, service.namespace, engine_deployment_name(service.name)),
        ObjectRef(LEADER_WORKER_SET.kind, service.namespace, leader_worker_set_name(service.name)),
    )
    found = (_workload(manifest, service.uid) for ref in refs if (manifest := cache.get(ref)) is not None)
    return tuple(workload for workload in found if workload is not None)


def _workload(manifest: Manifest, owner_uid: str) -> EngineWorkload | None:
    """None for one that is somebody else's or on its way out: it says nothing about this service."""
    metadata = manifest["metadata"]
    owners = metadata.get("ownerReferences") or []
    if metadata.get("deletionTimestamp") or not any(owner.get("uid") == owner_uid for owner in owners):
        return None
    conditions = (manifest.get("status") or {}).get("conditions") or []
    failure: dict[str, Any] = next(
        (c for c in conditions if c.get("type") == "ReplicaFailure" and c.get("status") == "True"), {}
    )
    return EngineWorkload(
        ref=ObjectRef.of(manifest),
        uid=metadata["uid"],
        replicas=int(manifest["spec"].get("replicas", 1)),
        record=parse_plan_record((metadata.get("annotations") or {}).get(PLAN_ANNOTATION)),
        created_at=str(metadata.get("creationTimestamp") or ""),
        replica_failure=str(failure.get("message", "")),
    )


def _node(pod: Manifest, cache: CacheView) -> Manifest | None:
    """The node that a pod is bound to, None when it is not bound or its node is gone."""
    name = (pod.get("spec") or {}).get("nodeName")
    return None if name is None else cache.get(ObjectRef(NODE.kind, "", name))


def _engine_pod(manifest: Manifest, node: Manifest | None) -> EnginePod:
    metadata, status = manifest["metadata"], manifest.get("status") or {}
    node_name = (manifest.get("spec") or {}).get("nodeName")
    conditions = {condition["type"]: condition for condition in status.get("conditions") or []}
    ready = conditions.get("Ready", {})
    scheduled = conditions.get("PodScheduled", {})
    is_ready = ready.get("status") == "True"
    containers = status.get("containerStatuses") or []
    container: dict[str, Any] = next((c for c in containers if c.get("name") == ENGINE_CONTAINER), {})
    state = container.get("state") or {}
    waiting, running = state.get("waiting") or {}, state.get("running")
    terminated = state.get("terminated") or (container.get("lastState") or {}).get("terminated")
    return EnginePod(
        name=metadata["name"],
        uid=metadata["uid"],
        node=node_name,
        node_lost=node_name is not None and (node is None or not node_ready(node)),
        node_labels={} if node is None else node["metadata"].get("labels") or {},
        ready=is_ready,
        ready_since=parse_time(ready.get("lastTransitionTime")) if is_ready else None,
        routable=(metadata.get("labels") or {}).get(ROUTABLE_LABEL) == "true",
        fenced_at=parse_time((metadata.get("annotations") or {}).get(FENCED_AT_ANNOTATION)),
        terminating=bool(metadata.get("deletionTimestamp")) or status.get("phase") in _ENDED_PHASES,
        running=running is not None,
        running_since=parse_time((running or {}).get("startedAt")),
        waiting_reason=str(waiting.get("reason", "")),
        waiting_message=str(waiting.get("message", "")),
        unschedulable_message=str(scheduled.get("message", "")) if scheduled.get("status") == "False" else "",
        last_exit=None if terminated is None else container_exit(terminated),
        plan_key=str((metadata.get("annotations") or {}).get(PLAN_KEY_ANNOTATION, "")),
    )


def container_exit(terminated: Mapping[str, Any]) -> ContainerExit:
    """A container's ``state.terminated``."""
    return ContainerExit(
        exit_code=int(terminated.get("exitCode", 0)),
        reason=str(terminated.get("reason", "")),
        message=str(terminated.get("message", "")),
    )
