"""Asks the engine for the size of its KV cache, once after each of its starts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from vllm_operator_api.queue import KvCacheReport
from vllm_runtime.agent.engine import EngineConnectionError

FIRST_PAUSE_SECONDS: Final = 1.0
MAX_PAUSE_SECONDS: Final = 60.0
"""Between two tries while the engine is too busy to answer."""

_log: Final = structlog.get_logger(__name__)


class KvCacheReader:
    """Holds the report of the engine that runs now. An engine that tells nothing is not asked again."""

    def __init__(self, ask: Callable[[], Awaitable[KvCacheReport | None]], changed: Callable[[], None]) -> None:
        self._ask = ask
        self._changed = changed
        self._started = asyncio.Event()
        self._up = False
        self.report: KvCacheReport | None = None

    def engine_started(self) -> None:
        """The engine answers (again)."""
        self._up = True
        self._started.set()

    def engine_gone(self) -> None:
        """What it said is of the past."""
        self._up = False
        self.report = None

    async def run(self) -> None:
        """Read for ever."""
        while True:
            await self._started.wait()
            self._started.clear()
            await self._read()

    async def _read(self) -> None:
        pause = FIRST_PAUSE_SECONDS
        while self._up:
            try:
                report = await self._ask()
            except EngineConnectionError as error:
                _log.debug("the engine's metrics were not read", error=str(error), pause_seconds=pause)
            else:
                if self._up:
                    self._take(report)
                return
            await asyncio.sleep(pause)
            pause = min(MAX_PAUSE_SECONDS, pause * 2)

    def _take(self, report: KvCacheReport | None) -> None:
        if report is None:
            _log.info("the engine tells no size of a KV cache")
        elif report != self.report:
            _log.info("KV cache", **report.model_dump())
            self.report = report
            self._changed()
