"""The fastest plain way to send the same requests: what the queue is compared with."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence

import aiohttp


async def saturate(url: str, bodies: Sequence[bytes], in_flight: int) -> float:
    """Send all bodies with so many always in flight; returns rows per second.

    Raises:
        RuntimeError: an answer is not 200.
    """
    waiting: Iterator[bytes] = iter(bodies)
    connector = aiohttp.TCPConnector(limit=0)
    headers = {"content-type": "application/json"}
    async with aiohttp.ClientSession(connector=connector, headers=headers) as session:

        async def work() -> None:
            for body in waiting:
                async with session.post(url, data=body) as answer:
                    content = await answer.read()
                    if answer.status != 200:
                        raise RuntimeError(f"{answer.status}: {content[:300]!r}")

        started_at = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for _ in range(in_flight):
                group.create_task(work())
        return len(bodies) / (time.monotonic() - started_at)
