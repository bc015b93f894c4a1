"""Health and metrics over HTTP: ``/healthz``, ``/readyz``, ``/metrics``."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Gauge, generate_latest

Check = Callable[[], str | None]
"""None when all is well, else what is wrong, in words."""

_LAG_INTERVAL_SECONDS: Final = 0.5


class ObservabilityServer:
    """Serves probes and metrics of one process, from before it leads until it ends."""

    def __init__(
        self,
        registry: CollectorRegistry,
        *,
        host: str,
        port: int,
        healthy: Check,
        ready: Check,
        before_scrape: Callable[[], None],
    ) -> None:
        """``before_scrape`` sets the gauges that are not kept up to date all the time."""
        self._registry = registry
        self._host = host
        self._port = port
        self._healthy = healthy
        self._ready = ready
        self._before_scrape = before_scrape
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Listen."""
        app = web.Application(client_max_size=1024)
        app.add_routes(
            [
                web.get("/healthz", self._on_healthz),
                web.get("/readyz", self._on_readyz),
                web.get("/metrics", self._on_metrics),
            ]
        )
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        await web.TCPSite(self._runner, self._host, self._port).start()

    async def stop(self) -> None:
        """Close the port."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _on_healthz(self, _: web.Request) -> web.Response:
        return _answer(self._healthy())

    async def _on_readyz(self, _: web.Request) -> web.Response:
        return _answer(self._ready())

    async def _on_metrics(self, _: web.Request) -> web.Response:
        self._before_scrape()
        return web.Response(body=generate_latest(self._registry), headers={"Content-Type": CONTENT_TYPE_LATEST})


async def measure_loop_lag(gauge: Gauge) -> None:
    """Set the gauge twice a second, for ever."""
    while True:
        begun = time.monotonic()
        await asyncio.sleep(_LAG_INTERVAL_SECONDS)
        gauge.set(max(0.0, time.monotonic() - begun - _LAG_INTERVAL_SECONDS))


def _answer(wrong: str | None) -> web.Response:
    return web.Response(text="ok\n") if wrong is None else web.Response(status=503, text=wrong + "\n")
