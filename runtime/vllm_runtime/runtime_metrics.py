"""What the supervisor knows of its children, for Prometheus and for probes."""

from __future__ import annotations

import json
import time
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Info, generate_latest

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


class RuntimeMetrics:
    """Counters and gauges of one supervisor."""

    def __init__(self, vllm_version: str) -> None:
        self.registry = CollectorRegistry()
        self._info = Info("vllm_runtime", "The runtime image", registry=self.registry)
        self._info.info({"vllm_version": vllm_version})
        self._up = Gauge("vllm_runtime_engine_up", "1 while the engine's process runs", registry=self.registry)
        self._ready = Gauge("vllm_runtime_engine_ready", "1 since the engine first was healthy", registry=self.registry)
        self._load_seconds = Gauge(
            "vllm_runtime_engine_load_seconds", "From start to the first healthy answer", registry=self.registry
        )
        self._agent_starts = Counter("vllm_runtime_agent_starts", "Starts of the queue agent", registry=self.registry)
        self._started_at = time.monotonic()
        self._engine_up = False
        self._engine_ready = False

    def engine_started(self) -> None:
        """The engine's process runs."""
        self._engine_up = True
        self._up.set(1)

    def engine_ready(self) -> None:
        """The engine answered ``/health`` for the first time."""
        self._engine_ready = True
        self._ready.set(1)
        self._load_seconds.set(time.monotonic() - self._started_at)

    def engine_ended(self) -> None:
        """The engine's process has ended."""
        self._engine_up = False
        self._up.set(0)

    def agent_started(self) -> None:
        """The agent's process was started."""
        self._agent_starts.inc()

    def healthz(self) -> tuple[int, str, bytes]:
        """200 while the engine's process runs; whether it serves is asked at the engine itself."""
        body = json.dumps({"engineRunning": self._engine_up, "engineReady": self._engine_ready}).encode()
        return 200 if self._engine_up else 503, "application/json", body

    def metrics(self) -> tuple[int, str, bytes]:
        """Prometheus' text format."""
        return 200, CONTENT_TYPE, generate_latest(self.registry)
