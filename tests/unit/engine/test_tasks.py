"""Ending tasks."""

from __future__ import annotations

import asyncio

from vllm_operator.engine.tasks import end_tasks


async def test_a_task_that_swallows_its_cancellation_ends_all_the_same() -> None:
    swallowed = []

    async def stubborn() -> None:
        while True:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                if swallowed:
                    raise
                swallowed.append(True)

    task = asyncio.create_task(stubborn())
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await end_tasks(task)
    assert task.cancelled()


async def test_what_a_task_raises_is_dropped() -> None:
    async def failing() -> None:
        raise ValueError("over")

    task = asyncio.create_task(failing())
    await asyncio.sleep(0)
    await end_tasks(task)
    assert task.done()
