"""The operator's view of the queue: heartbeats, progress of drivers, counts of consumers. In memory, and bounded."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import nats.js.errors
import structlog
from nats.aio.client import Client
from pydantic import BaseModel, ValidationError

from vllm_operator.engine.clock import Clock, SystemClock
from vllm_operator.engine.tasks import end_tasks
from vllm_operator.queue.connection import REQUEST_TIMEOUT_SECONDS, QueueConnection
from vllm_operator.queue.view import QueueUnavailableError, SeenHeartbeat, ShardCounts
from vllm_operator_api.queue import (
    HEARTBEAT_FILTER,
    MAX_HEARTBEAT_BYTES,
    PROGRESS_FILTER,
    Heartbeat,
    JobProgress,
    heartbeat_subject,
    job_consumer,
    progress_subject,
    work_stream,
)

POLL_SECONDS: Final = 3.0
HEARTBEAT_KEPT_SECONDS: Final = 600.0
MAX_WORKERS: Final = 10_000
MAX_JOBS: Final = 10_000
"""Bounds of the maps here; the oldest entry goes. Far above what one operator serves (1,000 services)."""
_MAX_PROGRESS_BYTES: Final = 8 * 1024

_log: Final = structlog.stdlib.get_logger(__name__)
_Model = TypeVar("_Model", bound=BaseModel)


@dataclass(slots=True)
class _Seen:
    heartbeat: Heartbeat
    at: float


def _ignore(_: str) -> None:
    return None


def _ignore_connection() -> None:
    return None


class QueueMonitor:
    """Implements ``QueueView``. Callbacks get a queue id or a job uid when something about it changed.

    Numbers that change all the time (ages, rows done) come to the status with the reconciles that running objects
    ask for anyway; callbacks fire on facts: a new worker, another state, other leases, the KV cache of an engine that
    has started, another phase, a lost consumer.
    A connection that came or went concerns everybody, also those of whom nothing was ever heard.
    """

    def __init__(
        self,
        connection: QueueConnection,
        *,
        on_service_changed: Callable[[str], None] = _ignore,
        on_job_changed: Callable[[str], None] = _ignore,
        on_connection_changed: Callable[[], None] = _ignore_connection,
        clock: Clock | None = None,
        poll_seconds: float = POLL_SECONDS,
    ) -> None:
        self._connection = connection
        self._on_service_changed = on_service_changed
        self._on_job_changed = on_job_changed
        self._on_connection_changed = on_connection_changed
        self._clock = clock or SystemClock()
        self._poll_seconds = poll_seconds
        self._heartbeats: OrderedDict[tuple[str, str], _Seen] = OrderedDict()
        self._workers: dict[str, set[str]] = {}
        self._progress: OrderedDict[str, JobProgress] = OrderedDict()
        self._tracked: OrderedDict[str, str] = OrderedDict()
        self._counts: dict[str, ShardCounts] = {}
        self._was_connected = False
        self._task: asyncio.Task[None] | None = None
        connection.add_setup(self._subscribe)

    async def start(self) -> None:
        """Begin to poll; heartbeats come as soon as the connection is there."""
        self._task = asyncio.create_task(self._poll(), name="queue monitor")

    async def stop(self) -> None:
        """Stop polling."""
        if self._task is not None:
            await end_tasks(self._task)
            self._task = None

    def set_callbacks(
        self, *, on_service_changed: Callable[[str], None], on_job_changed: Callable[[str], None]
    ) -> None:
        """Give the callbacks later than the constructor (the reconcilers that they wake need the view first)."""
        self._on_service_changed = on_service_changed
        self._on_job_changed = on_job_changed

    @property
    def connected(self) -> bool:
        """Whether there is a connection to the queue now."""
        return self._connection.connected

    @property
    def problem(self) -> str | None:
        """Why there is none."""
        return self._connection.problem

    def heartbeats(self, queue_id: str) -> tuple[SeenHeartbeat, ...]:
        """Last heartbeat of each worker of a service that was heard in the last 10 minutes, sorted by worker."""
        now = self._clock.monotonic()
        found = []
        for worker in sorted(self._workers.get(queue_id, ())):
            seen = self._heartbeats[queue_id, worker]
            age_seconds = max(0.0, now - seen.at)
            if age_seconds <= HEARTBEAT_KEPT_SECONDS:
                found.append(SeenHeartbeat(heartbeat=seen.heartbeat, age_seconds=age_seconds))
        return tuple(found)

    def progress(self, job_uid: str) -> JobProgress | None:
        """A driver's last report."""
        return self._progress.get(job_uid)

    def shard_counts(self, job_uid: str) -> ShardCounts | None:
        """Last polled counts of a job's consumer; None when it does not exist or was not polled yet."""
        return self._counts.get(job_uid)

    def track_job(self, queue_id: str, job_uid: str) -> None:
        """Poll this job's consumer from now on."""
        if self._tracked.get(job_uid) != queue_id:
            self._counts.pop(job_uid, None)
        self._tracked[job_uid] = queue_id
        if len(self._tracked) > MAX_JOBS:
            oldest, _ = self._tracked.popitem(last=False)
            self._counts.pop(oldest, None)

    def forget_job(self, job_uid: str) -> None:
        """The job is over or gone."""
        self._tracked.pop(job_uid, None)
        self._counts.pop(job_uid, None)
        self._progress.pop(job_uid, None)

    def observe_heartbeat(self, subject: str, payload: bytes) -> None:
        """Take a heartbeat; what is too large, malformed or not its subject's is dropped."""
        heartbeat = _parsed(Heartbeat, payload, MAX_HEARTBEAT_BYTES)
        if heartbeat is None or not _is_subject(subject, heartbeat_subject, heartbeat.queue_id, heartbeat.worker):
            _log.debug("heartbeat dropped", subject=subject[:200], bytes=len(payload))
            return
        key = (heartbeat.queue_id, heartbeat.worker)
        before = self._heartbeats.pop(key, None)
        self._heartbeats[key] = _Seen(heartbeat, self._clock.monotonic())
        self._workers.setdefault(heartbeat.queue_id, set()).add(heartbeat.worker)
        if len(self._heartbeats) > MAX_WORKERS:
            self._drop_worker(next(iter(self._heartbeats)))
        if before is None or _facts(before.heartbeat) != _facts(heartbeat):
            self._on_service_changed(heartbeat.queue_id)
            for job_uid in _jobs(heartbeat) | (_jobs(before.heartbeat) if before else set()):
                self._on_job_changed(job_uid)

    def observe_progress(self, subject: str, payload: bytes) -> None:
        """Take a driver's report."""
        report = _parsed(JobProgress, payload, _MAX_PROGRESS_BYTES)
        if report is None or not _is_subject(subject, progress_subject, report.job_uid):
            _log.debug("progress dropped", subject=subject[:200], bytes=len(payload))
            return
        before = self._progress.pop(report.job_uid, None)
        self._progress[report.job_uid] = report
        if len(self._progress) > MAX_JOBS:
            self._progress.popitem(last=False)
        if before != report:
            self._on_job_changed(report.job_uid)

    async def _subscribe(self, client: Client) -> None:
        async def on_heartbeat(message: Any) -> None:
            self.observe_heartbeat(message.subject, message.data)

        async def on_progress(message: Any) -> None:
            self.observe_progress(message.subject, message.data)

        await client.subscribe(HEARTBEAT_FILTER, cb=on_heartbeat)
        await client.subscribe(PROGRESS_FILTER, cb=on_progress)

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(self._poll_seconds)
            self._tell_connection()
            self._expire()
            for job_uid, queue_id in tuple(self._tracked.items()):
                try:
                    await self._poll_job(queue_id, job_uid)
                except QueueUnavailableError:
                    break

    def _tell_connection(self) -> None:
        connected = self.connected
        if connected != self._was_connected:
            self._was_connected = connected
            self._on_connection_changed()

    def _expire(self) -> None:
        limit = self._clock.monotonic() - HEARTBEAT_KEPT_SECONDS
        while self._heartbeats:
            key, seen = next(iter(self._heartbeats.items()))
            if seen.at >= limit:
                return
            self._drop_worker(key)

    def _drop_worker(self, key: tuple[str, str]) -> None:
        del self._heartbeats[key]
        workers = self._workers[key[0]]
        workers.discard(key[1])
        if not workers:
            del self._workers[key[0]]

    async def _poll_job(self, queue_id: str, job_uid: str) -> None:
        counts: ShardCounts | None
        try:
            async with self._connection.use() as client:
                info = await client.jetstream(timeout=REQUEST_TIMEOUT_SECONDS).consumer_info(
                    work_stream(queue_id), job_consumer(job_uid)
                )
            counts = ShardCounts(
                pending=info.num_pending or 0, leased=info.num_ack_pending or 0, redelivered=info.num_redelivered or 0
            )
        except nats.js.errors.NotFoundError:
            counts = None
        except nats.js.errors.APIError as error:
            _log.warning("consumer not read", job=job_uid, error=str(error))
            return
        if self._tracked.get(job_uid) != queue_id:
            return
        before = self._counts.get(job_uid)
        if counts is None:
            self._counts.pop(job_uid, None)
        else:
            self._counts[job_uid] = counts
        if counts != before or counts is None:
            self._on_job_changed(job_uid)


def _parsed(model: type[_Model], payload: bytes, limit: int) -> _Model | None:
    if len(payload) > limit:
        return None
    try:
        return model.model_validate_json(payload)
    except ValidationError:
        return None


def _is_subject(subject: str, make: Callable[..., str], *parts: str) -> bool:
    """Whether the content names the same worker or job as the subject, which the server's permissions guard."""
    try:
        return make(*parts) == subject
    except ValueError:
        return False


def _facts(heartbeat: Heartbeat) -> tuple[Any, ...]:
    engine = heartbeat.engine
    return (
        heartbeat.pod_uid,
        heartbeat.state,
        engine is not None and engine.ready,
        engine is not None and engine.in_flight == 0,
        heartbeat.kv_cache,
        tuple((lease.job_uid, lease.shard) for lease in heartbeat.leases),
    )


def _jobs(heartbeat: Heartbeat) -> set[str]:
    return {lease.job_uid for lease in heartbeat.leases}
