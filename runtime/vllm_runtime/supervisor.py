"""PID 1 of an engine container: the vLLM server and the queue agent, from start to end.

Ends:

- vLLM ends by itself: the agent gives its leases back (at most 2 s), the container ends with vLLM's code, never 0, and
  with vLLM's own error as termination message.
- The agent ends: it is started again, with growing pauses; the engine serves on.
- SIGTERM: the agent drains, then new requests get 503, then vLLM drains; code 0. While vLLM loads it is ended at once:
  it swallows the first SIGTERM then (measured on vLLM 0.32.0).
- A second SIGTERM: leases are given back and everything is killed; code 143.

An engine that spans nodes has one supervisor per pod. A follower's asks the leader's HTTP server whether the engine is
ready, and on SIGTERM keeps its part of the engine until the leader has drained.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import structlog

from vllm_operator_api.runtime import EngineExit
from vllm_runtime.exit_message import OutputTail, engine_exit
from vllm_runtime.loopback_http import LOOPBACK, StatusServer, request_status
from vllm_runtime.middleware import DRAIN_PATH, TOKEN_HEADER
from vllm_runtime.processes import Child, Reaper
from vllm_runtime.runtime_metrics import RuntimeMetrics

LAST_WORDS_SECONDS: Final = 2.0
"""For the agent to give its leases back when everything ends at once."""
END_MARGIN_SECONDS: Final = 15.0
"""Everything has ended this long after the grace at the latest; the pod's own limit is 20 s or more after it."""
ENGINE_MARGIN_SECONDS: Final = 6.0
"""vLLM needs about 3.5 s after its last request (measured on vLLM 0.32.0)."""
SECOND_SIGTERM_SECONDS: Final = 1.0
LOADING_KILL_SECONDS: Final = 4.0
HEALTH_INTERVAL_SECONDS: Final = 0.25
HEALTH_TIMEOUT_SECONDS: Final = 2.0
LEADER_GONE_AFTER: Final = 3
"""Questions without an answer, half a second apart, after which a follower takes its leader for gone."""
LEADER_INTERVAL_SECONDS: Final = 0.5
AGENT_FIRST_PAUSE_SECONDS: Final = 1.0
AGENT_MAX_PAUSE_SECONDS: Final = 30.0
AGENT_STABLE_SECONDS: Final = 60.0
"""An agent that ran for so long is started again without a growing pause."""
FORCED_EXIT_CODE: Final = 128 + signal.SIGTERM

_log: Final = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """What to start."""

    command: Sequence[str]
    environment: Mapping[str, str]


