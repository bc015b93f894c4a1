"""Runs reconcilers: takes keys off the queue, one worker at a time for each key, and retries what failed."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable, Mapping
from typing import Final, Protocol
from uuid import uuid4

import structlog
from structlog.contextvars import bound_contextvars

from vllm_operator.engine.cache import ObjectCache
from vllm_operator.engine.clock import Clock
from vllm_operator.engine.queue import KeyedWorkQueue
from vllm_operator.engine.result import RequeueAfter, Result
from vllm_operator.kube.errors import ConflictError, RetryableError
from vllm_operator.kube.kinds import Key

_log: Final = structlog.stdlib.get_logger(__name__)


class Reconciler(Protocol):
    """Brings the world of one key closer to what its object says. Level-triggered: it is not told what changed."""

    async def reconcile(self, key: Key) -> Result:
        """Raise ``RetryableError`` (alone or in an ``ExceptionGroup``) to come again after a backoff."""
        ...


class ControllerMetrics(Protocol):
    """What the controller counts."""

    def reconciled(self, kind: str, result: str, seconds: float) -> None:
        """One reconcile ended; ``result`` is ``done``, ``requeue``, ``retry`` or ``error``."""
        ...

    def waited(self, seconds: float) -> None:
        """A key waited so long for a worker."""
        ...


class Controller:
    """Workers over one queue, and the resync of all keys."""

    def __init__(
        self,
        queue: KeyedWorkQueue,
        cache: ObjectCache,
        reconcilers: Mapping[str, Reconciler],
        clock: Clock,
        metrics: ControllerMetrics,
        *,
        workers: int,
        resync_seconds: float,
    ) -> None:
        """``reconcilers`` by kind."""
        self._queue = queue
        self._cache = cache
        self._reconcilers = dict(reconcilers)
        self._clock = clock
        self._metrics = metrics
        self._workers = workers
        self._resync_seconds = resync_seconds
        self._started: dict[Key, float] = {}

    @property
    def kinds(self) -> Iterable[str]:
        """Kinds that have a reconciler."""
        return self._reconcilers.keys()

    def longest_running_seconds(self) -> float:
        """How long the oldest reconcile under way has run; 0 when none is. For liveness."""
        return max((self._clock.monotonic() - since for since in self._started.values()), default=0.0)

    async def run(self) -> None:
        """Work until cancelled. Call it when the cache is synced."""
        async with asyncio.TaskGroup() as tasks:
            for number in range(self._workers):
                tasks.create_task(self._work(), name=f"reconcile-worker-{number}")
            tasks.create_task(self._resync(), name="resync")

    async def _resync(self) -> None:
        """Add every key once now and then once an interval, spread over the interval."""
        spread_seconds = 0.0
        while True:
            for kind in self._reconcilers:
                for manifest in self._cache.list(kind):
                    key = Key.of(manifest)
                    self._queue.add_after(key, random.uniform(0, spread_seconds))  # noqa: S311 -- spreads load only
            await asyncio.sleep(self._resync_seconds)
            spread_seconds = self._resync_seconds / 2

    async def _work(self) -> None:
        while True:
            key, waited_seconds = await self._queue.get()
            self._metrics.waited(waited_seconds)
            self._started[key] = self._clock.monotonic()
            try:
                await self._reconcile(key)
            finally:
                del self._started[key]
                self._queue.done(key)

    async def _reconcile(self, key: Key) -> None:
        manifest = self._cache.get(key)
        generation = manifest["metadata"].get("generation") if manifest else None
        with bound_contextvars(key=str(key), reconcile_id=uuid4().hex[:8], generation=generation):
            begun = self._clock.monotonic()
            result = await self._attempt(key)
            self._metrics.reconciled(key.kind, result, self._clock.monotonic() - begun)
        if self._cache.get(key) is None and result in ("done", "requeue"):
            self._queue.forget(key)

    async def _attempt(self, key: Key) -> str:
        try:
            result = await self._reconcilers[key.kind].reconcile(key)
        except (RetryableError, ConflictError) as error:
            self._retry(key, error.message)
            return "retry"
        except ExceptionGroup as group:
            _, unexpected = group.split((RetryableError, ConflictError))
            if unexpected is None:
                self._retry(key, "; ".join(str(error) for error in group.exceptions))
                return "retry"
            _log.exception("reconcile failed", retry_seconds=self._queue.retry(key))
            return "error"
        except Exception:  # noqa: BLE001 -- a bug of one reconciler must not stop the others; it is logged and tried again
            _log.exception("reconcile failed", retry_seconds=self._queue.retry(key))
            return "error"
        self._queue.reset_backoff(key)
        if isinstance(result, RequeueAfter):
            self._queue.add_after(key, result.seconds)
            return "requeue"
        return "done"

    def _retry(self, key: Key, message: str) -> None:
        _log.info("reconcile to be retried", error=message, retry_seconds=round(self._queue.retry(key), 1))
