"""What should be, for one service. Pure: the same inputs give the same writes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from vllm_operator.engine.clock import rfc3339_micro
from vllm_operator.engine.plan import MergePatch, Plan
from vllm_operator.kube.kinds import Manifest, ObjectRef
from vllm_operator.llmservice.drain import DrainDecision, DrainInputs, decide, fenced_pods
from vllm_operator.llmservice.engines import engine_workload, other_workload
from vllm_operator.llmservice.observe import EnginePod, Observed
from vllm_operator.llmservice.plan_step import PlanStepConfig, Reading, plan_step
from vllm_operator.llmservice.planning import Planned, check_spec
from vllm_operator.manifests.common import Owner
from vllm_operator.manifests.llmservice_service import engine_service
from vllm_operator.planner.problem import PlanProblem
from vllm_operator_api.names import FENCED_AT_ANNOTATION, LLM_SERVICE_KIND, ROUTABLE_LABEL
from vllm_operator_api.quantities import parse_duration_seconds
from vllm_operator_api.v1alpha1.llmservice import LLMService
from vllm_operator_api.v1alpha1.llmservice_status import CalibrationStatus

WORKERS_LOOK_SECONDS: Final = 10.0
"""Time between two looks at engines that run: nothing tells of an agent that falls silent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanConfig:
    """What the installation and the process give to every plan."""

    steps: PlanStepConfig
    quiet_seconds: float
    operator_started_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The writes to make, and what the status tells about them."""

    plan: Plan
    rejected: PlanProblem | None = None
    """The spec is not accepted: nothing is written."""
    outcome: Planned | PlanProblem | Reading | None = None
    drain: DrainDecision | None = None
    """None while there is no plan to run."""
    learned: CalibrationStatus | None = None
    """What an engine of the plan before wanted beside its weights when it died."""


def plan_service(service: LLMService, observed: Observed, config: PlanConfig, now: datetime) -> Decision:
    """Decide everything for one service.

    A spec that is not accepted leaves all children as they are, and a plan problem the engines that run; only a drain
    that had begun is taken back, so that they serve.
    """
    location = check_spec(service.spec, config.steps.options)
    if isinstance(location, PlanProblem):
        return reject_spec(service, observed, location)
    owner = Owner(LLM_SERVICE_KIND, service.namespace, service.name, service.uid)
    step = plan_step(service, owner, location, observed, config.steps, now)
    apply: list[Manifest] = [engine_service(owner)]
    patches = _back_into_routing(service, observed)
    drain: DrainDecision | None = None
    delete = step.delete
    if isinstance(step.outcome, Planned):
        drain, record = decide(_drain_inputs(service, observed, config, now)), step.outcome.record
        apply.append(
            engine_workload(owner, service.spec, location, record, config.steps.install, replicas=drain.replicas)
        )
        delete = (*delete, *other_workload(record, observed.workloads))
        patches = _patches(service.namespace, drain, now)
    again = [
        step.look_again_seconds,
        None if drain is None else drain.look_again_seconds,
        WORKERS_LOOK_SECONDS if any(pod.running for pod in observed.live_pods) else None,
    ]
    return Decision(
        plan=Plan(
            apply=tuple(apply),
            create=step.create,
            patch=patches,
            delete=delete,
            requeue_after_seconds=min((seconds for seconds in again if seconds is not None), default=None),
        ),
        outcome=step.outcome,
        drain=drain,
        learned=step.learned,
    )


def reject_spec(service: LLMService, observed: Observed, problem: PlanProblem) -> Decision:
    """A spec that is not accepted: nothing changes, but engines that were being drained serve on."""
    return Decision(plan=Plan(patch=_back_into_routing(service, observed)), rejected=problem)


def _drain_inputs(service: LLMService, observed: Observed, config: PlanConfig, now: datetime) -> DrainInputs:
    scaling = service.spec.scaling
    return DrainInputs(
        now=now,
        operator_started_at=config.operator_started_at,
        min_replicas=scaling.min_replicas,
        idle_after_seconds=None if scaling.idle_after is None else parse_duration_seconds(scaling.idle_after),
        quiet_seconds=config.quiet_seconds,
        heartbeat_seconds=service.spec.queue.heartbeat_seconds,
        current_replicas=None if observed.workload is None else observed.workload.replicas,
        pods=observed.live_pods,
        heartbeats=observed.heartbeats,
        demand=bool(observed.demanding_jobs),
    )


def _back_into_routing(service: LLMService, observed: Observed) -> tuple[MergePatch, ...]:
    return tuple(_pod_patches(service.namespace, fenced_pods(observed.live_pods), routable="true", fenced_at=None))


def _patches(namespace: str, drain: DrainDecision, now: datetime) -> tuple[MergePatch, ...]:
    return (
        *_pod_patches(namespace, drain.fence, routable="false", fenced_at=rfc3339_micro(now)),
        *_pod_patches(namespace, drain.unfence, routable="true", fenced_at=None),
    )


def _pod_patches(
    namespace: str, pods: Iterable[EnginePod], *, routable: str, fenced_at: str | None
) -> Iterable[MergePatch]:
    for pod in pods:
        yield MergePatch(
            ref=ObjectRef("Pod", namespace, pod.name),
            body={
                "metadata": {
                    "uid": pod.uid,
                    "labels": {ROUTABLE_LABEL: routable},
                    "annotations": {FENCED_AT_ANNOTATION: fenced_at},
                }
            },
        )