class Supervisor:
    """Runs one engine, or this pod's part of one, and at most one agent."""

    def __init__(
        self,
        *,
        engine: Process,
        agent: Process | None,
        leader_host: str | None = None,
        engine_port: int,
        control_token: str,
        grace_seconds: float,
        status_host: str,
        status_port: int,
        metrics: RuntimeMetrics,
        report_exit: Callable[[EngineExit], None],
    ) -> None:
        self._engine_process = engine
        self._agent_process = agent
        self._leader_host = leader_host
        self._engine_port = engine_port
        self._control_token = control_token
        self._grace_seconds = grace_seconds
        self._status_address = (status_host, status_port)
        self._metrics = metrics
        self._report_exit = report_exit
        self._reaper = Reaper()
        self._agent: Child | None = None
        self._ready = False
        self._stop = asyncio.Event()
        self._force = asyncio.Event()

    async def run(self) -> int:
        """Run to the end; returns the container's exit code."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_terminate)
        self._reaper.start()
        status = StatusServer({"/healthz": self._metrics.healthz, "/metrics": self._metrics.metrics})
        await status.start(*self._status_address)
        tail = OutputTail()
        engine = self._reaper.spawn("engine", self._engine_process.command, self._engine_process.environment, tail)
        self._metrics.engine_started()
        background = [asyncio.create_task(self._watch_health())]
        if self._agent_process is not None:
            background.append(asyncio.create_task(self._keep_agent(self._agent_process)))
        try:
            await self._first(engine.ended, self._stop)
            if engine.ended.done() and not self._stop.is_set():
                return await self._engine_ended(engine)
            return await self._end_in_order(engine)
        finally:
            self._metrics.engine_ended()
            for task in background:
                task.cancel()
            for child in (self._agent, engine):
                if child is not None:
                    child.kill_group()
            await status.stop()

    # Running

    async def _watch_health(self) -> None:
        while not self._ready:
            await asyncio.sleep(HEALTH_INTERVAL_SECONDS)
            self._ready = await self._healthy()
        self._metrics.engine_ready()
        _log.info("the engine is ready")

    async def _healthy(self) -> bool:
        host = self._leader_host or LOOPBACK
        return await request_status("GET", self._engine_port, "/health", HEALTH_TIMEOUT_SECONDS, host=host) == 200

    async def _keep_agent(self, process: Process) -> None:
        loop = asyncio.get_running_loop()
        pause = AGENT_FIRST_PAUSE_SECONDS
        while not self._stop.is_set():
            started_at = loop.time()
            try:
                self._agent = self._reaper.spawn("agent", process.command, process.environment)
            except OSError as error:  # no process or no memory to be had just now
                _log.error("the agent cannot be started now", error=str(error), pause_seconds=pause)
            else:
                self._metrics.agent_started()
                code = await asyncio.shield(self._agent.ended)
                if self._stop.is_set():
                    return
                if loop.time() - started_at >= AGENT_STABLE_SECONDS:
                    pause = AGENT_FIRST_PAUSE_SECONDS
                _log.error("the agent ended; it is started again", code=code, pause_seconds=pause)
            await asyncio.sleep(pause)
            pause = min(AGENT_MAX_PAUSE_SECONDS, pause * 2)

    def _on_terminate(self) -> None:
        if self._stop.is_set():
            _log.info("told to stop again: ending at once")
            self._force.set()
        self._stop.set()

    # Ending

    async def _engine_ended(self, engine: Child) -> int:
        code = engine.ended.result()
        document = engine_exit("serve" if self._ready else "start", code, await engine.output())
        _log.error("the engine ended", code=code, stage=document.stage, error=document.message)
        self._report_exit(document)
        await self._end_agent_at_once()
        return document.exit_code

    async def _end_in_order(self, engine: Child) -> int:
        deadline = asyncio.get_running_loop().time() + self._grace_seconds + END_MARGIN_SECONDS
        _log.info("stopping", grace_seconds=self._grace_seconds, engine_ready=self._ready)
        if self._agent is not None and not self._agent.ended.done():
            self._agent.signal(signal.SIGTERM)
            await self._until(self._agent.ended, self._grace_seconds + LAST_WORDS_SECONDS, deadline, engine.ended)
        if self._leader_host is not None:
            await self._outlast_leader(engine, deadline)
            await self._end_loading_engine(engine)
        elif self._ready or await self._healthy():
            await self._drain_engine(engine, deadline)
        else:
            await self._end_loading_engine(engine)
        await self._end_agent_at_once()
        if self._force.is_set():
            return FORCED_EXIT_CODE
        _log.info("stopped")
        return 0

    async def _drain_engine(self, engine: Child, deadline: float) -> None:
        """No new requests, then vLLM's own drain of those in flight."""
        if engine.ended.done() or self._force.is_set():
            return
        await request_status(
            "POST",
            self._engine_port,
            DRAIN_PATH,
            HEALTH_TIMEOUT_SECONDS,
            {TOKEN_HEADER.decode(): self._control_token},
        )
        engine.signal(signal.SIGTERM)
        await self._until(engine.ended, self._grace_seconds + ENGINE_MARGIN_SECONDS, deadline)

    async def _outlast_leader(self, engine: Child, deadline: float) -> None:
        """Keep this part of the engine while the leader answers: requests in flight need it until they end."""
        unanswered = 0
        while unanswered < LEADER_GONE_AFTER and asyncio.get_running_loop().time() < deadline:
            unanswered = 0 if await self._healthy() else unanswered + 1
            await self._until(engine.ended, LEADER_INTERVAL_SECONDS, deadline)
            if engine.ended.done() or self._force.is_set():
                return

    async def _end_loading_engine(self, engine: Child) -> None:
        """VLLM swallows the first SIGTERM while it loads, and needs seconds for the second."""
        for seconds in (SECOND_SIGTERM_SECONDS, LOADING_KILL_SECONDS):
            if not engine.ended.done() and not self._force.is_set():
                engine.signal(signal.SIGTERM)
                await self._until(engine.ended, seconds)

    async def _end_agent_at_once(self) -> None:
        if self._agent is not None and not self._agent.ended.done():
            self._agent.signal(signal.SIGINT)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(self._agent.ended), LAST_WORDS_SECONDS)

    async def _until(
        self,
        ended: asyncio.Future[int],
        seconds: float,
        deadline: float = float("inf"),
        other: asyncio.Future[int] | None = None,
    ) -> None:
        """Wait for an end, but not longer than ``seconds``, the deadline, a second SIGTERM or another end."""
        left = min(seconds, deadline - asyncio.get_running_loop().time())
        waits: set[asyncio.Future[int]] = {ended} if other is None else {ended, other}
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, left)):
                await self._first_of(waits, self._force)

    async def _first(self, ended: asyncio.Future[int], event: asyncio.Event) -> None:
        await self._first_of({ended}, event)

    @staticmethod
    async def _first_of(futures: set[asyncio.Future[int]], event: asyncio.Event) -> None:
        happened = asyncio.create_task(event.wait())
        waits: set[asyncio.Future[Any]] = {*futures, happened}
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            happened.cancel()
