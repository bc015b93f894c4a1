"""What breaks in mid-shard: agents, engines, the server. Every row comes back exactly once."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress
from pathlib import Path

import pytest
from tests.integration.runtime.conftest import Queue, RuntimeMaker, chat, eventually, expect_rows, opened, ready
from tests.support.runtime_process import free_port

from localk8s.nats_server import NatsServer
from vllm_operator.queue.view import QueueUnavailableError

pytestmark = pytest.mark.integration


def holds(queue: Queue, worker: str) -> bool:
    """Whether the worker's last heartbeat has a lease."""
    seen = queue.last_heartbeat(worker)
    return bool(seen and seen.leases)


def slow_rows(first: int, count: int = 4) -> dict[int, str]:
    """Rows of a second or so each, which outlive what the test does to their worker."""
    return {row: f"!sleep 1.{row:02d}" for row in range(first, first + count)}


async def publish(queue: Queue, job: str, shard: int, contents: dict[int, str]) -> None:
    await queue.publish(job, shard, [chat(row, text) for row, text in contents.items()])


async def test_killed_agent_and_killed_runtime_in_mid_shard(queue: Queue, make_runtime: RuntimeMaker) -> None:
    job = await queue.add_job()
    first = make_runtime(queue)
    await publish(queue, job, 0, slow_rows(0))
    await eventually(lambda: holds(queue, "worker-0"), "a lease of the first worker")
    first.agent.send_signal(signal.SIGKILL)
    # The engine serves on and the agent comes back; its shard is leased again when the lease has ended.
    expect_rows(await queue.results(job, 1), slow_rows(0))
    assert first.get("/health")[0] == 200

    await publish(queue, job, 1, slow_rows(10))
    await eventually(lambda: holds(queue, "worker-0"), "a second lease of the first worker")
    first.kill_all()
    make_runtime(queue)
    results = await queue.results(job, 2)
    expect_rows(results, slow_rows(0) | slow_rows(10))
    assert results[1].worker == "worker-1"


async def test_a_frozen_worker_comes_back_too_late(queue: Queue, make_runtime: RuntimeMaker) -> None:
    job = await queue.add_job(lease_seconds=1)
    stale = make_runtime(queue, agent={"lease_seconds": 1})
    await publish(queue, job, 0, slow_rows(0))
    await eventually(lambda: holds(queue, "worker-0"), "a lease of the first worker")
    frozen = stale.agent
    frozen.send_signal(signal.SIGSTOP)
    make_runtime(queue, agent={"lease_seconds": 1})
    results = await queue.results(job, 1)
    frozen.send_signal(signal.SIGCONT)
    assert results[0].worker == "worker-1"
    await eventually(lambda: '"why": "lease lost"' in stale.log(), "the stale worker lets go by itself")
    assert await queue.results(job, 1) == results
    # and it works on
    await eventually(lambda: not holds(queue, "worker-0"), "the stale worker is free again")
    await publish(queue, job, 1, {20: "after"})
    expect_rows((await queue.results(job, 2))[1:], {20: "after"})


async def test_dying_engine_gives_its_rows_to_another_worker(queue: Queue, make_runtime: RuntimeMaker) -> None:
    job = await queue.add_job(lease_seconds=30)
    dying = make_runtime(queue, agent={"lease_seconds": 30})
    await publish(queue, job, 0, slow_rows(0))
    await eventually(lambda: holds(queue, "worker-0"), "a lease of the first worker")
    make_runtime(queue, agent={"lease_seconds": 30})
    os.kill(dying.engine.pid, signal.SIGKILL)
    # Given back at once: the lease of 30 s never ends within this test.
    assert await asyncio.to_thread(dying.wait, 5) == 137
    results = await queue.results(job, 1, timeout_seconds=10)
    expect_rows(results, slow_rows(0))
    message = dying.termination()
    assert message is not None
    assert (message.stage, message.exit_code) == ("serve", 137)
    assert "SIGKILL" in message.message
    last = queue.last_heartbeat("worker-0")
    assert last is not None
    assert (last.state, last.leases) == ("stopping", [])


