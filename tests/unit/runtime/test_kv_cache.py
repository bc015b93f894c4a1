"""When the engine is asked for the size of its KV cache."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from vllm_operator_api.queue import KvCacheReport
from vllm_runtime.agent import kv_cache as kv_cache_module
from vllm_runtime.agent.engine import EngineConnectionError
from vllm_runtime.agent.kv_cache import KvCacheReader

REPORT = KvCacheReport(blocks=100, block_tokens=16, tokens=1600, max_concurrency=3.1)


class Asked:
    """An engine that gives prepared answers in turn, the last one for ever."""

    def __init__(self) -> None:
        self.answers: list[KvCacheReport | Exception | None] = [REPORT]
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.times = 0
        self.changes = 0
        self.reader = KvCacheReader(self.ask, self.changed)

    async def ask(self) -> KvCacheReport | None:
        self.times += 1
        await self.may_answer.wait()
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def changed(self) -> None:
        self.changes += 1


@pytest.fixture
async def asked(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Asked]:
    monkeypatch.setattr(kv_cache_module, "FIRST_PAUSE_SECONDS", 0.0)
    engine = Asked()
    task = asyncio.create_task(engine.reader.run())
    yield engine
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_once_per_start(asked: Asked) -> None:
    await settle()
    assert (asked.times, asked.reader.report) == (0, None)
    asked.reader.engine_started()
    await settle()
    assert (asked.times, asked.changes, asked.reader.report) == (1, 1, REPORT)
    asked.reader.engine_gone()
    assert asked.reader.report is None
    asked.answers = [REPORT.model_copy(update={"blocks": 90})]
    asked.reader.engine_started()
    await settle()
    assert (asked.times, asked.changes) == (2, 2)
    assert asked.reader.report == asked.answers[0]


async def test_an_engine_that_is_busy_is_asked_again(asked: Asked) -> None:
    busy = EngineConnectionError("timeout", "no answer")
    asked.answers = [busy, busy, REPORT]
    asked.reader.engine_started()
    await settle()
    assert (asked.times, asked.reader.report) == (3, REPORT)


async def test_an_engine_without_the_metric_is_left_alone(asked: Asked) -> None:
    asked.answers = [None]
    asked.reader.engine_started()
    await settle()
    assert (asked.times, asked.changes, asked.reader.report) == (1, 0, None)


async def test_the_answer_of_an_engine_that_is_gone_does_not_count(asked: Asked) -> None:
    asked.may_answer.clear()
    asked.reader.engine_started()
    await settle()
    asked.reader.engine_gone()
    asked.may_answer.set()
    await settle()
    assert (asked.times, asked.changes, asked.reader.report) == (1, 0, None)
