"""The I/O shell of one InferenceJob: observe, plan, execute, tell."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from datetime import datetime
from typing import Any, Final, Literal

import structlog

from vllm_operator.engine.clock import Clock
from vllm_operator.engine.executor import UnfinishedWritesError, controller_of
from vllm_operator.engine.plan import Failure
from vllm_operator.engine.ports import EventSink, PlanExecutor, StatusSink
from vllm_operator.engine.result import Done, RequeueAfter, Result, look_again
from vllm_operator.inferencejob.observe import CacheView, Observed, observe
from vllm_operator.inferencejob.parse import SpecProblem, parse_job
from vllm_operator.inferencejob.plan import (
    LEASE_RESERVE,
    TERMINAL_PHASES,
    Decision,
    Ending,
    OutputFacts,
    awaits_output,
    needs_output,
    needs_output_check,
    output_manifest,
    plan_job,
)
from vllm_operator.inferencejob.status import EVENT_CONDITIONS, Situation, job_status, status_document, status_facts
from vllm_operator.kube.client import KubeClient
from vllm_operator.kube.errors import AlreadyExistsError, NotFoundError, TerminalError
from vllm_operator.kube.kinds import CONFIG_MAP, Key, Manifest, ObjectRef
from vllm_operator.manifests.driver_job import DriverInstall
from vllm_operator.queue.view import QueueAdmin, QueueUnavailableError, QueueView
from vllm_operator.settings import Settings
from vllm_operator_api.conditions import ConditionStatus, Reason
from vllm_operator_api.names import INFERENCE_JOB_KIND
from vllm_operator_api.v1alpha1.inferencejob import InferenceJob, InferenceJobStatus

_RETRY_SECONDS: Final = 10.0
_MAX_REMEMBERED: Final = 10_000
_log: Final = structlog.stdlib.get_logger(__name__)


class InferenceJobReconciler:
    """Brings one InferenceJob to its end. Level-triggered: safe to call at any time, for any reason."""

    def __init__(
        self,
        *,
        client: KubeClient,
        cache: CacheView,
        executor: PlanExecutor,
        status_writer: StatusSink,
        events: EventSink,
        queue: QueueView,
        admin: QueueAdmin,
        settings: Settings,
        clock: Clock,
    ) -> None:
        self._client = client
        self._cache = cache
        self._executor = executor
        self._status_writer = status_writer
        self._events = events
        self._queue = queue
        self._admin = admin
        self._clock = clock
        self._install = DriverInstall(
            image=settings.operator_image,
            image_pull_policy=settings.image_pull_policy,
            queue_url=settings.queue_url,
            credentials_secret=settings.driver_credentials_secret,
        )
        self._registered: OrderedDict[str, Hashable] = OrderedDict()
        self._cleaned: OrderedDict[str, None] = OrderedDict()

    async def reconcile(self, key: Key) -> Result:
        """One round. Writes nothing when everything is as it should be; nothing at all once the job has ended.

        Raises:
            KubeError: a write should be tried again (alone or in an ``ExceptionGroup``).
        """
        manifest = self._cache.get(key)
        if manifest is None or manifest["metadata"].get("deletionTimestamp"):
            return Done()  # children go with their owner, the rest with the sweep
        if manifest["metadata"]["uid"] in self._cleaned:
            return Done()
        job, problem = parse_job(manifest)
        observed = observe(job, self._cache, self._queue)
        if job.status.phase in TERMINAL_PHASES:
            return await self._clean(job, observed)
        output = await self._output(job, problem, observed)
        decision = plan_job(job, problem, observed, output, self._install)
        unfinished: UnfinishedWritesError | None = None
        try:
            outcome = await self._executor.execute(decision.plan, job.uid)
        except UnfinishedWritesError as error:
            unfinished, outcome = error, error.outcome
        failures = outcome.failures if output.leftover is None else (*outcome.failures, output.leftover)
        # A job has not ended before its output is there.
        ending = None if unfinished else _refused_output(decision.ending, output, outcome.failures)
        refusal = await self._register(job, observed, decision)
        situation = Situation(
            problem=problem,
            observed=observed,
            ending=ending,
            output=output,
            failures=failures,
            queue_refusal=refusal,
            driver_credentials_secret=self._install.credentials_secret,
        )
        held_seconds = await self._tell(manifest, job, situation, self._clock.now())
        if unfinished is not None:
            raise unfinished
        if ending is not None:
            return await self._clean(job, observed)
        retry_seconds = _RETRY_SECONDS if failures or refusal else None
        return look_again(decision.plan.requeue_after_seconds, retry_seconds, held_seconds)

    async def _output(self, job: InferenceJob, problem: SpecProblem | None, observed: Observed) -> OutputFacts:
        if problem is not None:
            return OutputFacts()
        if needs_output(job, observed):
            try:
                content = await self._admin.take_output(job.uid)
            except QueueUnavailableError:
                return OutputFacts()
            return OutputFacts(content=content, lost=content is None)
        if needs_output_check(job, observed):
            try:
                await self._client.create(output_manifest(job, b""), dry_run=True)
            except AlreadyExistsError:
                leftover = await self._leftover(job)
                return OutputFacts(exists=leftover is None, leftover=leftover)
            except TerminalError as error:
                return OutputFacts(refused=error.message)
        return OutputFacts()

    async def _leftover(self, job: InferenceJob) -> Failure | None:
        """The output of an earlier job of this name, which the garbage collector has not come to yet.

        Read through an empty merge patch, which writes nothing: the operator has no other right to read ConfigMaps.
        """
        wanted = output_manifest(job, b"")
        ref = ObjectRef.of(wanted)
        try:
            controller = controller_of(await self._client.merge_patch(ref, {}))
        except NotFoundError:
            return Failure(ref=ref, message="it went away just now")
        except TerminalError:
            return None
        if controller is None or controller.get("uid") == job.uid:
            return None
        if (controller.get("kind"), controller.get("name")) != (INFERENCE_JOB_KIND, job.name):
            return None
        return Failure(ref=ref, message=f"it belongs to an earlier InferenceJob {job.name} and is being collected")

    async def _register(self, job: InferenceJob, observed: Observed, decision: Decision) -> str | None:
        """Make the job known to the agents, also when the queue has forgotten it. Why the queue would not, if so."""
        if not decision.register or observed.service is None:
            return None
        target = observed.service.target
        max_leased = LEASE_RESERVE * target.workers * target.slots
        wanted = (target.queue_id, observed.service.lease_seconds, max_leased)
        known = self._registered.get(job.uid) == wanted and observed.counts is not None
        if known and not awaits_output(job, observed):
            return None
        try:
            await self._admin.ensure_job(
                target.queue_id, job.uid, lease_seconds=observed.service.lease_seconds, max_leased=max_leased
            )
        except QueueUnavailableError as error:
            _log.info("job not registered with the queue yet", error=str(error))
            return str(error) or "it is not known why"
        _remember(self._registered, job.uid, wanted)
        return None

    async def _tell(self, manifest: Manifest, job: InferenceJob, situation: Situation, now: datetime) -> float | None:
        status = job_status(job, situation, now)
        held_seconds = await self._status_writer.write(manifest, status_document(status), status_facts(status))
        await self._record(manifest, job.status, status)
        return held_seconds

    async def _record(self, manifest: Manifest, before: InferenceJobStatus, after: InferenceJobStatus) -> None:
        known = {condition.type: condition.status for condition in before.conditions}
        for condition in after.conditions:
            if condition.type not in EVENT_CONDITIONS or condition.status is not ConditionStatus.TRUE:
                continue
            if known.get(condition.type) is not ConditionStatus.TRUE:
                event_type: Literal["Normal", "Warning"] = "Warning" if after.phase == "Failed" else "Normal"
                await self._events.record(manifest, event_type, condition.reason, condition.message)

    async def _clean(self, job: InferenceJob, observed: Observed) -> Result:
        """The job has ended: nothing of it stays in the queue."""
        if observed.service is None:
            return Done()  # its streams go with the sweep
        try:
            await self._admin.delete_job(observed.service.target.queue_id, job.uid)
        except QueueUnavailableError:
            return RequeueAfter(_RETRY_SECONDS)
        self._registered.pop(job.uid, None)
        _remember(self._cleaned, job.uid, None)
        return Done()


def _refused_output(ending: Ending | None, output: OutputFacts, failures: tuple[Failure, ...]) -> Ending | None:
    """The ending, unless the output's ConfigMap could not be made."""
    if ending is None or output.content is None:
        return ending
    for failure in failures:
        if failure.ref.kind == CONFIG_MAP.kind:
            reason = Reason.OUTPUT_EXISTS if failure.conflict else Reason.STORAGE_ERROR
            return Ending(succeeded=False, reason=reason, message=failure.message, report=ending.report)
    return ending


def _remember(known: OrderedDict[str, Any], key: str, value: Any) -> None:
    known[key] = value
    known.move_to_end(key)
    if len(known) > _MAX_REMEMBERED:
        known.popitem(last=False)
