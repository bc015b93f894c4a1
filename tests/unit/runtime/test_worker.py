"""The worker against a queue and an engine in memory: what it tells the queue, in which order, and when it must not."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from tests.unit.runtime.test_agent_cores import decoded

from vllm_operator_api.queue import EngineReport, RowRequest, Shard
from vllm_runtime.agent.concurrency import AdaptiveLimit
from vllm_runtime.agent.engine import EngineConnectionError, Health
from vllm_runtime.agent.rows import RowRunner
from vllm_runtime.agent.suspects import Suspects
from vllm_runtime.agent.work_queue import Delivery, GoneError, QueueUnavailableError
from vllm_runtime.agent.worker import Worker


class MemoryQueue:
    """A ``WorkQueue`` that records every call."""

    connected = True
    max_result_bytes = 1 << 20

    def __init__(self) -> None:
        self.waiting: dict[str, list[Delivery]] = {}
        self.calls: list[str] = []
        self.payloads: dict[int, bytes] = {}
        self.fail: dict[str, list[Exception]] = {}
        """Errors that the next calls of a name raise."""

    def add(self, shard: int, rows: list[str], *, job: str = "j", deliveries: int = 1) -> None:
        requests = [
            RowRequest(row=index, body={"model": "m", "messages": [{"role": "user", "content": text}]})
            for index, text in enumerate(rows)
        ]
        document = Shard(job_uid=job, shard=shard, endpoint="/v1/chat/completions", requests=requests)
        delivery = Delivery(handle=f"{job}.{shard}", shard=document, deliveries=deliveries)
        self.waiting.setdefault(job, []).append(delivery)

    def _call(self, name: str, handle: str) -> None:
        self.calls.append(f"{name} {handle}")
        if self.fail.get(name):
            raise self.fail[name].pop(0)

    async def jobs(self) -> tuple[str, ...]:
        return tuple(self.waiting)

    async def lease(self, job_uid: str) -> Delivery | None:
        if job_uid not in self.waiting:
            raise GoneError(job_uid)
        return self.waiting[job_uid].pop(0) if self.waiting[job_uid] else None

    async def renew(self, delivery: Delivery, timeout_seconds: float) -> None:
        self._call("renew", delivery.handle)

    async def give_back(self, delivery: Delivery) -> None:
        self._call("give back", delivery.handle)

    async def publish_result(self, shard: Shard, payload: bytes) -> bool:
        self._call("publish", f"{shard.job_uid}.{shard.shard}")
        return self.payloads.setdefault(shard.shard, payload) is payload

    async def acknowledge(self, delivery: Delivery) -> None:
        self._call("ack", delivery.handle)


class MemoryEngine:
    """An ``Engine`` whose answers a test sets by the row's text."""

    def __init__(self) -> None:
        self.state = Health.UP
        self.answers: dict[str, list[tuple[int, bytes] | Exception]] = {}
        self.gate = asyncio.Event()
        self.gate.set()
        self.in_flight = 0
        self.most_in_flight = 0
        self.posts: list[str] = []
        self.aborted = 0

    async def post(self, path: str, body: bytes) -> tuple[int, bytes]:
        text = body.split(b'"content":"')[1].split(b'"')[0].decode()
        self.posts.append(text)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await self.gate.wait()
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            self.aborted += 1
            raise
        finally:
            self.in_flight -= 1
        if self.answers.get(text):
            answer = self.answers[text].pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer
        return 200, b'{"choices": [{"text": "%s"}]}' % text.encode()

    async def health(self) -> Health:
        return self.state

    async def activity(self) -> EngineReport | None:
        return None


class Bench:
    """A worker with its surroundings."""

    def __init__(self, folder: Path, *, slots: int = 2, rows: int = 8, lease_seconds: float = 30.0) -> None:
        self.queue = MemoryQueue()
        self.engine = MemoryEngine()
        self.limit = AdaptiveLimit(rows)
        self.left = 0
        self.worker = Worker(
            name="w",
            queue=self.queue,
            rows=RowRunner(self.engine, self.limit),
            limit=self.limit,
            suspects=Suspects(folder / "s.json"),
            slots=slots,
            lease_seconds=lease_seconds,
            changed=lambda: None,
            engine_leaving=self._leaving,
        )

    def _leaving(self) -> None:
        self.left += 1
        self.worker.close()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        self.worker.open()
        task = asyncio.create_task(self.worker.run())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            await self.worker.give_all_back()

    async def until(self, condition: Callable[[], object], seconds: float = 5.0) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, self.queue.calls
            await asyncio.sleep(0.005)

    def rows(self, shard: int) -> list[str]:
        """Texts of the answers, or codes of the errors, of a published shard."""
        return [
            row.body["choices"][0]["text"] if row.body else f"error {row.error.code}"  # type: ignore[union-attr]
            for row in decoded(self.queue.payloads[shard]).results
        ]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


