"""The controller: results, retries, and workers that survive a reconciler's bugs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from tests.support.clock import FakeClock
from tests.support.kube import make_cache

from vllm_operator.engine.controller import Controller
from vllm_operator.engine.queue import KeyedWorkQueue
from vllm_operator.engine.result import Done, RequeueAfter, Result
from vllm_operator.kube.errors import ConflictError, RetryableError
from vllm_operator.kube.kinds import Key, Manifest

pytestmark = [pytest.mark.looptime]


class Counts:
    def __init__(self) -> None:
        self.results: list[str] = []

    def reconciled(self, kind: str, result: str, seconds: float) -> None:
        self.results.append(result)

    def waited(self, seconds: float) -> None:
        assert seconds >= 0


class Scripted:
    """Answers what it is told to, then ``Done``."""

    def __init__(self, *script: Callable[[], Result]) -> None:
        self.script = list(script)
        self.at: list[float] = []

    async def reconcile(self, key: Key) -> Result:
        self.at.append(asyncio.get_running_loop().time())
        await asyncio.sleep(0)
        return self.script.pop(0)() if self.script else Done()


def service(name: str = "chat") -> Manifest:
    return {"apiVersion": "x/v1", "kind": "LLMService", "metadata": {"name": name, "namespace": "ns", "uid": name}}


def raising(error: Exception) -> Callable[[], Result]:
    def fail() -> Result:
        raise error

    return fail


async def run_for(seconds: float, reconciler: Scripted, *names: str, resync_seconds: float = 10_000) -> Counts:
    counts = Counts()
    queue = KeyedWorkQueue(jitter=lambda: 1.0)
    controller = Controller(
        queue,
        make_cache([service(name) for name in names or ("chat",)]),
        {"LLMService": reconciler},
        FakeClock(),
        counts,
        workers=2,
        resync_seconds=resync_seconds,
    )
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(seconds):
            await controller.run()
    assert controller.longest_running_seconds() == 0
    queue.close()
    return counts


async def test_every_key_is_reconciled_at_the_start() -> None:
    reconciler = Scripted()
    counts = await run_for(1, reconciler, "a", "b", "c")
    assert counts.results == ["done"] * 3


async def test_requeue_after() -> None:
    reconciler = Scripted(lambda: RequeueAfter(30))
    counts = await run_for(100, reconciler)
    assert counts.results == ["requeue", "done"]
    assert reconciler.at[1] - reconciler.at[0] == pytest.approx(30)


@pytest.mark.parametrize(
    ("error", "result"),
    [
        (RetryableError("timeout"), "retry"),
        (ConflictError("modified"), "retry"),
        (ExceptionGroup("two", [RetryableError("a"), ConflictError("b")]), "retry"),
        (ExceptionGroup("one is a bug", [RetryableError("a"), KeyError("b")]), "error"),
        (ZeroDivisionError("a bug"), "error"),
    ],
)
async def test_failures_come_again_after_a_growing_backoff(error: Exception, result: str) -> None:
    reconciler = Scripted(raising(error), raising(error), raising(error))
    counts = await run_for(60, reconciler)
    assert counts.results == [result, result, result, "done"]
    waits = [later - earlier for earlier, later in zip(reconciler.at, reconciler.at[1:], strict=False)]
    assert waits == pytest.approx([1, 2, 4])


async def test_resync_comes_back_to_every_key() -> None:
    reconciler = Scripted()
    counts = await run_for(350, reconciler, "a", "b", resync_seconds=100)
    assert len(counts.results) in (6, 7, 8)


async def test_an_object_that_is_gone_leaves_no_timer() -> None:
    cache = make_cache()
    queue = KeyedWorkQueue()
    reconciler = Scripted(lambda: RequeueAfter(5))
    controller = Controller(
        queue, cache, {"LLMService": reconciler}, FakeClock(), Counts(), workers=1, resync_seconds=10_000
    )
    running = asyncio.create_task(controller.run())
    queue.add(Key("LLMService", "ns", "gone"))
    await asyncio.sleep(100)
    assert len(reconciler.at) == 1
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
