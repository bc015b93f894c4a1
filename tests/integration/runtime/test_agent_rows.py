"""Shards through the real queue and the real agent to a fake engine and back."""

from __future__ import annotations

import pytest
from tests.integration.runtime.conftest import Queue, RuntimeMaker, chat, eventually, expect_rows
from tests.support.fake_engine import embedding_of

from vllm_operator_api.queue import RowRequest

pytestmark = pytest.mark.integration


async def test_every_row_comes_back_once_with_its_own_answer(queue: Queue, make_runtime: RuntimeMaker) -> None:
    job = await queue.add_job()
    contents = {row: f"question {row}" for row in range(200)}
    for shard in range(8):
        await queue.publish(job, shard, [chat(row, contents[row]) for row in range(shard * 25, shard * 25 + 25)])
    make_runtime(queue)
    results = await queue.results(job, 8)
    expect_rows(results, contents)
    assert {result.worker for result in results} == {"worker-0"}
    await eventually(lambda: _is_zero(queue), "all shards acknowledged")


async def _is_zero(queue: Queue) -> bool:
    return await queue.pending() == 0


async def test_embeddings_and_row_errors(queue: Queue, make_runtime: RuntimeMaker) -> None:
    job = await queue.add_job()
    make_runtime(queue)
    await queue.publish(
        job, 0, [RowRequest(row=0, body={"model": "tiny", "input": "a cat"})], endpoint="/v1/embeddings"
    )
    await queue.publish(
        job,
        1,
        [
            chat(1, "fine"),
            chat(2, "word " * 65),
            chat(3, "x", chat_template="{{ evil }}"),
            chat(4, "!status 400"),
            RowRequest(row=5, body={"model": "other", "messages": [{"role": "user", "content": "x"}]}),
            chat(6, "!status 500"),
            chat(7, "answer this too"),
        ],
    )
    await queue.publish(job, 2, [chat(8, "x")], endpoint="/invocations")
    embedded, answered, refused = await queue.results(job, 3)
    assert embedded.results[0].body is not None
    assert embedded.results[0].body["data"][0]["embedding"] == embedding_of("a cat")
    rows = {row.row: row for row in answered.results}
    assert rows[1].body is not None
    assert rows[7].body is not None
    errors = {index: row.error for index, row in rows.items() if row.error is not None}
    assert sorted(errors) == [2, 3, 4, 5, 6]
    assert "maximum context length is 64 tokens" in errors[2].message
    assert (errors[2].code, errors[2].status, errors[2].attempts) == ("BadRequestError", 400, 1)
    assert errors[3].code == "invalid_request"
    assert "chat_template" in errors[3].message
    assert errors[5].status == 404
    assert (errors[6].status, errors[6].attempts) == (500, 3)
    assert refused.results[0].error is not None
    assert "/invocations" in refused.results[0].error.message


async def test_heartbeats_tell_state_leases_and_engine(queue: Queue, make_runtime: RuntimeMaker) -> None:
    job = await queue.add_job()
    make_runtime(queue, engine_env={"VLLM_FAKE_LOAD_SECONDS": "1"})
    first = await eventually(lambda: queue.last_heartbeat("worker-0"), "a heartbeat while the engine loads")
    assert (first.state, first.engine, first.node, first.pod_uid) == ("starting", None, "node-1", "uid-worker-0")
    await queue.publish(job, 0, [chat(0, "!sleep 1.5"), chat(1, "quick")])

    def working() -> bool:
        seen = queue.last_heartbeat("worker-0")
        return bool(seen and seen.leases and seen.engine and seen.leases[0].done == 1 and seen.engine.in_flight == 1)

    await eventually(working, "a heartbeat with the lease and the request in flight")
    seen = queue.last_heartbeat("worker-0")
    assert seen is not None
    assert (seen.state, seen.leases[0].job_uid, seen.leases[0].rows) == ("running", job, 2)
    assert seen.engine is not None
    assert seen.engine.idle_seconds == 0
    await queue.results(job, 1)

    def idle() -> bool:
        seen = queue.last_heartbeat("worker-0")
        return bool(seen and not seen.leases and seen.engine and seen.engine.idle_seconds > 0.3)

    await eventually(idle, "an idle heartbeat")
    last = queue.last_heartbeat("worker-0")
    assert last is not None
    assert last.engine is not None
    assert last.engine.requests_total == 2


async def test_a_shard_longer_than_its_lease_is_kept_by_renewal(queue: Queue, make_runtime: RuntimeMaker) -> None:
    job = await queue.add_job(lease_seconds=1)
    log = make_runtime(queue, agent={"lease_seconds": 1})
    await queue.publish(job, 0, [chat(0, "!sleep 2.5")])
    expect_rows(await queue.results(job, 1), {0: "!sleep 2.5"})
    assert "lease lost" not in log.log()


async def test_two_jobs_share_the_rows_in_flight(queue: Queue, make_runtime: RuntimeMaker) -> None:
    large, small = await queue.add_job(), await queue.add_job()
    for shard in range(30):
        await queue.publish(large, shard, [chat(shard * 8 + row, "x") for row in range(8)])
    for shard in range(3):
        await queue.publish(small, shard, [chat(shard * 8 + row, "x") for row in range(8)])
    make_runtime(queue, engine_env={"VLLM_FAKE_LATENCY_SECONDS": "0.1"})
    await queue.results(small, 3)
    done = [await queue.result(large, shard) for shard in range(30)]
    assert sum(result is not None for result in done) <= 10


async def test_a_deleted_job_is_let_go(queue: Queue, make_runtime: RuntimeMaker) -> None:
    job = await queue.add_job(lease_seconds=1)
    runtime = make_runtime(queue, agent={"lease_seconds": 1})
    await queue.publish(job, 0, [chat(0, "!hang")])

    def leased() -> bool:
        seen = queue.last_heartbeat("worker-0")
        return bool(seen and seen.leases)

    await eventually(leased, "a lease")
    await queue.admin.delete_job(queue.queue_id, job)
    await eventually(lambda: not leased(), "the lease gone")
    await eventually(lambda: '"why": "job gone"' in runtime.log(), "the reason in the log")
