"""Waiting for conditions."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any


async def eventually(
    condition: Callable[[], Any] | Callable[[], Awaitable[Any]],
    *,
    timeout_seconds: float = 10.0,
    interval_seconds: float = 0.02,
    message: str = "",
) -> Any:
    """Wait until ``condition()`` (or what it awaits to) is true, and return it; an AssertionError after the timeout."""
    deadline = time.monotonic() + timeout_seconds
    while True:
        value = condition()
        if asyncio.iscoroutine(value):
            value = await value
        if value:
            return value
        if time.monotonic() >= deadline:
            raise AssertionError(f"not within {timeout_seconds} s: {message or condition}")
        await asyncio.sleep(interval_seconds)
