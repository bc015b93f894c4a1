"""The plan that is in force, or what stands between the spec and one. Pure.

In this order: the plan that was made before stays while its inputs do; facts that are given need no reading; else the
Job that reads the model is made, waited for, and tried again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from vllm_operator.engine.plan import Deletion
from vllm_operator.kube.kinds import Manifest
from vllm_operator.llmservice.closed_loop import (
    MAX_ESCALATIONS,
    memory_failure,
    merged_calibration,
    observed_overheads,
)
from vllm_operator.llmservice.facts import FactsJob, read_facts
from vllm_operator.llmservice.observe import Observed
from vllm_operator.llmservice.plan_status import bare_status
from vllm_operator.llmservice.planning import Planned, PlanningInputs, inputs_hash, make_plan, still_possible
from vllm_operator.manifests.common import Owner
from vllm_operator.manifests.engine_pod import EngineInstall
from vllm_operator.manifests.model_facts import facts_job, facts_job_name
from vllm_operator.manifests.placement import check_resources
from vllm_operator.planner.engine_options import EngineOptions
from vllm_operator.planner.facts.errors import ModelError
from vllm_operator.planner.facts.override import apply_override
from vllm_operator.planner.problem import PlanProblem
from vllm_operator.planner.record import PlanRecord
from vllm_operator.planner.sources.location import ModelLocation
from vllm_operator_api.conditions import Reason
from vllm_operator_api.model import ModelFacts
from vllm_operator_api.runtime import ModelFactsError
from vllm_operator_api.v1alpha1.llmservice import LLMService, ModelFactsOverride, SecretKey
from vllm_operator_api.v1alpha1.llmservice_status import CalibrationStatus

FACTS_RETRY_SECONDS: Final = 60.0
"""A model that could not be read is looked at again after this time: its volume or the hub may have been mended."""
_READING: Final = "a Job in this namespace is at it"
OVERDUE_SECONDS: Final = 30.0
"""A Job that has no pod, or whose pod has no container, after this time gets none for now, and only events say why."""
_PODLESS: Final = (
    "the Job {job} gets no pod; the namespace probably refuses it (ResourceQuota, LimitRange or Pod Security): see "
    "kubectl describe job {job} -n {namespace}"
)
_MOUNTING: Final = (
    "the pod of the Job {job} has a node, but is not started; its volume{secret} may be missing: see kubectl describe "
    "pod -l job-name={job} -n {namespace}"
)
NODES_RETRY_SECONDS: Final = 30.0
"""Time between two looks at the nodes while no plan fits them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanStepConfig:
    """What the installation gives to every plan."""

    options: EngineOptions
    install: EngineInstall
    operator_image: str


@dataclass(frozen=True, slots=True)
class Reading:
    """The model's facts are not known yet."""

    detail: str


@dataclass(frozen=True, slots=True)
class PlanStep:
    """The plan, the problem or the reading, and the writes that go with it."""

    outcome: Planned | PlanProblem | Reading
    create: tuple[Manifest, ...] = ()
    delete: tuple[Deletion, ...] = ()
    look_again_seconds: float | None = None
    learned: CalibrationStatus | None = None
    """What an engine of the plan before wanted beside its weights when it died: to be remembered."""


def plan_step(
    service: LLMService,
    owner: Owner,
    location: ModelLocation,
    observed: Observed,
    config: PlanStepConfig,
    now: datetime,
) -> PlanStep:
    """Decide on the plan of one service."""
    token = service.spec.model.token_secret_ref
    name = facts_job_name(service.name, location, token)
    outdated = tuple(_delete(job) for job in observed.facts.jobs if job.ref.name != name)
    inputs = PlanningInputs(
        inventory=observed.inventory,
        options=config.options,
        leader_worker_set=observed.leader_worker_set,
        observed_overheads=observed_overheads(service.status.calibration),
    )
    kept = _kept_plan(service, observed)
    job = observed.facts.job(name)
    resource_name = service.spec.accelerator.resource_name
    if kept is not None and _can_stay(kept.record, observed, resource_name):
        return _kept_or_escalated(service, location, kept, job, observed, inputs, outdated)
    found = _known_facts(service, job)
    if isinstance(found, PlanProblem):
        return PlanStep(found, delete=outdated)
    if isinstance(found, ModelFacts):
        made = make_plan(service.spec, location, found, inputs)
        if isinstance(made, Planned):
            return PlanStep(made, delete=outdated)
        return PlanStep(kept or made, delete=outdated, look_again_seconds=NODES_RETRY_SECONDS)
    if kept is not None:
        return PlanStep(kept, delete=outdated)
    if job is None:
        new_job = facts_job(
            owner,
            location,
            image=config.operator_image,
            image_pull_policy=config.install.image_pull_policy,
            hub_endpoint=config.install.hub_endpoint,
            token=token,
        )
        return PlanStep(Reading(_READING), create=(new_job,), delete=outdated)
    return _unread(job, found, outdated, token, now)


def _can_stay(record: PlanRecord, observed: Observed, resource_name: str) -> bool:
    """Engines that serve are left alone, whatever became of their nodes; else a node must be possible for the next."""
    serving = any(pod.ready for pod in observed.live_pods)
    return serving or still_possible(record, observed.inventory, resource_name)


