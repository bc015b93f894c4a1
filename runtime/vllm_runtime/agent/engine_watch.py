"""Watches the engine's health and tells the worker when to lease."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from vllm_runtime.agent.engine import Engine, Health

UP_INTERVAL_SECONDS: Final = 1.0
DOWN_INTERVAL_SECONDS: Final = 0.25
LEAVING_SECONDS: Final = 3.0
"""After a row was told that the engine is leaving, health says nothing for so long: vLLM's ``/health`` stays 200."""

_log: Final = structlog.get_logger(__name__)


class EngineWatch:
    """``ready`` while the engine takes rows. ``on_ready`` and ``on_gone`` are called on each change."""

    def __init__(self, engine: Engine, on_ready: Callable[[], None], on_gone: Callable[[], Awaitable[None]]) -> None:
        self._engine = engine
        self._on_ready = on_ready
        self._on_gone = on_gone
        self._leaving_until = float("-inf")
        self.ready = False

    def leaving(self) -> None:
        """A row was told that the engine shuts down or is dead."""
        self._leaving_until = asyncio.get_running_loop().time() + LEAVING_SECONDS

    async def run(self) -> None:
        """Watch for ever."""
        while True:
            health = await self._health()
            if health is Health.UP and not self.ready:
                self.ready = True
                _log.info("the engine is ready")
                self._on_ready()
            elif health is Health.DOWN and self.ready:
                self.ready = False
                _log.warning("the engine is gone")
                await self._on_gone()
            await asyncio.sleep(UP_INTERVAL_SECONDS if self.ready else DOWN_INTERVAL_SECONDS)

    async def _health(self) -> Health:
        if asyncio.get_running_loop().time() < self._leaving_until:
            return Health.DOWN
        health = await self._engine.health()
        if health is Health.UP:
            report = await self._engine.activity()
            if report is not None and not report.ready:
                return Health.DOWN
        return health
