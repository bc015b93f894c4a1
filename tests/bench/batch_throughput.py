"""Rows per second of driver, queue and agent against a saturating client, on the same engine and in turn."""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import orjson
from tests.bench.direct_client import saturate
from tests.bench.jobs import JobStack, job_stack, run_async
from tests.bench.real_engine import chat_engine
from tests.bench.report import Report, SkippedError, spread
from tests.support.jobs import QUEUE_ID
from tests.support.runtime_process import FAKE_ENGINE, RuntimeProcess, agent_config

from vllm_operator_api.runtime import QueueConfig

ENDPOINT = "/v1/chat/completions"
TARGET_RATIO = 0.9
ENGINE_READY_SECONDS = 180.0
SLOTS = 4
"""``queue.maxJobs``' default."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """An engine and the load for it."""

    name: str
    rows: int
    in_flight: int
    rounds: int = 3
    model: str = "tiny"
    max_tokens: int = 16
    engine_args: Sequence[str] = ("--model=tiny", "--max-num-seqs=256")
    engine_env: Mapping[str, str] = field(default_factory=dict)
    engine_command: Sequence[str] = (sys.executable, str(FAKE_ENGINE))

    def texts(self) -> list[str]:
        """The user messages."""
        return [
            f"Question {row}: tell me something about the number {row * 7919 % 100_000}." for row in range(self.rows)
        ]

    def lines(self) -> bytes:
        """The job's input."""
        return b"".join(
            orjson.dumps({"id": row, "prompt": text}) + b"\n" for row, text in enumerate(self.texts())
        )  # fmt: skip

    def bodies(self) -> list[bytes]:
        """The same requests as the driver makes."""
        return [
            orjson.dumps({
                "model": self.model, "messages": [{"role": "user", "content": text}], "max_tokens": self.max_tokens,
                "temperature": 0,
            })
            for text in self.texts()
        ]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Measured:
    """One case's results, in rows per second."""

    direct: list[float]
    queued: list[float]
    whole_seconds: list[float]

    @property
    def ratio(self) -> float:
        """The queue's over the client's: median of the rounds, so that a disturbance of one of them is left out."""
        return statistics.median(queued / direct for queued, direct in zip(self.queued, self.direct, strict=True))


def fake_cases() -> list[Case]:
    """From a load that is all waiting to one at which two cores are busy with HTTP alone (20 ms, 64 in flight)."""
    return [
        Case(
            name=f"fake engine, {latency_ms} ms, {in_flight} in flight", rows=rows, in_flight=in_flight,
            engine_env={"VLLM_FAKE_LATENCY_SECONDS": str(latency_ms / 1000)},
        )
        for latency_ms, in_flight, rows in ((100, 64, 3000), (20, 16, 3500), (20, 64, 4000))
    ]  # fmt: skip


def cases() -> tuple[list[Case], str | None]:
    """All cases that this machine can run, and why one is left out."""
    found, why = fake_cases(), None
    try:
        engine = chat_engine()
    except SkippedError as reason:
        why = str(reason)
    else:
        found.append(
            Case(
                name="vLLM on CPU, tiny llama, 64 in flight", rows=1500, in_flight=64, rounds=5,
                engine_args=engine.args, engine_env=engine.environment, engine_command=engine.command,
            )
        )  # fmt: skip
    return found, why


def run() -> None:
    """Print both throughputs and their ratio for each engine."""
    report = Report(
        "batch_throughput: driver + queue + agent against a saturating client, in turn on the same engine",
        ("engine", "client", "job", "ratio", "whole job"),
    )
    found, why = cases()
    for case in found:
        with tempfile.TemporaryDirectory(prefix="bench-batch-") as directory:
            measured = run_async(measure(case, Path(directory)))
        report.row(
            case.name, spread(measured.direct, "rows/s"), spread(measured.queued, "rows/s"), f"{measured.ratio:.3f}",
            spread(measured.whole_seconds, "s", 1),
        )  # fmt: skip
        met = measured.ratio >= TARGET_RATIO
        report.target(case.name, f"{measured.ratio:.1%}", f">= {TARGET_RATIO:.0%}", met=met)
    if why is not None:
        report.note(f"without the real vLLM: {why}")
    report.show()


async def measure(case: Case, directory: Path) -> Measured:
    """Client, job, client, job."""
    async with job_stack(directory) as stack:
        runtime = make_runtime(case, stack)
        runtime.start()
        try:
            await ready(runtime)
            return await alternate(case, stack, runtime)
        finally:
            runtime.stop()


def make_runtime(case: Case, stack: JobStack) -> RuntimeProcess:
    """The real supervisor and agent beside the engine, with a service's default slots."""
    queue = QueueConfig(url=stack.server.url, queue_id=QUEUE_ID, credentials_directory=str(stack.credentials / "agent"))
    agent = agent_config(
        stack.server.url, QUEUE_ID, queue=queue, slots=SLOTS, max_rows_in_flight=case.in_flight, lease_seconds=60,
        heartbeat_seconds=5,
    )  # fmt: skip
    return RuntimeProcess(
        stack.directory, agent=agent, engine_args=case.engine_args, engine_env=case.engine_env,
        engine_command=case.engine_command,
    )  # fmt: skip


async def ready(runtime: RuntimeProcess) -> None:
    """Wait for the engine.

    Raises:
        RuntimeError: it ended or takes too long.
    """
    async with asyncio.timeout(ENGINE_READY_SECONDS):
        while (await asyncio.to_thread(runtime.get, "/health"))[0] != 200:
            if runtime.process.poll() is not None:
                raise RuntimeError(f"the engine ended: {runtime.log()[-3000:]}")
            await asyncio.sleep(0.2)


async def alternate(case: Case, stack: JobStack, runtime: RuntimeProcess) -> Measured:
    """Both ways in turn, so that what else the machine does meets both."""
    url = f"http://127.0.0.1:{runtime.engine_port}{ENDPOINT}"
    lines, bodies = case.lines(), case.bodies()
    await saturate(url, bodies[: 2 * case.in_flight], case.in_flight)  # the first requests compile and fill caches
    measured = Measured([], [], [])
    for _ in range(case.rounds):
        measured.direct.append(await saturate(url, bodies, case.in_flight))
        job = await stack.run_job(
            lines, model=case.model, sampling={"max_tokens": case.max_tokens, "temperature": 0}, slots=SLOTS
        )
        measured.queued.append(job.rows_per_second)
        measured.whole_seconds.append(job.whole_seconds)
    return measured