async def test_result_first_then_ack(bench: Bench) -> None:
    bench.queue.add(0, ["a", "b", "c"])
    async with bench.running():
        await bench.until(lambda: "ack j.0" in bench.queue.calls)
        await bench.worker.finish()
    assert bench.queue.calls == ["publish j.0", "ack j.0"]
    assert bench.rows(0) == ["a", "b", "c"]


async def test_a_result_that_is_there_already_is_acknowledged(bench: Bench) -> None:
    bench.queue.payloads[0] = b"somebody else's"
    bench.queue.add(0, ["a"])
    async with bench.running():
        await bench.until(lambda: "ack j.0" in bench.queue.calls)
    assert bench.queue.payloads[0] == b"somebody else's"


async def test_publish_and_ack_are_tried_again_while_the_lease_lasts(bench: Bench) -> None:
    bench.queue.fail = {"publish": [QueueUnavailableError("down")], "ack": [QueueUnavailableError("down")]}
    bench.queue.add(0, ["a"])
    async with bench.running():
        await bench.until(lambda: bench.queue.calls.count("ack j.0") == 2)
    assert bench.queue.calls == ["publish j.0", "publish j.0", "ack j.0", "ack j.0"]


async def test_after_a_lost_lease_not_a_word(tmp_path: Path) -> None:
    bench = Bench(tmp_path, lease_seconds=0.3)
    bench.engine.gate.clear()
    bench.queue.fail = {"renew": [QueueUnavailableError("down")] * 100}
    bench.queue.add(0, ["a", "b"])
    async with bench.running():
        await bench.until(lambda: bench.engine.in_flight == 2)
        await bench.worker.finish()
        bench.engine.gate.set()
        await asyncio.sleep(0.05)
    assert set(bench.queue.calls) == {"renew j.0"}
    assert len(bench.queue.calls) >= 3
    assert bench.engine.aborted == 2


async def test_a_shard_whose_job_is_gone_is_dropped(tmp_path: Path) -> None:
    bench = Bench(tmp_path, lease_seconds=0.3)
    bench.engine.gate.clear()
    bench.queue.fail = {"renew": [GoneError("j")]}
    bench.queue.add(0, ["a"])
    async with bench.running():
        await bench.until(lambda: bench.engine.in_flight == 1)
        await bench.worker.finish()
    assert bench.queue.calls == ["renew j.0"]
    assert bench.engine.aborted == 1


async def test_a_dead_engine_gives_the_shard_back_and_makes_no_error_rows(bench: Bench) -> None:
    bench.engine.state = Health.DOWN
    bench.engine.answers = {"a": [EngineConnectionError("connection_error", "refused")]}
    bench.queue.add(0, ["a", "b"])
    async with bench.running():
        await bench.until(lambda: "give back j.0" in bench.queue.calls)
        await bench.worker.finish()
    assert bench.queue.calls == ["give back j.0"]
    assert bench.left >= 1


@pytest.mark.parametrize(
    "answer",
    [
        (503, b'{"error": {"type": "service_unavailable", "message": "shutting down"}}'),
        (500, b'{"error": {"type": "E", "message": "cannot schedule new futures after shutdown"}}'),
        (200, b'{"choices": [{"finish_reason": "abort"}]}'),
    ],
)
async def test_a_draining_engine_gives_the_shard_back(bench: Bench, answer: tuple[int, bytes]) -> None:
    bench.engine.answers = {"b": [answer]}
    bench.queue.add(0, ["a", "b"])
    async with bench.running():
        await bench.until(lambda: bench.queue.calls == ["give back j.0"])


async def test_a_blip_is_retried_and_a_lasting_fault_becomes_an_error_row(bench: Bench) -> None:
    reset = EngineConnectionError("connection_error", "reset")
    bench.engine.answers = {"a": [reset], "b": [(500, b"x")] * 9, "c": [(400, b"x")], "d": [reset, reset, (502, b"")]}
    bench.queue.add(0, ["a", "b", "c", "d"])
    async with bench.running():
        await bench.until(lambda: "ack j.0" in bench.queue.calls)
    assert bench.rows(0) == ["a", "error http_500", "error http_400", "error http_502"]
    assert [bench.engine.posts.count(text) for text in "abcd"] == [2, 3, 1, 3]


async def test_overload_halves_the_rows_in_flight_and_makes_no_error_rows(tmp_path: Path) -> None:
    bench = Bench(tmp_path, rows=8)
    bench.engine.answers = {"a": [(429, b"x")] * 4}
    bench.queue.add(0, ["a", *("x" * 3)])
    async with bench.running():
        await bench.until(lambda: "ack j.0" in bench.queue.calls, 10)
    assert bench.rows(0)[0] == "a"
    assert bench.limit.current < 8


