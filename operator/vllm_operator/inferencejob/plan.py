"""What to do about one InferenceJob. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from vllm_operator.engine.plan import Deletion, Failure, Plan
from vllm_operator.inferencejob.observe import Observed
from vllm_operator.inferencejob.parse import SpecProblem
from vllm_operator.kube.kinds import JOB, Manifest, ObjectRef
from vllm_operator.manifests.common import Owner
from vllm_operator.manifests.driver_job import DriverInstall, driver_job, driver_job_name
from vllm_operator.manifests.job_input import input_config_map, output_config_map
from vllm_operator_api.conditions import Reason
from vllm_operator_api.names import INFERENCE_JOB_KIND
from vllm_operator_api.queue import JobProgress
from vllm_operator_api.v1alpha1.inferencejob import InferenceJob

LOOK_AGAIN_SECONDS: Final = 10.0
"""While a job is under way: ages and silence are no events."""
LEFTOVER_SECONDS: Final = 1.0
"""Between looks whether the garbage collector has come by: ConfigMaps are not watched."""
TERMINAL_PHASES: Final = ("Succeeded", "PartiallySucceeded", "Failed")
LEASE_RESERVE: Final = 2
"""Twice what the workers hold at a time may be leased: during a rollout there are old and new ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputFacts:
    """What the reconcile found out about an output that goes into a ConfigMap."""

    exists: bool = False
    """Before anything ran: there is a ConfigMap of that name."""
    leftover: Failure | None = None
    """Before anything ran: there is still one of an earlier job of this name, which goes as that job did."""
    refused: str | None = None
    """Before anything ran: the API server would not take it."""
    content: bytes | None = None
    """What the driver has handed over."""
    lost: bool = False
    """The driver has succeeded, and the queue has no output of it (any more)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How the job ended."""

    succeeded: bool
    reason: Reason
    message: str
    report: JobProgress | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The writes, and what they are made for."""

    plan: Plan
    ending: Ending | None = None
    register: bool = False
    """The job has to be registered with its service's queue."""


def owner_of(job: InferenceJob) -> Owner:
    """The job as the owner of its children."""
    return Owner(INFERENCE_JOB_KIND, job.namespace, job.name, job.uid)


def needs_output_check(job: InferenceJob, observed: Observed) -> bool:
    """Whether it is to be found out now that the output's ConfigMap does not exist: before a driver first runs."""
    never_started = job.status.start_time is None and not observed.drivers
    return job.spec.output.config_map is not None and never_started and observed.service is not None


def needs_output(job: InferenceJob, observed: Observed) -> bool:
    """Whether the driver has left an output for a ConfigMap."""
    report = observed.final_report
    return job.spec.output.config_map is not None and report is not None and report.phase == "Succeeded"


def awaits_output(job: InferenceJob, observed: Observed) -> bool:
    """Whether the driver hands an output over just now: it waits while the stream for it does not exist."""
    report = observed.progress
    return job.spec.output.config_map is not None and report is not None and report.phase == "Finalizing"


def output_manifest(job: InferenceJob, content: bytes) -> Manifest:
    """The ConfigMap that the user asked for."""
    file = job.spec.output.config_map
    assert file is not None
    return output_config_map(owner_of(job), file.name, file.key, content.decode(errors="replace"))


def plan_job(
    job: InferenceJob, problem: SpecProblem | None, observed: Observed, output: OutputFacts, install: DriverInstall
) -> Decision:
    """The next step of a job that has not ended yet."""
    if problem is not None:
        rejected = Ending(succeeded=False, reason=Reason.INVALID_SPEC, message=problem.message)
        return Decision(plan=Plan(), ending=rejected if problem.permanent else None)
    ending = _ending(job, observed, output)
    if ending is not None:
        return _end(job, ending, output)
    if needs_output(job, observed):
        # Not lost, but not known either: the queue is away. Or lost: the rows run again.
        plan = Plan(delete=_deletions(job, observed, keep=None), requeue_after_seconds=1.0)
        return Decision(plan=plan if output.lost else Plan(requeue_after_seconds=LOOK_AGAIN_SECONDS))
    if observed.service is None:
        return Decision(plan=Plan(delete=_deletions(job, observed, keep=None)))
    if output.leftover is not None:
        return Decision(plan=Plan(requeue_after_seconds=LEFTOVER_SECONDS))
    owner = owner_of(job)
    target = observed.service.target
    name = driver_job_name(job.name, target.queue_id)
    create: list[Manifest] = []
    if job.spec.input.inline is not None and all(driver.name != name for driver in observed.drivers):
        create.append(input_config_map(owner, job.spec.input.inline.rows))
    create.append(driver_job(owner, job.spec, target, install))
    plan = Plan(
        create=tuple(create),
        delete=_deletions(job, observed, keep=name),
        requeue_after_seconds=LOOK_AGAIN_SECONDS,
    )
    return Decision(plan=plan, register=True)


def _ending(job: InferenceJob, observed: Observed, output: OutputFacts) -> Ending | None:
    if output.exists:
        return Ending(
            succeeded=False,
            reason=Reason.OUTPUT_EXISTS,
            message="the output's ConfigMap exists already and is not overwritten: remove it, or choose another name",
        )
    if output.refused is not None:
        return Ending(succeeded=False, reason=Reason.STORAGE_ERROR, message=f"output: {output.refused}")
    report = observed.final_report
    if report is not None:
        if report.phase == "Failed":
            return Ending(succeeded=False, reason=_reason(report), message=report.message, report=report)
        if needs_output(job, observed) and output.content is None:
            return None
        return _success(report)
    for driver in observed.drivers:
        if driver.failed_message is not None:
            message = f"the driver's Job failed: {driver.failed_message}"
            return Ending(succeeded=False, reason=Reason.DRIVER_FAILED, message=message)
        # The Job and its pod come by different watches: the pod's own word may be on its way.
        if driver.complete and all(pod.ended for pod in observed.pods):
            message = "the driver ended and its report was lost: look whether the output is there"
            return Ending(succeeded=False, reason=Reason.DRIVER_FAILED, message=message)
    return None


def _success(report: JobProgress) -> Ending:
    if report.rows_failed:
        message = f"{report.rows_failed} of {report.rows_completed + report.rows_failed} rows carry an error"
        return Ending(succeeded=True, reason=Reason.ROWS_FAILED, message=message, report=report)
    message = f"all {report.rows_completed} rows are answered"
    return Ending(succeeded=True, reason=Reason.SUCCEEDED, message=message, report=report)


def _reason(report: JobProgress) -> Reason:
    try:
        return Reason(report.reason or "")
    except ValueError:
        return Reason.DRIVER_FAILED


def _end(job: InferenceJob, ending: Ending, output: OutputFacts) -> Decision:
    create = (output_manifest(job, output.content),) if ending.succeeded and output.content is not None else ()
    return Decision(plan=Plan(create=create), ending=ending)


def _deletions(job: InferenceJob, observed: Observed, *, keep: str | None) -> tuple[Deletion, ...]:
    """Drivers of a queue that is not the service's (any more). What they have done lies on the storage."""
    return tuple(
        Deletion(ref=ObjectRef(JOB.kind, job.namespace, driver.name), uid=driver.uid)
        for driver in observed.drivers
        if driver.name != keep
    )
