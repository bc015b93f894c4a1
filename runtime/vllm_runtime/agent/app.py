"""The agent process: builds the parts, runs them, and ends in order.

Signals: SIGTERM drains (no new lease; what is held may end within the grace, the rest is given back), a second one or
SIGINT ends at once (everything is given back).
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

import structlog

from vllm_operator_api.queue import Heartbeat, WorkerState
from vllm_operator_api.runtime import NODE_NAME_ENV, POD_NAME_ENV, POD_UID_ENV, TMP_PATH, AgentConfig
from vllm_runtime.agent.concurrency import AdaptiveLimit
from vllm_runtime.agent.engine import HttpEngine
from vllm_runtime.agent.engine_watch import EngineWatch
from vllm_runtime.agent.heartbeats import Identity, Reporter
from vllm_runtime.agent.kv_cache import KvCacheReader
from vllm_runtime.agent.nats_connection import NatsConnection
from vllm_runtime.agent.nats_queue import NatsQueue
from vllm_runtime.agent.rows import RowRunner
from vllm_runtime.agent.suspects import Suspects
from vllm_runtime.agent.work_queue import QueueUnavailableError
from vllm_runtime.agent.worker import Worker
from vllm_runtime.tasks import end_tasks

LAST_WORDS_SECONDS: Final = 1.5
"""For giving leases back and the last heartbeat: below the 2 s that the supervisor waits when the engine died."""
PARTS_SECONDS: Final = 0.3
SUSPECTS_FILE: Final = "vllm-runtime-suspects.json"

_log: Final = structlog.get_logger(__name__)


class Agent:
    """One agent beside one engine."""

    def __init__(
        self,
        config: AgentConfig,
        *,
        shutdown_grace_seconds: float,
        engine_port: int,
        control_token: str,
        environment: Mapping[str, str],
    ) -> None:
        self._grace_seconds = shutdown_grace_seconds
        self._state: WorkerState = "starting"
        identity = Identity(
            queue_id=config.queue.queue_id,
            worker=environment.get(POD_NAME_ENV) or os.uname().nodename,
            pod_uid=environment.get(POD_UID_ENV, ""),
            node=environment.get(NODE_NAME_ENV, ""),
            slots=config.slots,
        )
        self._connection = NatsConnection(config.queue.url, config.queue.credentials_directory, identity.worker)
        self._queue = NatsQueue(self._connection, config.queue.queue_id)
        self._engine = HttpEngine(engine_port, control_token, config.row_timeout_seconds)
        self._kv_cache = KvCacheReader(self._engine.kv_cache, self._on_change)
        self._suspects = Suspects(Path(environment.get("TMPDIR") or TMP_PATH) / SUSPECTS_FILE)
        limit = AdaptiveLimit(config.max_rows_in_flight)
        self._watch = EngineWatch(self._engine, on_ready=self._on_ready, on_gone=self._on_gone)
        self._worker = Worker(
            name=identity.worker,
            queue=self._queue,
            rows=RowRunner(self._engine, limit),
            limit=limit,
            suspects=self._suspects,
            slots=config.slots,
            lease_seconds=config.lease_seconds,
            changed=self._on_change,
            engine_leaving=self._on_leaving,
        )
        self._reporter = Reporter(
            identity,
            config.heartbeat_seconds,
            publish=self._publish,
            activity=self._engine.activity,
            kv_cache=lambda: self._kv_cache.report,
            leases=self._worker.leases,
            state=lambda: self._state,
        )
        self._stop = asyncio.Event()
        self._stop_at_once = asyncio.Event()

    async def run(self) -> None:
        """Run until a signal, then end in order."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._on_terminate)
        loop.add_signal_handler(signal.SIGINT, self._on_interrupt)
        self._suspects.load()
        await self._engine.start()
        self._queue.watch_wakes(self._on_available)
        connection = asyncio.create_task(self._connection.run())
        parts = [
            asyncio.create_task(part)
            for part in (self._watch.run(), self._worker.run(), self._reporter.run(), self._kv_cache.run())
        ]
        stop = asyncio.create_task(self._stop.wait())
        try:
            done, _ = await asyncio.wait({*parts, connection, stop}, return_when=asyncio.FIRST_COMPLETED)
            for part in done - {stop}:
                part.result()  # a part runs for ever: this raises its error, and the supervisor starts a new agent
            await self._drain()
        finally:
            self._worker.close()
            await end_tasks(*parts, stop, seconds=PARTS_SECONDS)
            await self._end()
            await end_tasks(connection, seconds=LAST_WORDS_SECONDS)
            _log.info("agent ended")

    async def _drain(self) -> None:
        self._worker.close()
        if not self._stop_at_once.is_set():
            self._set_state("draining")
            finished = asyncio.create_task(self._worker.finish())
            at_once = asyncio.create_task(self._stop_at_once.wait())
            await asyncio.wait({finished, at_once}, timeout=self._grace_seconds, return_when=asyncio.FIRST_COMPLETED)
            finished.cancel()
            at_once.cancel()

    async def _end(self) -> None:
        self._state = "stopping"
        with suppress(TimeoutError, QueueUnavailableError):
            async with asyncio.timeout(LAST_WORDS_SECONDS):
                await self._worker.give_all_back()
                await self._reporter.send()
                await self._queue.flush(LAST_WORDS_SECONDS)
        await self._engine.stop()

    async def _publish(self, heartbeat: Heartbeat) -> None:
        await self._queue.publish_heartbeat(heartbeat)

    def _set_state(self, state: WorkerState) -> None:
        self._state = state
        self._reporter.changed()

    def _on_change(self) -> None:
        self._reporter.changed()

    def _on_available(self) -> None:
        self._worker.wake()
        self._reporter.changed()

    def _on_ready(self) -> None:
        self._kv_cache.engine_started()
        if not self._stop.is_set():
            self._worker.open()
            self._set_state("running")

    async def _on_gone(self) -> None:
        self._kv_cache.engine_gone()
        self._worker.close()
        if not self._stop.is_set():
            self._set_state("starting")
        await self._worker.engine_died()

    def _on_leaving(self) -> None:
        self._worker.close()
        self._watch.leaving()

    def _on_terminate(self) -> None:
        if self._stop.is_set():
            self._stop_at_once.set()
        self._stop.set()

    def _on_interrupt(self) -> None:
        self._stop_at_once.set()
        self._stop.set()
