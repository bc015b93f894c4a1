"""File work off the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

_Answer = TypeVar("_Answer")


async def in_thread(step: Callable[[], _Answer]) -> _Answer:
    """Run something that blocks in a thread. Cancelled, it waits for the thread: no file is closed under its hands."""
    task = asyncio.ensure_future(asyncio.to_thread(step))
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError as error:
            cancelled = error  # may come more than once
    if cancelled is not None:
        raise cancelled
    return task.result()
