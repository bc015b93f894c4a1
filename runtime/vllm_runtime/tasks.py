"""Ending asyncio tasks for certain."""

from __future__ import annotations

import asyncio
from typing import Any, Final

_AGAIN_SECONDS: Final = 0.1


async def end_tasks(*tasks: asyncio.Task[Any], seconds: float) -> bool:
    """Cancel tasks and wait for their ends, at most so long; False when one still runs. What they raise is dropped.

    A task that swallows its cancellation is cancelled again: ``asyncio.wait_for`` of Python 3.11, which nats-py uses,
    loses one that comes in the same turn of the loop as the awaited result (github.com/python/cpython/issues/86296).
    """
    deadline = asyncio.get_running_loop().time() + seconds
    running = {task for task in tasks if not task.done()}
    while running and (left := deadline - asyncio.get_running_loop().time()) > 0:
        for task in running:
            task.cancel()
        _, running = await asyncio.wait(running, timeout=min(_AGAIN_SECONDS, left))
    for task in tasks:
        if task.done() and not task.cancelled():
            task.exception()
    return not running
