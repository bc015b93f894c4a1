"""Inputs that users have, good and bad, and what becomes of their rows."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path

import orjson
from tests.support.jobs import echo

from vllm_operator.driver.job import DriverPaths, DriverTimes, JobDriver
from vllm_operator.driver.relay import QueueState, StoredResult
from vllm_operator_api.queue import JobProgress
from vllm_operator_api.runtime import DriverConfig, DriverOutput, QueueConfig, VolumeInput


@dataclass
class MemoryRelay:
    """Implements ``vllm_operator.driver.job.Relay`` with agents that answer at once."""

    answering: bool = True
    room: int = 1_000_000
    """Messages that the queue takes."""
    queued: dict[int, bytes] = field(default_factory=dict)
    stored: dict[int, StoredResult] = field(default_factory=dict)
    output: bytes | None = None
    published: list[int] = field(default_factory=list)
    _sequence: int = 0

    async def publish(self, shard: int, payload: bytes, *, compressed: bool) -> bool:
        import zstandard

        if len(self.queued) + len(self.stored) >= self.room:
            return False
        self.published.append(shard)
        message = zstandard.ZstdDecompressor().decompress(payload) if compressed else payload
        if self.answering:
            self.answer(message)
        else:
            self.queued[shard] = message
        return True

    def answer(self, message: bytes) -> None:
        """Store the result of a shard unless there is one."""
        shard = orjson.loads(message)
        results = [echo(request) for request in shard["requests"]]
        self.store(shard["shard"], {"job_uid": shard["job_uid"], "shard": shard["shard"], "results": results})

    def store(self, index: int, result: dict[str, object]) -> None:
        self._sequence += 1
        payload = orjson.dumps({"worker": "memory", **result})
        self.stored.setdefault(index, StoredResult(self._sequence, payload, compressed=False))

    async def wake_agents(self) -> None:
        return None

    async def state(self) -> QueueState:
        return QueueState(queued=frozenset(self.queued), answered=frozenset(self.stored))

    async def result(self, shard: int) -> StoredResult | None:
        return self.stored.get(shard)

    async def drop_result(self, sequence: int) -> None:
        self.stored = {index: stored for index, stored in self.stored.items() if stored.sequence != sequence}

    async def store_output(self, content: bytes) -> None:
        self.output = content

    async def next_notices(self, timeout_seconds: float) -> frozenset[int]:
        await asyncio.sleep(0)
        return frozenset()


@dataclass
class LocalJob:
    """A job in a directory, with a relay in memory."""

    root: Path
    relay: MemoryRelay = field(default_factory=MemoryRelay)
    changes: dict[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("input", "output", "scratch"):
            (self.root / name).mkdir(parents=True, exist_ok=True)

    @property
    def input(self) -> Path:
        return self.root / "input" / "in.jsonl"

    @property
    def output(self) -> Path:
        return self.root / "output" / "answers.jsonl"

    @property
    def partial(self) -> Path:
        return self.root / "output" / "answers.jsonl.job-1.partial"

    @property
    def log(self) -> Path:
        return self.root / "output" / "answers.jsonl.job-1.partial.log"

    def driver(self) -> JobDriver:
        config = {
            "job_uid": "job-1",
            "queue": QueueConfig(url="nats://127.0.0.1:1", queue_id="queue-1"),
            "endpoint": "/v1/chat/completions",
            "model": "echo",
            "input": VolumeInput(path="in.jsonl"),
            "message_key": "prompt",
            "output": DriverOutput(path="answers.jsonl", result_key="answer"),
            "sampling": {"max_tokens": 16},
        }
        return JobDriver(
            DriverConfig.model_validate({**config, **self.changes}),
            self.relay,
            paths=DriverPaths(self.root / "input", self.root / "output", self.root / "scratch"),
            times=DriverTimes(check_seconds=0.01, storage_min_backoff_seconds=0.001, storage_attempts=3),
        )

    async def run(self) -> JobProgress:
        driver = self.driver()
        report = await driver.run()
        await driver.clean_up()
        return report

    def rows(self) -> list[dict[str, object]]:
        return [orjson.loads(line) for line in self.output.read_bytes().splitlines()]
