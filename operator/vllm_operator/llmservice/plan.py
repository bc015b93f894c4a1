"""What should be, for one service. Pure: the same inputs give the same writes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from vllm_operator.engine.clock import rfc3339_micro
from vllm_operator.engine.plan import Deletion, MergePatch, Plan
from vllm_operator.kube.kinds import Manifest, ObjectRef
from vllm_operator.llmservice.drain import DrainDecision, DrainInputs, decide, fenced_pods
from vllm_operator.llmservice.facts import FactsJob, read_facts
from vllm_operator.llmservice.observe import EnginePod, Observed
from vllm_operator.llmservice.planning import Planned, check_spec, inputs_hash, make_plan, still_possible
from vllm_operator.manifests.common import Owner
from vllm_operator.manifests.engine_deployment import EngineInstall, engine_deployment
from vllm_operator.manifests.llmservice_service import engine_service
from vllm_operator.manifests.model_facts import facts_job, facts_job_name
from vllm_operator.planner.engine_options import EngineOptions
from vllm_operator.planner.model_source import ModelLocation
from vllm_operator.planner.problem import PlanProblem
from vllm_operator_api.conditions import Reason
from vllm_operator_api.names import FENCED_AT_ANNOTATION, LLM_SERVICE_KIND, ROUTABLE_LABEL
from vllm_operator_api.quantities import parse_duration_seconds
from vllm_operator_api.runtime import ModelFacts, ModelFactsError
from vllm_operator_api.v1alpha1.llmservice import LLMService

FACTS_RETRY_SECONDS: Final = 60.0
"""A model that could not be read is looked at again after this time: its volume or the hub may have been mended."""
_READING: Final = "a Job in this namespace is at it"
PODLESS_SECONDS: Final = 30.0
"""A Job that has no pod after this time gets none for now: its namespace refuses it, and only the Job's events say why
(Jobs have no condition for that)."""
WORKERS_LOOK_SECONDS: Final = 10.0
"""Time between two looks at engines that run: nothing tells of an agent that falls silent."""
NODES_RETRY_SECONDS: Final = 30.0
"""Time between two looks at the nodes while no plan fits them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanConfig:
    """What the installation and the process give to every plan."""

    options: EngineOptions
    install: EngineInstall
    operator_image: str
    quiet_seconds: float
    operator_started_at: datetime


