"""Agents that only send heartbeats, for engine pods that nothing runs in."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from nats.aio.client import Client

from vllm_operator_api.names import OWNER_UID_LABEL
from vllm_operator_api.queue import EngineReport, Heartbeat, KvCacheReport, LeaseReport, heartbeat_subject


@dataclass
class Workers:
    """One agent for every engine pod that ``list_pods`` gives; what they report can be changed at any time."""

    client: Client
    list_pods: Callable[[], list[dict[str, Any]]]
    interval_seconds: float = 0.3
    idle_seconds: float = 0.0
    idle_grows: bool = False
    """Count the time since the start as idle, as the middleware of an engine without requests does."""
    in_flight: int = 0
    silent: bool = False
    leases: list[LeaseReport] = field(default_factory=list)
    kv_cache: KvCacheReport | None = None
    sequence: int = 0

    async def run(self) -> None:
        """Send a heartbeat for each engine pod once an interval, for ever."""
        loop = asyncio.get_running_loop()
        started_at = loop.time()
        while True:
            with suppress(OSError, Exception):
                pods = await asyncio.to_thread(self.list_pods)
                idle_seconds = self.idle_seconds + (loop.time() - started_at if self.idle_grows else 0.0)
                for pod in [] if self.silent else pods:
                    await self._beat(pod, idle_seconds)
            await asyncio.sleep(self.interval_seconds)

    async def _beat(self, pod: dict[str, Any], idle_seconds: float) -> None:
        self.sequence += 1
        queue_id = pod["metadata"]["labels"][OWNER_UID_LABEL]
        report = EngineReport(
            ready=True, in_flight=self.in_flight, idle_seconds=idle_seconds, requests_total=self.in_flight
        )
        heartbeat = Heartbeat(
            queue_id=queue_id, worker=pod["metadata"]["name"], pod_uid=pod["metadata"]["uid"], node="gpu-node",
            state="running", slots=4, sequence=self.sequence, engine=report, leases=self.leases,
            kv_cache=self.kv_cache,
        )  # fmt: skip
        subject = heartbeat_subject(queue_id, pod["metadata"]["name"])
        await self.client.publish(subject, heartbeat.model_dump_json().encode())
