"""Tells the operator what this worker is doing: at an interval, and at once when something changes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import structlog

from vllm_operator_api.queue import (
    MAX_HEARTBEAT_BYTES,
    EngineReport,
    Heartbeat,
    KvCacheReport,
    LeaseReport,
    WorkerState,
)
from vllm_runtime.agent.work_queue import QueueUnavailableError

DEBOUNCE_SECONDS: Final = 0.2
_log: Final = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who sends the heartbeats."""

    queue_id: str
    worker: str
    pod_uid: str
    node: str
    slots: int


class Reporter:
    """Builds and sends heartbeats."""

    def __init__(
        self,
        identity: Identity,
        interval_seconds: float,
        *,
        publish: Callable[[Heartbeat], Awaitable[None]],
        activity: Callable[[], Awaitable[EngineReport | None]],
        kv_cache: Callable[[], KvCacheReport | None],
        leases: Callable[[], list[LeaseReport]],
        state: Callable[[], WorkerState],
    ) -> None:
        self._identity = identity
        self._interval_seconds = interval_seconds
        self._publish = publish
        self._activity = activity
        self._kv_cache = kv_cache
        self._leases = leases
        self._state = state
        self._sequence = 0
        self._due = asyncio.Event()

    def changed(self) -> None:
        """Something changed: send soon."""
        self._due.set()

    async def run(self) -> None:
        """Send for ever."""
        while True:
            await self.send()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._interval_seconds):
                    await self._due.wait()
                await asyncio.sleep(DEBOUNCE_SECONDS)

    async def send(self) -> None:
        """Send one heartbeat now; a queue that is away is no error."""
        self._due.clear()
        engine = await self._activity()
        self._sequence += 1
        identity = self._identity
        heartbeat = Heartbeat(
            queue_id=identity.queue_id,
            worker=identity.worker,
            pod_uid=identity.pod_uid,
            node=identity.node,
            slots=identity.slots,
            state=self._state(),
            sequence=self._sequence,
            engine=engine,
            kv_cache=self._kv_cache(),
            leases=self._leases(),
        )
        try:
            await self._publish(fitting(heartbeat))
        except QueueUnavailableError as error:
            _log.debug("no heartbeat was sent", error=str(error))


def fitting(heartbeat: Heartbeat) -> Heartbeat:
    """The heartbeat with as many leases, oldest first, as the largest heartbeat may hold."""
    leases = heartbeat.leases
    while leases and len(heartbeat.model_dump_json().encode()) > MAX_HEARTBEAT_BYTES:
        leases = leases[: len(leases) * 3 // 4]
        heartbeat = heartbeat.model_copy(update={"leases": leases})
    return heartbeat
