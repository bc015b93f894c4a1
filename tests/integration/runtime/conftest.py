"""A real nats-server with the project's own users, a job on it, and runtimes with the fake engine."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import nats
import pytest
import zstandard
from nats.aio.client import Client
from nats.js.errors import NotFoundError
from tests.support.runtime_process import RuntimeProcess, agent_config

from localk8s.nats_server import NatsServer
from vllm_operator.queue import admin as admin_module
from vllm_operator.queue.connection import QueueConnection
from vllm_operator.queue.server_config import ROLES, public_key, server_config
from vllm_operator.queue.view import QueueUnavailableError
from vllm_operator_api import queue as names
from vllm_operator_api.nkey import user_seed_from_entropy
from vllm_operator_api.queue import Heartbeat, RowRequest, Shard, ShardResult


async def eventually(condition: Callable[[], Any], what: str, timeout_seconds: float = 20.0) -> Any:
    """The first true value of ``condition``, which may be a coroutine function."""
    deadline = time.monotonic() + timeout_seconds
    while True:
        value = condition()
        if inspect.isawaitable(value):
            value = await value
        if value:
            return value
        assert time.monotonic() < deadline, f"{what}: not within {timeout_seconds} s"
        await asyncio.sleep(0.03)


def chat(row: int, content: str, **more: object) -> RowRequest:
    """A chat row."""
    return RowRequest(row=row, body={"model": "tiny", "messages": [{"role": "user", "content": content}], **more})


class Queue:
    """The queue as operator and driver see it."""

    def __init__(self, server: NatsServer, credentials: Path) -> None:
        self.server = server
        self.credentials = credentials
        self.queue_id = str(uuid4())
        self.heartbeats: list[Heartbeat] = []
        self._connection = QueueConnection(
            server.url, str(credentials / "operator"), "test", inbox_prefix=names.OPERATOR_INBOX_PREFIX
        )
        self._driver: Client | None = None

    async def start(self) -> None:
        async def on_heartbeat(message: Any) -> None:
            self.heartbeats.append(Heartbeat.model_validate_json(message.data))

        async def subscribe(client: Client) -> None:
            await client.subscribe(names.HEARTBEAT_FILTER, cb=on_heartbeat)

        self._connection.add_setup(subscribe)
        await self._connection.start()
        await self._connection.wait_connected()

    async def stop(self) -> None:
        with contextlib.suppress(QueueUnavailableError):  # its streams reserve disk that the next test needs
            await self.admin.sweep(frozenset(), frozenset())
        if self._driver is not None:
            await self._driver.close()
        await self._connection.stop()

    async def driver(self) -> Client:
        if self._driver is None or not self._driver.is_connected:
            seed = user_seed_from_entropy((self.credentials / "driver/entropy").read_text())
            self._driver = await nats.connect(
                self.server.url, nkeys_seed_str=seed, inbox_prefix=names.DRIVER_INBOX_PREFIX, max_reconnect_attempts=-1
            )
        return self._driver

    @property
    def admin(self) -> admin_module.JetStreamAdmin:
        return admin_module.JetStreamAdmin(self._connection)

    async def add_job(self, lease_seconds: int = 2) -> str:
        job_uid = str(uuid4())
        await self.ensure(job_uid, lease_seconds)
        return job_uid

    async def ensure(self, job_uid: str, lease_seconds: int = 2) -> None:
        await self._connection.wait_connected()
        await self.admin.ensure_job(self.queue_id, job_uid, lease_seconds=lease_seconds, max_leased=100)

    async def publish(
        self, job_uid: str, shard: int, rows: list[RowRequest], endpoint: str = "/v1/chat/completions"
    ) -> None:
        document = Shard(job_uid=job_uid, shard=shard, endpoint=endpoint, requests=rows)
        client = await self.driver()
        payload = zstandard.ZstdCompressor(level=1).compress(document.model_dump_json().encode())
        subject = names.shard_subject(self.queue_id, job_uid, shard)
        await client.jetstream().publish(subject, payload, headers={names.CONTENT_ENCODING_HEADER: names.ZSTD})
        await client.publish(names.wake_subject(self.queue_id))

    async def result(self, job_uid: str, shard: int) -> ShardResult | None:
        try:
            async with self._connection.use() as client:
                message = await client.jsm().get_last_msg(
                    names.result_stream(self.queue_id), names.result_subject(self.queue_id, job_uid, shard)
                )
        except (NotFoundError, QueueUnavailableError):
            return None
        assert message.headers[names.CONTENT_ENCODING_HEADER] == names.ZSTD
        content = zstandard.ZstdDecompressor().decompress(message.data, max_output_size=1 << 26)
        return ShardResult.model_validate_json(content)

    async def results(self, job_uid: str, shards: int, timeout_seconds: float = 30.0) -> list[ShardResult]:
        """All results of a job, when they are there."""

        async def complete() -> list[ShardResult] | None:
            found = [await self.result(job_uid, shard) for shard in range(shards)]
            return [result for result in found if result] if all(found) else None

        return await eventually(complete, f"{shards} results", timeout_seconds)

    async def deliver_and_give_back(self, job_uid: str, times: int) -> None:
        """Lease a shard of the job and give it back, as so many agents would whose engine ends."""
        seed = user_seed_from_entropy((self.credentials / "agent/entropy").read_text())
        client = await nats.connect(self.server.url, nkeys_seed_str=seed, inbox_prefix=names.AGENT_INBOX_PREFIX)
        subscription = await client.jetstream().pull_subscribe_bind(
            names.job_consumer(job_uid), names.work_stream(self.queue_id)
        )
        for _ in range(times):
            (message,) = await subscription.fetch(1, timeout=5)
            await message.nak()
            await client.flush()
        await client.close()

    async def pending(self) -> int:
        """Messages in the work stream: shards that nobody acknowledged."""
        async with self._connection.use() as client:
            info = await client.jsm().stream_info(names.work_stream(self.queue_id))
        return int(info.state.messages)

    def last_heartbeat(self, worker: str) -> Heartbeat | None:
        mine = [heartbeat for heartbeat in self.heartbeats if heartbeat.worker == worker]
        return mine[-1] if mine else None


def expect_rows(results: list[ShardResult], contents: dict[int, str]) -> None:
    """Every row exactly once, with its own answer."""
    rows = [row for result in results for row in result.results]
    assert [row.row for row in rows] == sorted(contents)
    for row in rows:
        assert row.body is not None, row.error
        assert row.body["choices"][0]["message"]["content"] == f"echo: {contents[row.row]}"


@pytest.fixture(scope="session")
def credentials(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("credentials")
    for role in ROLES:
        (folder / role).mkdir()
        (folder / role / "entropy").write_text(f"{role}-{uuid4()}-{uuid4()}")
    return folder


def nats_config(credentials: Path) -> str:
    keys = {role: public_key(user_seed_from_entropy((credentials / role / "entropy").read_text())) for role in ROLES}
    return server_config(keys, listen=None, monitor=None, store_directory=None)


@pytest.fixture(scope="session")
def shared_nats(credentials: Path) -> Iterator[NatsServer]:
    """One server for the tests that do it no harm."""
    with NatsServer(nats_config(credentials)) as server:
        yield server


@pytest.fixture
def own_nats(credentials: Path) -> Iterator[NatsServer]:
    """A server that the test may kill."""
    with NatsServer(nats_config(credentials)) as server:
        yield server


@contextlib.asynccontextmanager
async def opened(server: NatsServer, credentials: Path) -> AsyncIterator[Queue]:
    queue = Queue(server, credentials)
    await queue.start()
    try:
        yield queue
    finally:
        await queue.stop()


@pytest.fixture
async def queue(shared_nats: NatsServer, credentials: Path) -> AsyncIterator[Queue]:
    async with opened(shared_nats, credentials) as queue:
        yield queue


@pytest.fixture
async def own_queue(own_nats: NatsServer, credentials: Path) -> AsyncIterator[Queue]:
    async with opened(own_nats, credentials) as queue:
        yield queue


RuntimeMaker = Callable[..., RuntimeProcess]


@pytest.fixture
def make_runtime(tmp_path: Path, credentials: Path) -> Iterator[RuntimeMaker]:
    """Makes and starts runtimes; all of their processes are gone after the test."""
    made: list[RuntimeProcess] = []

    def make(queue: Queue | None = None, *, agent: dict[str, object] | None = None, **options: Any) -> RuntimeProcess:
        if queue is not None:
            config = agent_config(queue.server.url, queue.queue_id, **(agent or {}))
            own = config.queue.model_copy(update={"credentials_directory": str(credentials / "agent")})
            options["agent"] = config if agent and "queue" in agent else config.model_copy(update={"queue": own})
        runtime = RuntimeProcess(tmp_path, name=options.pop("name", f"worker-{len(made)}"), **options)
        made.append(runtime)
        return runtime.start()

    yield make
    for runtime in made:
        runtime.stop()


Ready = Callable[[RuntimeProcess], Awaitable[None]]


async def ready(runtime: RuntimeProcess) -> RuntimeProcess:
    """The runtime, as soon as its engine answers."""
    return await asyncio.to_thread(runtime.wait_ready)