async def test_server_killed_and_restarted(own_queue: Queue, own_nats: NatsServer, make_runtime: RuntimeMaker) -> None:
    job = await own_queue.add_job(lease_seconds=4)
    runtime = make_runtime(own_queue, agent={"lease_seconds": 4})
    await publish(own_queue, job, 0, slow_rows(0))
    await eventually(lambda: holds(own_queue, "worker-0"), "a lease")
    own_nats.kill()
    await asyncio.sleep(1)
    own_nats.restart()
    expect_rows(await own_queue.results(job, 1), slow_rows(0))
    await publish(own_queue, job, 1, {5: "later"})
    expect_rows((await own_queue.results(job, 2))[1:], {5: "later"})
    assert runtime.log().count('"message": "leased"') <= 2


async def test_server_wiped(own_queue: Queue, own_nats: NatsServer, make_runtime: RuntimeMaker) -> None:
    job = await own_queue.add_job(lease_seconds=1)
    make_runtime(own_queue, agent={"lease_seconds": 1})
    await publish(own_queue, job, 0, slow_rows(0))
    await eventually(lambda: holds(own_queue, "worker-0"), "a lease")
    own_nats.wipe()

    async def made_again() -> bool:
        with suppress(QueueUnavailableError):
            await own_queue.ensure(job, lease_seconds=1)
            return True
        return False

    # What operator and driver do when they see that everything is gone:
    await eventually(made_again, "streams made again")
    await publish(own_queue, job, 0, slow_rows(0))
    expect_rows(await own_queue.results(job, 1), slow_rows(0))


async def test_server_down_at_start(credentials: Path, make_runtime: RuntimeMaker) -> None:
    from tests.integration.runtime.conftest import nats_config

    server = NatsServer(nats_config(credentials), port=free_port())
    waiting = Queue(server, credentials)
    runtime = make_runtime(waiting)
    await ready(runtime)
    assert runtime.post("/v1/embeddings", {"model": "tiny", "input": "x"})[0] == 200
    await eventually(lambda: "queue unavailable" in runtime.log(), "a line about the queue")
    with server:
        async with opened(server, credentials) as queue:
            queue.queue_id = waiting.queue_id
            job = await queue.add_job()
            await publish(queue, job, 0, {0: "at last"})
            expect_rows(await queue.results(job, 1), {0: "at last"})


async def test_missing_credentials_appear_later(queue: Queue, make_runtime: RuntimeMaker, tmp_path: Path) -> None:
    job = await queue.add_job()
    folder = tmp_path / "late"
    own = {"url": queue.server.url, "queue_id": queue.queue_id, "credentials_directory": str(folder)}
    runtime = make_runtime(queue, agent={"queue": own})
    late = runtime.config.agent
    assert late is not None
    await eventually(lambda: "no queue credentials" in runtime.log(), "a line about the credentials")
    assert runtime.log().count("no queue credentials") == 1
    folder.mkdir()
    (folder / "entropy").write_text((queue.credentials / "agent/entropy").read_text())
    await publish(queue, job, 0, {0: "x"})
    expect_rows(await queue.results(job, 1), {0: "x"})


async def test_a_row_that_kills_its_engine_becomes_an_error_row(queue: Queue, make_runtime: RuntimeMaker) -> None:
    job = await queue.add_job(lease_seconds=2)
    await queue.publish(job, 0, [chat(0, "before"), chat(1, "!crash"), chat(2, "after")])
    await queue.deliver_and_give_back(job, times=4)
    runtime = make_runtime(queue)
    # The kubelet's part: start the container again.
    for _ in range(6):
        ended = asyncio.create_task(asyncio.to_thread(runtime.wait, 30))
        answered = asyncio.create_task(queue.results(job, 1, timeout_seconds=40))
        await asyncio.wait({ended, answered}, return_when=asyncio.FIRST_COMPLETED)
        if answered.done():
            break
        answered.cancel()
        runtime.start()
    rows = (await answered)[0].results
    assert rows[0].body is not None
    assert rows[2].body is not None
    assert rows[1].error is not None
    assert rows[1].error.code == "worker_crashed"
    runtime.kill_all()
    await ended
