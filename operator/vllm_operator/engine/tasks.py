"""Ending asyncio tasks for certain."""

from __future__ import annotations

import asyncio
from typing import Any, Final

_AGAIN_SECONDS: Final = 0.5


async def end_tasks(*tasks: asyncio.Task[Any]) -> None:
    """Cancel tasks and return when all have ended; what they raise is dropped.

    A task that swallows its cancellation is cancelled again: ``asyncio.wait_for`` of Python 3.11, which nats-py uses,
    loses one that comes in the same turn of the loop as the awaited result (github.com/python/cpython/issues/86296).
    """
    running = {task for task in tasks if not task.done()}
    while running:
        for task in running:
            task.cancel()
        _, running = await asyncio.wait(running, timeout=_AGAIN_SECONDS)
    for task in tasks:
        if not task.cancelled():
            task.exception()
