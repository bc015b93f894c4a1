"""Tasks end for certain, also those that lose a cancellation."""

from __future__ import annotations

import asyncio

from vllm_runtime.tasks import end_tasks


async def test_a_lost_cancellation_is_sent_again() -> None:
    async def loses_one() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await asyncio.sleep(60)

    async def fails() -> None:
        raise OSError("nobody asks")

    tasks = [asyncio.create_task(loses_one()), asyncio.create_task(fails())]
    await asyncio.sleep(0)
    assert await end_tasks(*tasks, seconds=5)
    assert all(task.done() for task in tasks)


async def test_a_task_that_never_ends_is_left_behind() -> None:
    async def stubborn() -> None:
        for _ in range(6):
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                continue

    task = asyncio.create_task(stubborn())
    await asyncio.sleep(0)
    assert not await end_tasks(task, seconds=0.15)
    assert await end_tasks(task, seconds=5)
