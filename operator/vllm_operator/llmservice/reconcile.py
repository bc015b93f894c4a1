"""The I/O shell of one LLMService: observe, plan, execute, tell."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from vllm_operator.engine.clock import Clock
from vllm_operator.engine.executor import UnfinishedWritesError
from vllm_operator.engine.ports import EventSink, PlanExecutor, StatusSink
from vllm_operator.engine.result import Done, Result, look_again
from vllm_operator.kube.kinds import Key, Manifest
from vllm_operator.llmservice.observe import CacheView, ClusterView, Observed, observe
from vllm_operator.llmservice.parse import parse_service
from vllm_operator.llmservice.plan import Decision, PlanConfig, plan_service, reject_spec
from vllm_operator.llmservice.plan_step import PlanStepConfig
from vllm_operator.llmservice.status import StatusConfig, service_status, status_document, status_facts
from vllm_operator.llmservice.transitions import transitions
from vllm_operator.manifests.engine_pod import EngineInstall
from vllm_operator.planner.engine_options import default_engine_options
from vllm_operator.planner.problem import PlanProblem
from vllm_operator.queue.view import QueueView
from vllm_operator.settings import Settings
from vllm_operator_api.v1alpha1 import LLMService, LLMServiceStatus

REFUSED_RETRY_SECONDS: Final = 30.0
"""A write that the API server refused (quota, a name that is taken) is tried again after this time."""


class LLMServiceReconciler:
    """Brings one LLMService to what its spec says. Level-triggered: safe to call at any time, for any reason."""

    def __init__(
        self,
        *,
        cache: CacheView,
        executor: PlanExecutor,
        status_writer: StatusSink,
        events: EventSink,
        queue: QueueView,
        cluster: ClusterView,
        settings: Settings,
        clock: Clock,
    ) -> None:
        self._cache = cache
        self._executor = executor
        self._status_writer = status_writer
        self._events = events
        self._queue = queue
        self._cluster = cluster
        self._clock = clock
        self._plan_config = PlanConfig(
            steps=PlanStepConfig(
                options=default_engine_options(),
                install=EngineInstall(
                    default_image=settings.runtime_image,
                    image_pull_policy=settings.image_pull_policy,
                    queue_url=settings.queue_url,
                    agent_credentials_secret=settings.agent_credentials_secret,
                    hub_endpoint=settings.hub_endpoint,
                ),
                operator_image=settings.operator_image,
            ),
            quiet_seconds=settings.drain_quiet_seconds,
            operator_started_at=clock.now(),
        )
        self._status_config = StatusConfig(
            cluster_domain=settings.cluster_domain,
            agent_credentials_secret=settings.agent_credentials_secret,
            operator_started_at=self._plan_config.operator_started_at,
        )

    async def reconcile(self, key: Key) -> Result:
        """One round. Writes nothing when everything is as it should be.

        Raises:
            KubeError: a write should be tried again (alone or in an ``ExceptionGroup``); the status tells of it.
        """
        manifest = self._cache.get(key)
        if manifest is None or manifest["metadata"].get("deletionTimestamp"):
            return Done()  # children go with their owner
        now = self._clock.now()
        service, unreadable = parse_service(manifest)
        decision = self._decide(service, unreadable, now)
        unfinished: UnfinishedWritesError | None = None
        try:
            outcome = await self._executor.execute(decision.plan, service.uid)
        except UnfinishedWritesError as error:
            unfinished, outcome = error, error.outcome
        observed = self._observe(service)
        status = service_status(service, observed, decision, outcome.failures, self._status_config, now)
        held_seconds = await self._status_writer.write(manifest, status_document(status), status_facts(status))
        await self._record(manifest, service.status, status)
        if unfinished is not None:
            raise unfinished
        refused_seconds = REFUSED_RETRY_SECONDS if outcome.failures else None
        return look_again(decision.plan.requeue_after_seconds, held_seconds, refused_seconds)

    def _decide(self, service: LLMService, unreadable: PlanProblem | None, now: datetime) -> Decision:
        observed = self._observe(service)
        if unreadable is not None:
            return reject_spec(service, observed, unreadable)
        return plan_service(service, observed, self._plan_config, now)

    def _observe(self, service: LLMService) -> Observed:
        return observe(service, self._cache, self._queue, self._cluster)

    async def _record(self, manifest: Manifest, before: LLMServiceStatus, after: LLMServiceStatus) -> None:
        for transition in transitions(before.conditions, after.conditions):
            await self._events.record(manifest, transition.event_type, transition.reason, transition.message)
