"""Helpers for tests of jobs: a queue with the chart's users, an echo agent, and drivers as processes."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import nats.errors
import nats.js.errors
import orjson
import zstandard
from nats.aio.client import Client

from localk8s.nats_server import NatsServer
from vllm_operator.queue.admin import JetStreamAdmin
from vllm_operator.queue.connection import QueueConnection
from vllm_operator.queue.monitor import QueueMonitor
from vllm_operator.queue.server_config import ROLES, read_public_keys, server_config
from vllm_operator_api.nkey import read_user_seed
from vllm_operator_api.queue import (
    AGENT_INBOX_PREFIX,
    CONTENT_ENCODING_HEADER,
    DRIVER_INBOX_PREFIX,
    OPERATOR_INBOX_PREFIX,
    ZSTD,
    result_subject,
    work_stream,
)
from vllm_operator_api.runtime import DriverConfig, DriverOutput, QueueConfig, VolumeInput

QUEUE_ID = "0f5a2c1e-7a8b-4c3d-9e2f-1a2b3c4d5e6f"
JOB_UID = "7d1e9b52-3c4f-4a6b-8d7e-9f0a1b2c3d4e"
INBOXES = {"operator": OPERATOR_INBOX_PREFIX, "agent": AGENT_INBOX_PREFIX, "driver": DRIVER_INBOX_PREFIX}

_DRIVER = """
import sys
from pathlib import Path
from vllm_operator.driver.job import DriverPaths, DriverTimes
from vllm_operator.driver.main import run_job
from vllm_operator_api.runtime import DriverConfig
root = Path(sys.argv[1])
sys.exit(run_job(
    DriverConfig.model_validate_json(sys.argv[2]),
    paths=DriverPaths(input_root=root / "input", output_root=root / "output", scratch=root / "scratch"),
    times=DriverTimes(check_seconds=0.3, storage_min_backoff_seconds=0.05, storage_attempts=5),
    termination_message=root / "termination-log",
))
"""


def write_credentials(directory: Path) -> Path:
    """A directory with entropy for each role."""
    for role in ROLES:
        (directory / role).mkdir(parents=True)
        (directory / role / "entropy").write_text(f"{role}-{'0123456789abcdef' * 4}")
    return directory


def secured_server(credentials: Path, **options: Any) -> NatsServer:
    """The real nats-server with the chart's configuration."""
    text = server_config(read_public_keys(credentials), listen=None, monitor=None, store_directory=None)
    return NatsServer(text, **options)


async def connect_as(server: NatsServer, credentials: Path, role: str, errors: list[str] | None = None) -> Client:
    """A plain client of one role; permission errors go to ``errors``."""

    async def on_error(error: Exception) -> None:
        if errors is not None:
            errors.append(str(error))

    client = Client()
    await client.connect(
        servers=[server.url],
        nkeys_seed_str=read_user_seed(credentials / role),
        inbox_prefix=INBOXES[role],
        error_cb=on_error,
        max_reconnect_attempts=-1,
        reconnect_time_wait=1,
    )
    return client


@dataclass
class Volumes:
    """A job's volumes as directories."""

    root: Path

    def __post_init__(self) -> None:
        for name in ("input", "output", "scratch"):
            (self.root / name).mkdir(parents=True, exist_ok=True)

    @property
    def input(self) -> Path:
        return self.root / "input" / "in.jsonl"

    @property
    def output(self) -> Path:
        return self.root / "output" / "out" / "answers.jsonl"

    @property
    def termination_message(self) -> dict[str, Any]:
        message: dict[str, Any] = orjson.loads((self.root / "termination-log").read_bytes())
        return message


def driver_config(server_url: str, credentials: Path, **changes: Any) -> DriverConfig:
    """A chat job from ``input/in.jsonl`` to ``output/out/answers.jsonl``."""
    config = {
        "job_uid": JOB_UID,
        "queue": QueueConfig(url=server_url, queue_id=QUEUE_ID, credentials_directory=str(credentials / "driver")),
        "endpoint": "/v1/chat/completions",
        "model": "echo",
        "input": VolumeInput(path="in.jsonl"),
        "message_key": "prompt",
        "sampling": {"max_tokens": 64},
        "output": DriverOutput(path="out/answers.jsonl", result_key="answer"),
        "workers": 1,
        "slots": 4,
    }
    return DriverConfig.model_validate({**config, **changes})


class DriverProcess:
    """A job driver as a process of its own, to be killed and started again."""

    def __init__(self, config: DriverConfig, volumes: Volumes, *, quiet: bool = False) -> None:
        """``quiet``: its log goes to the file ``driver.log`` beside the volumes."""
        self._quiet = quiet
        self._config = config
        self._volumes = volumes
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        root = Path(__file__).resolve().parents[2]
        environment = {**os.environ, "PYTHONPATH": f"{root / 'crds'}:{root / 'operator'}"}
        with (self._volumes.root / "driver.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _DRIVER, str(self._volumes.root), self._config.model_dump_json()],
                env=environment,
                stdout=log if self._quiet else None,
                stderr=log,
            )

    def kill(self, number: int = signal.SIGKILL) -> int:
        assert self._process is not None
        with suppress(ProcessLookupError):
            self._process.send_signal(number)
        return self._process.wait(30)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        assert self._process is not None
        return self._process.poll()

    async def wait(self, timeout_seconds: float) -> int:
        async with asyncio.timeout(timeout_seconds):
            while self.exit_code is None:
                await asyncio.sleep(0.02)
        assert self.exit_code is not None
        return self.exit_code


