"""Whole jobs through a real nats-server: every row exactly once, in order, whatever is killed on the way."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from tests.support.jobs import (
    JOB_UID,
    QUEUE_ID,
    DriverProcess,
    EchoAgent,
    Operator,
    Volumes,
    connect_as,
    driver_config,
    eventually,
    read_rows,
    secured_server,
    write_credentials,
    write_rows,
)

from vllm_operator_api.queue import result_subject
from vllm_operator_api.runtime import DriverOutput

pytestmark = pytest.mark.integration


class Bench:
    """A server, the operator's side of it, and a job's volumes."""

    def __init__(self, tmp_path: Path) -> None:
        self.credentials = write_credentials(tmp_path / "credentials")
        self.server = secured_server(self.credentials)
        self.volumes = Volumes(tmp_path / "volumes")

    def driver(self, **changes: Any) -> DriverProcess:
        return DriverProcess(driver_config(self.server.url, self.credentials, **changes), self.volumes)

    def agent(self, **options: Any) -> EchoAgent:
        return EchoAgent(self.server, self.credentials, **options)

    def check_output(self, rows: int) -> None:
        assert read_rows(self.volumes.output) == [
            {"id": row, "prompt": f"question {row}", "answer": f"echo question {row}"} for row in range(rows)
        ]
        assert [path.name for path in self.volumes.output.parent.iterdir()] == ["answers.jsonl"]


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    bench = Bench(tmp_path)
    bench.server.start()
    try:
        yield bench
    finally:
        bench.server.stop()


async def register(operator: Operator) -> None:
    await operator.connection.wait_connected()
    await operator.admin.ensure_job(QUEUE_ID, JOB_UID, lease_seconds=2, max_leased=100)


async def keep_registered(operator: Operator) -> None:
    """What the operator's reconciles do: make again what the queue has lost."""
    while True:
        if operator.connection.connected and operator.monitor.shard_counts(JOB_UID) is None:
            try:
                await operator.admin.ensure_job(QUEUE_ID, JOB_UID, lease_seconds=2, max_leased=100)
            except Exception as error:  # noqa: BLE001 - tried again
                print(error)
        await asyncio.sleep(0.1)


async def test_a_job_runs_and_reports(bench: Bench) -> None:
    write_rows(bench.volumes.input, 300)
    driver = bench.driver()
    async with Operator.of(bench.server.url, bench.credentials) as operator, bench.agent() as agent:
        await register(operator)
        driver.start()
        assert await driver.wait(20) == 0
        last = await eventually(lambda: (p := operator.monitor.progress(JOB_UID)) and p.phase == "Succeeded" and p)
        assert agent.errors == []
        await operator.admin.delete_job(QUEUE_ID, JOB_UID)
        assert await operator.admin.sweep(frozenset(), frozenset()) == 3
    bench.check_output(300)
    report = bench.volumes.termination_message
    assert report == orjson.loads(last.model_dump_json(exclude_none=True))
    assert (report["rows_completed"], report["rows_failed"], report["prompt_tokens"]) == (300, 0, 600)
    assert report["output_bytes"] == bench.volumes.output.stat().st_size
    assert report["shards_total"] == report["shards_committed"] == len(set(agent.answered))


async def test_drivers_killed_at_random_points(bench: Bench) -> None:
    write_rows(bench.volumes.input, 2000)
    driver = bench.driver(sampling={"max_tokens": 60_000})  # 25 rows a shard, 80 shards
    chance = random.Random(4)
    kills = 0
    async with (
        Operator.of(bench.server.url, bench.credentials) as operator,
        bench.agent(delay_seconds=0.1, twice=True),
        bench.agent(name="echo-1", delay_seconds=0.1, wrong_once={3, 11, 40}),
    ):
        await register(operator)
        while True:
            driver.start()
            try:
                assert await driver.wait(0.5 + chance.random() if kills < 8 else 120) == 0
                break
            except TimeoutError:
                driver.kill(signal.SIGTERM if kills % 3 == 2 else signal.SIGKILL)
                kills += 1
    bench.check_output(2000)
    assert kills >= 3


async def test_queue_server_killed_and_its_store_lost(bench: Bench) -> None:
    write_rows(bench.volumes.input, 1500)
    driver = bench.driver()
    async with (
        Operator.of(bench.server.url, bench.credentials) as operator,
        bench.agent(delay_seconds=0.1),
        bench.agent(name="echo-1", delay_seconds=0.1),
    ):
        await register(operator)
        keeper = asyncio.create_task(keep_registered(operator))
        driver.start()
        partial = bench.volumes.output.with_name(f"answers.jsonl.{JOB_UID}.partial")
        await eventually(lambda: partial.exists() and partial.stat().st_size > 0)
        await asyncio.to_thread(bench.server.restart)
        grown = partial.stat().st_size
        await eventually(lambda: not partial.exists() or partial.stat().st_size > grown, 20)
        await asyncio.to_thread(bench.server.wipe)
        assert await driver.wait(120) == 0
        keeper.cancel()
    bench.check_output(1500)


async def test_a_forged_result_of_another_shape_is_refused(bench: Bench) -> None:
    write_rows(bench.volumes.input, 50)
    driver = bench.driver()
    async with Operator.of(bench.server.url, bench.credentials) as operator:
        await register(operator)
        forger = bench.agent()
        client = await connect_as(bench.server, bench.credentials, "agent")
        for shard, payload in enumerate(
            [b"", b"{}", b"not json", b'{"job_uid":"other","shard":3,"worker":"x","results":[]}']
        ):
            await client.jetstream().publish(result_subject(QUEUE_ID, JOB_UID, shard), payload)
        await client.close()
        async with forger:
            driver.start()
            assert await driver.wait(20) == 0
    bench.check_output(50)


async def test_config_map_output_goes_to_the_operator(bench: Bench) -> None:
    write_rows(bench.volumes.input, 20)
    driver = bench.driver(output=DriverOutput(path=None, result_key="answer"))
    async with Operator.of(bench.server.url, bench.credentials) as operator, bench.agent():
        await register(operator)
        assert await operator.admin.take_output(JOB_UID) is None
        driver.start()
        assert await driver.wait(20) == 0
        content = await operator.admin.take_output(JOB_UID)
        assert content is not None
        assert [orjson.loads(line)["answer"] for line in content.splitlines()] == [
            f"echo question {row}" for row in range(20)
        ]
        await operator.admin.delete_job(QUEUE_ID, JOB_UID)
        assert await operator.admin.take_output(JOB_UID) is None


async def test_the_queue_is_down_when_the_driver_starts(bench: Bench) -> None:
    write_rows(bench.volumes.input, 30)
    bench.server.kill()
    driver = bench.driver()
    async with Operator.of(bench.server.url, bench.credentials) as operator, bench.agent():
        driver.start()
        await eventually(lambda: "cannot connect" in (operator.monitor.problem or ""), 30)
        assert driver.exit_code is None
        await asyncio.to_thread(bench.server.restart)
        await register(operator)
        assert await driver.wait(30) == 0
    bench.check_output(30)
