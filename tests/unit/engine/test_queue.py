"""Keyed work queue, on a loop whose time does not pass by itself."""

from __future__ import annotations

import asyncio

import pytest

from vllm_operator.engine.queue import MAX_BACKOFF_SECONDS, KeyedWorkQueue
from vllm_operator.kube.kinds import Key

pytestmark = [pytest.mark.looptime]

A = Key("LLMService", "ns", "a")
B = Key("LLMService", "ns", "b")


async def take(queue: KeyedWorkQueue) -> Key:
    key, _ = await queue.get()
    return key


async def test_a_key_is_there_once_however_often_it_is_added() -> None:
    queue = KeyedWorkQueue()
    for _ in range(1000):
        queue.add(A)
    queue.add(B)
    assert len(queue) == 2
    assert [await take(queue), await take(queue)] == [A, B]


async def test_a_busy_key_waits_for_its_worker_and_is_done_once_more() -> None:
    queue = KeyedWorkQueue()
    queue.add(A)
    assert await take(queue) == A
    for _ in range(10):
        queue.add(A)
    queue.add(B)
    assert await take(queue) == B
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(5):
            await queue.get()
    queue.done(A)
    assert await take(queue) == A
    queue.done(A)
    assert len(queue) == 0


async def test_never_two_workers_on_one_key_and_nothing_is_lost() -> None:
    queue = KeyedWorkQueue()
    running: set[Key] = set()
    seen: dict[Key, int] = {}
    wanted: dict[Key, int] = {}

    async def work() -> None:
        while True:
            key = await take(queue)
            assert key not in running
            running.add(key)
            seen[key] = wanted.get(key, 0)
            await asyncio.sleep(0.01)
            running.discard(key)
            queue.done(key)

    workers = [asyncio.create_task(work()) for _ in range(4)]
    for number in range(200):
        key = Key("LLMService", "ns", f"k{number % 7}")
        wanted[key] = number
        queue.add(key)
        await asyncio.sleep(0.003)
    await asyncio.sleep(1)
    assert seen == wanted
    for worker in workers:
        worker.cancel()
    await asyncio.gather(*workers, return_exceptions=True)


async def test_backoff_doubles_with_jitter_and_success_resets_it() -> None:
    queue = KeyedWorkQueue(jitter=lambda: 1.0)
    assert [queue.retry(A) for _ in range(8)] == [1, 2, 4, 8, 16, 32, MAX_BACKOFF_SECONDS, MAX_BACKOFF_SECONDS]
    queue.reset_backoff(A)
    assert queue.retry(A) == 1
    low = KeyedWorkQueue(jitter=lambda: 0.0)
    assert [low.retry(A) for _ in range(3)] == [1, 1, 2]
    queue.close()
    low.close()


async def test_retry_comes_after_its_backoff() -> None:
    queue = KeyedWorkQueue(jitter=lambda: 1.0)
    queue.retry(A)
    loop = asyncio.get_running_loop()
    begun = loop.time()
    assert await take(queue) == A
    assert loop.time() - begun == pytest.approx(1.0)


async def test_the_earliest_of_several_timers_counts() -> None:
    queue = KeyedWorkQueue()
    loop = asyncio.get_running_loop()
    begun = loop.time()
    queue.add_after(A, 30)
    queue.add_after(A, 10)
    queue.add_after(A, 20)
    assert await take(queue) == A
    assert loop.time() - begun == pytest.approx(10)
    queue.done(A)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(60):
            await queue.get()


async def test_work_done_now_cancels_what_was_to_come_later() -> None:
    queue = KeyedWorkQueue()
    queue.add_after(A, 10)
    queue.add(A)
    await take(queue)
    queue.done(A)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(60):
            await queue.get()


async def test_a_cancelled_worker_takes_no_key_with_it() -> None:
    queue = KeyedWorkQueue()
    first, second = asyncio.create_task(queue.get()), asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    queue.add(A)
    first.cancel()
    assert (await second)[0] == A
    assert first.cancelled() or first.done()


async def test_forgotten_key_does_not_come_back() -> None:
    queue = KeyedWorkQueue()
    queue.retry(A)
    queue.forget(A)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(120):
            await queue.get()


async def test_waiting_time_is_told() -> None:
    queue = KeyedWorkQueue()
    queue.add(A)
    await asyncio.sleep(3)
    _, waited_seconds = await queue.get()
    assert waited_seconds == pytest.approx(3)