def _kept_or_escalated(
    service: LLMService,
    location: ModelLocation,
    kept: Planned,
    job: FactsJob | None,
    observed: Observed,
    inputs: PlanningInputs,
    outdated: tuple[Deletion, ...],
) -> PlanStep:
    """The plan in force, unless an engine of it found less memory than predicted and another plan needs less."""
    record, failure = kept.record, memory_failure(kept.record, observed)
    if (sizes := check_resources(service.spec.resources, record.layout.gpus_per_node)) is not None:
        return PlanStep(PlanProblem(Reason.INVALID_SPEC, sizes), delete=outdated)
    if failure is None:
        return PlanStep(kept, delete=outdated)
    stay = PlanStep(kept, delete=outdated, learned=failure.learned)
    facts = _known_facts(service, job)
    may_escalate = service.spec.parallelism.on_insufficient_memory == "Escalate"
    if not may_escalate or len(record.given_up) >= MAX_ESCALATIONS or not isinstance(facts, ModelFacts):
        return stay
    another = make_plan(
        service.spec,
        location,
        facts,
        replace(
            inputs,
            observed_overheads=observed_overheads(merged_calibration(service.status.calibration, failure.learned)),
            given_up=(*record.given_up, failure.given_up),
        ),
    )
    return PlanStep(another, delete=outdated, learned=failure.learned) if isinstance(another, Planned) else stay


def _known_facts(service: LLMService, job: FactsJob | None) -> ModelFacts | ModelFactsError | PlanProblem | None:
    """Facts that are given, read, or both; a given config.json needs no reading."""
    override = service.spec.model.facts
    found = None if job is None else read_facts(job, service.spec.model.id)
    if override is None or (override.config is None and not isinstance(found, ModelFacts)):
        return found
    try:
        return apply_override(found if isinstance(found, ModelFacts) else None, _override(override))
    except ModelError as error:
        return PlanProblem(error.reason, f"spec.model.facts: {error.message}")


def _override(override: ModelFactsOverride) -> dict[str, object]:
    return override.model_dump(by_alias=True, exclude_none=True)


def _unread(
    job: FactsJob,
    found: ModelFactsError | None,
    outdated: tuple[Deletion, ...],
    token: SecretKey | None,
    now: datetime,
) -> PlanStep:
    """A Job without facts: wait for it, tell its error, or make room for the next try."""
    if job.podless_since is not None:
        why = _PODLESS.format(job=job.ref.name, namespace=job.ref.namespace)
        return _overdue(job.podless_since, why, outdated, now)
    if job.mounting_since is not None:
        secret = "" if token is None else f", or the Secret {token.name} with the key {token.key} (tokenSecretRef)"
        why = _MOUNTING.format(job=job.ref.name, namespace=job.ref.namespace, secret=secret)
        return _overdue(job.mounting_since, why, outdated, now)
    outcome: PlanProblem | Reading = Reading(job.detail or _READING)
    retry_seconds = FACTS_RETRY_SECONDS
    if found is not None:
        outcome = PlanProblem(_reason(found), found.message)
        retry_seconds = max(retry_seconds, found.retry_after_seconds or 0)
    elif job.state == "complete":  # its pod was removed and the result with it, or is about to be seen
        outcome = Reading(_READING)
    if job.state == "running":
        return PlanStep(outcome, delete=outdated)
    age_seconds = (now - job.finished_at).total_seconds() if job.finished_at is not None else 0.0
    if age_seconds >= retry_seconds:
        return PlanStep(outcome, delete=(*outdated, _delete(job)))
    return PlanStep(outcome, delete=outdated, look_again_seconds=retry_seconds - age_seconds)


def _overdue(since: datetime, why: str, outdated: tuple[Deletion, ...], now: datetime) -> PlanStep:
    """A Job whose pod does not get on: a problem when that has lasted for some time."""
    age_seconds = (now - since).total_seconds()
    if age_seconds < OVERDUE_SECONDS:
        return PlanStep(Reading(_READING), delete=outdated, look_again_seconds=OVERDUE_SECONDS - age_seconds)
    problem = PlanProblem(Reason.MODEL_FACTS_UNAVAILABLE, f"the model cannot be read: {why}")
    return PlanStep(problem, delete=outdated)


def _reason(found: ModelFactsError) -> Reason:
    try:
        return Reason(found.reason)
    except ValueError:  # a reader of another version
        return Reason.MODEL_FACTS_UNAVAILABLE


def _kept_plan(service: LLMService, observed: Observed) -> Planned | None:
    """The plan that the engines were made from, while the spec asks for the same."""
    record = observed.workload.record if observed.workload is not None else None
    shown = service.status.plan
    if record is None or record.inputs != inputs_hash(service.spec):
        return None
    if shown is None or (shown.tensor, shown.gpus) != (record.layout.tensor, record.layout.gpus):
        shown = bare_status(record)  # it was lost, or is of a plan that could not be written
    return Planned(record, shown)


def _delete(job: FactsJob) -> Deletion:
    return Deletion(ref=job.ref, uid=job.uid)