@dataclass(frozen=True, slots=True)
class Reading:
    """The model's facts are not known yet."""

    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The writes to make, and what the status tells about them."""

    plan: Plan
    rejected: PlanProblem | None = None
    """The spec is not accepted: nothing is written."""
    outcome: Planned | PlanProblem | Reading | None = None
    drain: DrainDecision | None = None
    """None while there is no plan to run."""


@dataclass(frozen=True, slots=True)
class _FactsStep:
    outcome: Planned | PlanProblem | Reading
    create: tuple[Manifest, ...] = ()
    delete: tuple[Deletion, ...] = ()
    look_again_seconds: float | None = None


def plan_service(service: LLMService, observed: Observed, config: PlanConfig, now: datetime) -> Decision:
    """Decide everything for one service.

    A spec that is not accepted leaves all children as they are, and a plan problem the engines that run; only a drain
    that had begun is taken back, so that they serve.
    """
    location = check_spec(service.spec, config.options)
    if isinstance(location, PlanProblem):
        return reject_spec(service, observed, location)
    owner = Owner(LLM_SERVICE_KIND, service.namespace, service.name, service.uid)
    step = _facts_step(service, owner, location, observed, config, now)
    apply: list[Manifest] = [engine_service(owner)]
    patches = _back_into_routing(service, observed)
    drain: DrainDecision | None = None
    if isinstance(step.outcome, Planned):
        drain = decide(_drain_inputs(service, observed, config, now))
        apply.append(
            engine_deployment(
                owner, service.spec, location, step.outcome.record, config.install, replicas=drain.replicas
            )
        )
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
            delete=step.delete,
            requeue_after_seconds=min((seconds for seconds in again if seconds is not None), default=None),
        ),
        outcome=step.outcome,
        drain=drain,
    )


def reject_spec(service: LLMService, observed: Observed, problem: PlanProblem) -> Decision:
    """A spec that is not accepted: nothing changes, but engines that were being drained serve on."""
    return Decision(plan=Plan(patch=_back_into_routing(service, observed)), rejected=problem)


def _facts_step(
    service: LLMService,
    owner: Owner,
    location: ModelLocation,
    observed: Observed,
    config: PlanConfig,
    now: datetime,
) -> _FactsStep:
    name = facts_job_name(service.name, location)
    outdated = tuple(_delete(job) for job in observed.facts.jobs if job.ref.name != name)
    kept = _kept_plan(service, observed)
    job = observed.facts.job(name)
    if kept is not None and still_possible(kept.record, observed.inventory):
        return _FactsStep(kept, delete=outdated)
    found = None if job is None else read_facts(job, service.spec.model.id)
    if isinstance(found, ModelFacts):
        made = make_plan(service.spec, location, found, observed.inventory, config.options)
        if isinstance(made, Planned):
            return _FactsStep(made, delete=outdated)
        return _FactsStep(kept or made, delete=outdated, look_again_seconds=NODES_RETRY_SECONDS)
    if kept is not None:
        return _FactsStep(kept, delete=outdated)
    if job is None:
        new_job = facts_job(
            owner,
            location,
            image=config.operator_image,
            image_pull_policy=config.install.image_pull_policy,
            hub_endpoint=config.install.hub_endpoint,
        )
        return _FactsStep(Reading(_READING), create=(new_job,), delete=outdated)
    return _unread(job, found, outdated, now)


def _unread(job: FactsJob, found: ModelFactsError | None, outdated: tuple[Deletion, ...], now: datetime) -> _FactsStep:
    """A Job without facts: wait for it, tell its error, or make room for the next try."""
    if job.podless_since is not None:
        return _podless(job, job.podless_since, outdated, now)
    outcome: PlanProblem | Reading = Reading(job.detail or _READING)
    if found is not None:
        outcome = PlanProblem(_reason(found), found.message)
    elif job.state == "complete":  # its pod was removed and the result with it, or is about to be seen
        outcome = Reading(_READING)
    if job.state == "running":
        return _FactsStep(outcome, delete=outdated)
    age_seconds = (now - job.finished_at).total_seconds() if job.finished_at is not None else 0.0
    if age_seconds >= FACTS_RETRY_SECONDS:
        return _FactsStep(outcome, delete=(*outdated, _delete(job)))
    return _FactsStep(outcome, delete=outdated, look_again_seconds=FACTS_RETRY_SECONDS - age_seconds)


def _podless(job: FactsJob, since: datetime, outdated: tuple[Deletion, ...], now: datetime) -> _FactsStep:
    age_seconds = (now - since).total_seconds()
    if age_seconds < PODLESS_SECONDS:
        return _FactsStep(Reading(_READING), delete=outdated, look_again_seconds=PODLESS_SECONDS - age_seconds)
    message = (
        f"the model cannot be read: the Job {job.ref.name} gets no pod; the namespace probably refuses it "
        f"(ResourceQuota, LimitRange or Pod Security): see kubectl describe job {job.ref.name} -n {job.ref.namespace}"
    )
    return _FactsStep(PlanProblem(Reason.MODEL_FACTS_UNAVAILABLE, message), delete=outdated)


def _reason(found: ModelFactsError) -> Reason:
    try:
        return Reason(found.reason)
    except ValueError:  # a reader of another version
        return Reason.MODEL_FACTS_UNAVAILABLE


def _kept_plan(service: LLMService, observed: Observed) -> Planned | None:
    """The plan that the Deployment was made from, while the spec asks for the same."""
    record = observed.deployment.record if observed.deployment is not None else None
    shown = service.status.plan
    if record is None or record.inputs != inputs_hash(service.spec):
        return None
    if shown is None or shown.tensor != record.tensor:
        return None
    return Planned(record, shown)


def _delete(job: FactsJob) -> Deletion:
    return Deletion(ref=job.ref, uid=job.uid)


def _drain_inputs(service: LLMService, observed: Observed, config: PlanConfig, now: datetime) -> DrainInputs:
    scaling = service.spec.scaling
    return DrainInputs(
        now=now,
        operator_started_at=config.operator_started_at,
        min_replicas=scaling.min_replicas,
        idle_after_seconds=None if scaling.idle_after is None else parse_duration_seconds(scaling.idle_after),
        quiet_seconds=config.quiet_seconds,
        heartbeat_seconds=service.spec.queue.heartbeat_seconds,
        current_replicas=None if observed.deployment is None else observed.deployment.replicas,
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