Answer = Callable[[dict[str, Any]], dict[str, Any]]


def echo(request: dict[str, Any]) -> dict[str, Any]:
    """The result of one row: its text back; ``fail`` in it is an error."""
    body = request["body"]
    if "input" in body:
        answer = {"data": [{"embedding": [float(len(body["input"])), 0.5]}], "usage": {"prompt_tokens": 1}}
        return {"row": request["row"], "body": answer}
    text = body["messages"][-1]["content"]
    if isinstance(text, str) and text.startswith("fail"):
        error = {"code": "context_length_exceeded", "message": f"too long: {text}", "status": 400}
        return {"row": request["row"], "error": error}
    message = {"content": f"echo {text}"}
    usage = {"prompt_tokens": 2, "completion_tokens": 3}
    return {"row": request["row"], "body": {"choices": [{"message": message}], "usage": usage}}


@dataclass
class EchoAgent:
    """A minimal agent with the agent's own credentials. Misbehaves on purpose where told to."""

    server: NatsServer
    credentials: Path
    name: str = "echo-0"
    answer: Answer = echo
    delay_seconds: float = 0.0
    wrong_once: set[int] = field(default_factory=set)
    """Shards whose first result has a row too few."""
    twice: bool = False
    """Publish each result a second time a little later, as a stale holder of a lease would."""
    answered: list[int] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    _task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task

    async def _run(self) -> None:
        client = await connect_as(self.server, self.credentials, "agent", self.errors)
        try:
            while True:
                try:
                    if not await self._turn(client):
                        await asyncio.sleep(0.05)
                except (nats.errors.Error, TimeoutError, orjson.JSONDecodeError):
                    await asyncio.sleep(0.1)
        finally:
            await client.close()

    async def _turn(self, client: Client) -> bool:
        stream = work_stream(QUEUE_ID)
        reply = await client.request(f"$JS.API.CONSUMER.NAMES.{stream}", b"", timeout=2)
        worked = False
        for consumer in orjson.loads(reply.data).get("consumers") or []:
            subscription = await client.jetstream().pull_subscribe_bind(consumer, stream)
            try:
                for message in await subscription.fetch(1, timeout=0.3):
                    await self._answer(client, message)
                    worked = True
            finally:
                await subscription.unsubscribe()
        return worked

    async def _answer(self, client: Client, message: Any) -> None:
        payload = message.data
        if (message.headers or {}).get(CONTENT_ENCODING_HEADER) == ZSTD:
            payload = zstandard.ZstdDecompressor().decompress(payload)
        shard = orjson.loads(payload)
        await asyncio.sleep(self.delay_seconds * random.random())
        results = [self.answer(request) for request in shard["requests"]]
        if shard["shard"] in self.wrong_once:
            self.wrong_once.discard(shard["shard"])
            results.pop()
        body = {"job_uid": shard["job_uid"], "shard": shard["shard"], "worker": self.name, "results": results}
        packed = zstandard.ZstdCompressor(level=1).compress(orjson.dumps(body))
        subject = result_subject(QUEUE_ID, shard["job_uid"], shard["shard"])
        for _ in range(2 if self.twice else 1):
            with suppress(nats.js.errors.APIError):
                await client.jetstream().publish(subject, packed, headers={CONTENT_ENCODING_HEADER: ZSTD})
            await asyncio.sleep(0.02 if self.twice else 0)
        await message.ack_sync(timeout=2)
        self.answered.append(shard["shard"])


@dataclass
class Operator:
    """The operator's side of the queue."""

    connection: QueueConnection
    monitor: QueueMonitor
    admin: JetStreamAdmin

    @classmethod
    def of(cls, server_url: str, credentials: Path) -> Operator:
        connection = QueueConnection(
            server_url, str(credentials / "operator"), "operator", inbox_prefix=OPERATOR_INBOX_PREFIX
        )
        monitor = QueueMonitor(connection, poll_seconds=0.2)
        return cls(connection, monitor, JetStreamAdmin(connection, monitor))

    async def __aenter__(self) -> Self:
        await self.connection.start()
        await self.monitor.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.monitor.stop()
        await self.connection.stop()


async def eventually(check: Callable[[], Any], timeout_seconds: float = 10.0) -> Any:
    """The first true answer of ``check``."""
    async with asyncio.timeout(timeout_seconds):
        while not (answer := check()):
            await asyncio.sleep(0.02)
        return answer


def write_rows(path: Path, count: int, text: Callable[[int], str] = lambda row: f"question {row}") -> None:
    """``count`` rows with their index as ``id``."""
    path.write_bytes(b"".join(orjson.dumps({"id": row, "prompt": text(row)}) + b"\n" for row in range(count)))


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of an output."""
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]
