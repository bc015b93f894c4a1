"""The chart's queue users against the real server: each may do its work, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import nats.errors
import nats.js.errors
import orjson
import pytest
from nats.aio.client import Client
from tests.support.jobs import (
    JOB_UID,
    QUEUE_ID,
    Operator,
    connect_as,
    eventually,
    secured_server,
    write_credentials,
)

from localk8s.nats_server import NatsServer
from vllm_operator.queue.admin import JetStreamAdmin
from vllm_operator.queue.connection import QueueConnection
from vllm_operator.queue.view import QueueUnavailableError
from vllm_operator_api.queue import (
    OUTPUT_STREAM,
    Heartbeat,
    JobProgress,
    heartbeat_subject,
    job_consumer,
    output_subject,
    progress_subject,
    result_notice_subject,
    result_stream,
    result_subject,
    shard_subject,
    wake_subject,
    work_stream,
)

pytestmark = pytest.mark.integration

Q, R = work_stream(QUEUE_ID), result_stream(QUEUE_ID)
SHARD, RESULT = shard_subject(QUEUE_ID, JOB_UID, 0), result_subject(QUEUE_ID, JOB_UID, 0)
CONSUMER = job_consumer(JOB_UID)


class Queue:
    def __init__(self, server: NatsServer, credentials: Path) -> None:
        self.server = server
        self.credentials = credentials
        self.errors: dict[str, list[str]] = {}
        self._clients: list[Client] = []

    async def connect(self, role: str) -> Client:
        client = await connect_as(self.server, self.credentials, role, self.errors.setdefault(role, []))
        self._clients.append(client)
        return client

    async def close(self) -> None:
        for client in self._clients:
            await client.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Any:
    credentials = write_credentials(tmp_path_factory.mktemp("credentials") / "users")
    with secured_server(credentials) as running:
        yield running, credentials


@pytest.fixture
async def queue(server: tuple[NatsServer, Path]) -> AsyncIterator[Queue]:
    queue = Queue(*server)
    async with Operator.of(queue.server.url, queue.credentials) as operator:
        await operator.connection.wait_connected()
        await operator.admin.ensure_job(QUEUE_ID, JOB_UID, lease_seconds=30, max_leased=8)
        yield queue
        await operator.admin.sweep(frozenset(), frozenset())
    await queue.close()


async def test_a_shard_goes_its_way(queue: Queue) -> None:
    driver, agent = await queue.connect("driver"), await queue.connect("agent")
    woken, notices = asyncio.Event(), []

    async def on_wake(_: object) -> None:
        woken.set()

    async def on_notice(message: Any) -> None:
        notices.append((message.subject, message.data))

    await agent.subscribe(wake_subject(QUEUE_ID), cb=on_wake)
    await driver.subscribe(result_notice_subject(QUEUE_ID, JOB_UID, "*"), cb=on_notice)
    await agent.flush()
    await driver.flush()

    await driver.jetstream().publish(SHARD, b"work")
    await driver.publish(wake_subject(QUEUE_ID), b"")
    await asyncio.wait_for(woken.wait(), 5)
    names = orjson.loads((await agent.request(f"$JS.API.CONSUMER.NAMES.{Q}", b"", timeout=5)).data)
    assert names["consumers"] == [CONSUMER]
    subscription = await agent.jetstream().pull_subscribe_bind(CONSUMER, Q)
    (message,) = await subscription.fetch(1, timeout=5)
    assert message.data == b"work"
    await message.in_progress()
    await agent.jetstream().publish(RESULT, b"answer")
    await message.ack_sync()

    await eventually(lambda: notices)
    assert notices == [(result_notice_subject(QUEUE_ID, JOB_UID, 0), b"")]
    stored = await driver.jetstream().get_last_msg(R, RESULT, direct=True)
    assert stored.data == b"answer"
    await driver.request(f"$JS.API.STREAM.MSG.DELETE.{R}", orjson.dumps({"seq": stored.seq}), timeout=5)
    with pytest.raises(nats.js.errors.NotFoundError):
        await driver.jetstream().get_last_msg(R, RESULT, direct=True)
    await driver.jetstream().publish(output_subject(JOB_UID), b"output")
    assert queue.errors == {"driver": [], "agent": []}


async def test_the_first_writer_wins(queue: Queue) -> None:
    agent, driver = await queue.connect("agent"), await queue.connect("driver")
    await driver.jetstream().publish(SHARD, b"work")
    await agent.jetstream().publish(RESULT, b"first")
    for client, subject in ((driver, SHARD), (agent, RESULT)):
        with pytest.raises(nats.js.errors.APIError) as raised:
            await client.jetstream().publish(subject, b"second")
        assert (raised.value.err_code, raised.value.description) == (10077, "maximum messages per subject exceeded")


DENIED_PUBLISH = [
    ("agent", SHARD),
    ("agent", output_subject(JOB_UID)),
    ("agent", progress_subject(JOB_UID)),
    ("agent", wake_subject(QUEUE_ID)),
    ("agent", f"$JS.API.STREAM.PURGE.{Q}"),
    ("agent", f"$JS.API.STREAM.PURGE.{R}"),
    ("agent", f"$JS.API.STREAM.DELETE.{Q}"),
    ("agent", f"$JS.API.STREAM.CREATE.{Q}"),
    ("agent", f"$JS.API.STREAM.UPDATE.{Q}"),
    ("agent", "$JS.API.STREAM.LIST"),
    ("agent", "$JS.API.STREAM.NAMES"),
    ("agent", f"$JS.API.STREAM.MSG.GET.{R}"),
    ("agent", f"$JS.API.STREAM.MSG.DELETE.{R}"),
    ("agent", f"$JS.API.DIRECT.GET.{R}.{RESULT}"),
    ("agent", f"$JS.API.CONSUMER.CREATE.{Q}.evil"),
    ("agent", f"$JS.API.CONSUMER.CREATE.{R}.evil"),
    ("agent", f"$JS.API.CONSUMER.DELETE.{Q}.{CONSUMER}"),
    ("agent", f"$JS.API.CONSUMER.PAUSE.{Q}.{CONSUMER}"),
    ("agent", f"$JS.API.CONSUMER.LEADER.STEPDOWN.{Q}.{CONSUMER}"),
    ("agent", "$SYS.REQ.SERVER.PING"),
    ("driver", RESULT),
    ("driver", f"q.{QUEUE_ID}.i.x"),
    ("driver", heartbeat_subject(QUEUE_ID, "pod-0")),
    ("driver", f"$JS.ACK.{Q}.{CONSUMER}.1.1.1.1.0"),
    ("driver", f"$JS.API.CONSUMER.MSG.NEXT.{Q}.{CONSUMER}"),
    ("driver", f"$JS.API.CONSUMER.CREATE.{R}.evil"),
    ("driver", f"$JS.API.CONSUMER.DELETE.{Q}.{CONSUMER}"),
    ("driver", f"$JS.API.STREAM.PURGE.{Q}"),
    ("driver", f"$JS.API.STREAM.DELETE.{R}"),
    ("driver", f"$JS.API.STREAM.CREATE.{R}"),
    ("driver", "$JS.API.STREAM.NAMES"),
    ("driver", "$SYS.REQ.SERVER.PING"),
    ("operator", SHARD),
    ("operator", RESULT),
    ("operator", output_subject(JOB_UID)),
    ("operator", f"$JS.API.CONSUMER.MSG.NEXT.{Q}.{CONSUMER}"),
]


@pytest.mark.parametrize("role", ["agent", "driver", "operator"])
async def test_publishing_is_denied(queue: Queue, role: str) -> None:
    client = await queue.connect(role)
    subjects = [subject for denied, subject in DENIED_PUBLISH if denied == role]
    for subject in subjects:
        await client.publish(subject, b"{}")
    await client.flush()
    errors = queue.errors[role]
    await eventually(lambda: len(errors) == len(subjects))
    assert [error.partition('to "')[2].rstrip('"') for error in errors] == [subject.lower() for subject in subjects]


DENIED_SUBSCRIBE = {
    "agent": [
        ">",
        "hb.>",
        "hb.*.*",
        "q.>",
        "r.>",
        "rn.>",
        "jp.*",
        "_INBOX.>",
        "_INBOX_operator.>",
        "_INBOX_driver.>",
        "$JS.>",
    ],
    "driver": [
        ">",
        "hb.*.*",
        "q.>",
        "r.>",
        "ctl.>",
        "jp.*",
        "out.*",
        "_INBOX.>",
        "_INBOX_operator.>",
        "_INBOX_agent.>",
    ],
    "operator": [">", "q.>", "r.>", "_INBOX.>", "_INBOX_agent.>", "_INBOX_driver.>"],
}


@pytest.mark.parametrize("role", list(DENIED_SUBSCRIBE))
async def test_subscribing_is_denied(queue: Queue, role: str) -> None:
    client = await queue.connect(role)
    for subject in DENIED_SUBSCRIBE[role]:
        await client.subscribe(subject)
    await client.flush()
    await eventually(lambda: len(queue.errors[role]) == len(DENIED_SUBSCRIBE[role]))


async def test_the_operator_sees_and_cleans(queue: Queue) -> None:
    async with Operator.of(queue.server.url, queue.credentials) as operator:
        await operator.connection.wait_connected()
        agent, driver = await queue.connect("agent"), await queue.connect("driver")
        heartbeat = Heartbeat(
            queue_id=QUEUE_ID, worker="pod-0", pod_uid="u", node="n", state="running", slots=4, sequence=1
        )
        forged = heartbeat.model_copy(update={"worker": "pod-1"})
        await agent.publish(heartbeat_subject(QUEUE_ID, "pod-0"), heartbeat.model_dump_json().encode())
        await agent.publish(heartbeat_subject(QUEUE_ID, "pod-0"), forged.model_dump_json().encode())
        await agent.publish(heartbeat_subject(QUEUE_ID, "pod-0"), b"x" * 9000)
        report = JobProgress(job_uid=JOB_UID, phase="Running", rows_total=5)
        await driver.publish(progress_subject(JOB_UID), report.model_dump_json().encode())
        await eventually(lambda: operator.monitor.progress(JOB_UID) == report)
        (seen,) = await eventually(lambda: operator.monitor.heartbeats(QUEUE_ID))
        assert seen.heartbeat == heartbeat

        assert not await operator.admin.ensure_job(QUEUE_ID, JOB_UID, lease_seconds=30, max_leased=8)
        assert await operator.admin.ensure_job(QUEUE_ID, JOB_UID, lease_seconds=60, max_leased=8)
        await driver.jetstream().publish(SHARD, b"work")
        counts = await eventually(lambda: (c := operator.monitor.shard_counts(JOB_UID)) and c.pending == 1 and c)
        assert (counts.leased, counts.redelivered) == (0, 0)
        await driver.jetstream().publish(output_subject(JOB_UID), b"output")
        assert await operator.admin.take_output(JOB_UID) == b"output"

        assert await operator.admin.sweep(frozenset({QUEUE_ID}), frozenset({JOB_UID})) == 0
        await operator.admin.delete_job(QUEUE_ID, JOB_UID)
        await operator.admin.delete_job(QUEUE_ID, JOB_UID)
        assert await operator.admin.take_output(JOB_UID) is None
        state = orjson.loads((await driver.request(f"$JS.API.STREAM.INFO.{Q}", b"", timeout=5)).data)["state"]
        assert (state["messages"], state["consumer_count"]) == (0, 0)

        other = "0" * 36
        await operator.admin.ensure_job(QUEUE_ID, other, lease_seconds=30, max_leased=8)
        await driver.jetstream().publish(output_subject(other), b"output")
        assert await operator.admin.sweep(frozenset({QUEUE_ID}), frozenset({JOB_UID})) == 1
        assert await operator.admin.take_output(other) is None
        assert await operator.admin.sweep(frozenset(), frozenset()) == 3
        info = orjson.loads((await driver.request(f"$JS.API.STREAM.INFO.{OUTPUT_STREAM}", b"", timeout=5)).data)
        assert info["error"]["code"] == 404


async def test_wrong_credentials_are_reported_and_read_again(
    queue: Queue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vllm_operator.queue.connection._ATTEMPT_SECONDS", 1.0)
    seeds = tmp_path / "operator"
    connection = QueueConnection(queue.server.url, str(seeds), "late", inbox_prefix="_INBOX_operator")
    await connection.start()
    try:
        await eventually(lambda: "no queue credentials" in (connection.problem or ""))
        with pytest.raises(QueueUnavailableError, match="no queue credentials"):
            async with connection.use():
                pass
        seeds.mkdir()
        (seeds / "entropy").write_text("x" * 40)
        await eventually(lambda: "uthorization" in (connection.problem or ""))
        (seeds / "entropy").write_text((queue.credentials / "operator" / "entropy").read_text())
        await eventually(lambda: connection.connected, 40)
        assert connection.problem is None
    finally:
        await connection.stop()


async def test_nobody_without_credentials(server: tuple[NatsServer, Path]) -> None:
    client = Client()
    errors = []

    async def on_error(error: Exception) -> None:
        errors.append(error)

    with pytest.raises(nats.errors.Error):
        await client.connect(servers=[server[0].url], error_cb=on_error, allow_reconnect=False)
    await client.close()
    assert "uthorization" in str(errors[0])


async def test_a_server_that_takes_small_messages_only_is_refused() -> None:
    """Rows and results beyond its limit would wait for ever: its owner is told instead."""
    with NatsServer("max_payload: 1MB") as server:
        connection = QueueConnection(server.url, "", "test")
        await connection.start()
        try:
            await eventually(lambda: "max_payload is 1048576; 8388608 (8MB) is needed" in (connection.problem or ""))
            assert not connection.connected
        finally:
            await connection.stop()


async def test_an_account_without_jetstream_says_so() -> None:
    account = "accounts { A { users: [{user: a, password: b}] } }\nno_auth_user: a"
    with NatsServer(f"max_payload: 8MB\n{account}") as server:
        connection = QueueConnection(server.url, "", "test")
        admin = JetStreamAdmin(connection)
        await connection.start()
        try:
            await eventually(lambda: connection.connected)
            with pytest.raises(QueueUnavailableError, match="does not offer JetStream"):
                await admin.ensure_job(QUEUE_ID, JOB_UID, lease_seconds=30, max_leased=8)
        finally:
            await connection.stop()