async def test_never_more_rows_in_flight_than_allowed_nor_more_shards_than_slots(tmp_path: Path) -> None:
    bench = Bench(tmp_path, slots=2, rows=3)
    bench.engine.gate.clear()
    for shard in range(5):
        bench.queue.add(shard, ["x"])
    async with bench.running():
        await bench.until(lambda: bench.engine.in_flight == 2)
        await asyncio.sleep(0.02)
        assert len(bench.worker.leases()) == 2
        bench.engine.gate.set()
        await bench.until(lambda: len(bench.queue.payloads) == 5)
    assert bench.engine.most_in_flight <= 3


async def test_a_shard_with_more_rows_than_room_is_worked_off_before_the_next_is_leased(tmp_path: Path) -> None:
    bench = Bench(tmp_path, slots=4, rows=2)
    bench.engine.gate.clear()
    bench.queue.add(0, ["x"] * 5)
    bench.queue.add(1, ["x"])
    async with bench.running():
        await bench.until(lambda: bench.engine.in_flight == 2)
        await asyncio.sleep(0.02)
        assert [lease.shard for lease in bench.worker.leases()] == [0]
        bench.engine.gate.set()
        await bench.until(lambda: len(bench.queue.payloads) == 2)


async def test_a_shard_delivered_too_often_runs_row_by_row(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.queue.add(0, ["a", "b", "c", "d"], deliveries=6)
    async with bench.running():
        await bench.until(lambda: "ack j.0" in bench.queue.calls)
    assert bench.engine.most_in_flight == 1
    assert bench.rows(0) == ["a", "b", "c", "d"]


@pytest.mark.parametrize("deliveries", [1, 9], ids=["plain", "isolated"])
async def test_rows_that_are_dropped_before_they_began_leave_their_places(tmp_path: Path, deliveries: int) -> None:
    """A task that is cancelled before its first step runs none of its own code."""

    class DropsAtOnce(MemoryQueue):
        async def lease(self, job_uid: str) -> Delivery | None:
            for held in list(bench.worker._held.values()):
                if held.shard.shard == 0:
                    bench.worker._drop(held, "job gone")
            return await super().lease(job_uid)

    bench = Bench(tmp_path, rows=2)
    bench.queue = bench.worker._queue = DropsAtOnce()
    bench.queue.add(0, ["a"], deliveries=deliveries)
    bench.queue.add(1, ["b", "c"], job="k")
    if deliveries > 1:
        bench.worker._has_room = lambda: len(bench.worker._held) < 2  # type: ignore[method-assign]
    async with bench.running():
        await bench.until(lambda: "ack k.1" in bench.queue.calls)
        await bench.worker.finish()
        assert bench.worker._in_flight == 0


async def test_a_request_that_is_no_json_becomes_an_error_row(bench: Bench) -> None:
    bench.queue.add(0, ["a", "b"])
    bench.queue.waiting["j"][0].shard.requests[0].body["seed"] = 2**70
    async with bench.running():
        await bench.until(lambda: "ack j.0" in bench.queue.calls)
    assert bench.rows(0) == ["error invalid_request", "b"]


async def test_an_empty_shard_is_answered_too(bench: Bench) -> None:
    bench.queue.add(0, [])
    async with bench.running():
        await bench.until(lambda: "ack j.0" in bench.queue.calls)
    assert bench.rows(0) == []


async def test_closed_it_leases_nothing_and_ends_what_it_has(bench: Bench) -> None:
    bench.engine.gate.clear()
    bench.queue.add(0, ["a"])
    async with bench.running():
        await bench.until(lambda: bench.engine.in_flight == 1)
        bench.worker.close()
        bench.queue.add(1, ["b"])
        bench.worker.wake()
        bench.engine.gate.set()
        await bench.worker.finish()
        await asyncio.sleep(0.02)
    assert list(bench.queue.payloads) == [0]


async def test_a_fault_of_ours_lets_the_lease_end(bench: Bench) -> None:
    bench.engine.answers = {"a": [RuntimeError("a bug")]}
    bench.queue.add(0, ["a", "b"])
    async with bench.running():
        await bench.until(lambda: not bench.queue.waiting["j"])
        await bench.worker.finish()
    assert bench.queue.calls == []


async def test_rows_that_time_out_lower_the_rows_in_flight(bench: Bench) -> None:
    bench.engine.answers = {"a": [EngineConnectionError("timeout", "the engine did not answer in time")]}
    bench.queue.add(0, ["a"])
    async with bench.running():
        await bench.until(lambda: "ack j.0" in bench.queue.calls)
    assert bench.limit.current == 4
    assert bench.rows(0) == ["a"]
