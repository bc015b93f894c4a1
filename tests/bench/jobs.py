"""Batch jobs through the real driver and nats-server, timed by the driver's own reports."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import uvloop
from tests.support.jobs import (
    QUEUE_ID,
    DriverProcess,
    Operator,
    Volumes,
    connect_as,
    driver_config,
    secured_server,
    write_credentials,
)

from localk8s.nats_server import NatsServer
from vllm_operator_api.queue import JobProgress, progress_subject

LEASE_SECONDS = 60
MAX_LEASED = 100
JOB_TIMEOUT_SECONDS = 240.0
_Answer = TypeVar("_Answer")


@dataclass(frozen=True, slots=True)
class JobRun:
    """What one job took."""

    rows: int
    running_seconds: float
    """From the driver's report that the input is valid to the one that the last row is written."""
    whole_seconds: float
    """From the start of the driver's process to its end."""
    driver_peak_mib: float
    driver_cpu_seconds: float
    """User and system time of the driver's process, its start included."""

    @property
    def rows_per_second(self) -> float:
        """While it ran."""
        return self.rows / self.running_seconds


@dataclass
class JobStack:
    """A nats-server with the chart's users and the operator's side of it."""

    server: NatsServer
    credentials: Path
    operator: Operator
    directory: Path

    async def run_job(self, rows: bytes, **config: Any) -> JobRun:
        """One job over ``rows`` (JSON lines), by whoever serves the queue."""
        job_uid = str(uuid4())
        volumes = Volumes(self.directory / job_uid)
        volumes.input.write_bytes(rows)
        await self.operator.admin.ensure_job(QUEUE_ID, job_uid, lease_seconds=LEASE_SECONDS, max_leased=MAX_LEASED)
        seen: dict[str, float] = {}
        client = await connect_as(self.server, self.credentials, "operator")

        async def on_progress(message: Any) -> None:
            progress = JobProgress.model_validate_json(message.data)
            seen.setdefault(progress.phase, time.monotonic())

        await client.subscribe(progress_subject(job_uid), cb=on_progress)
        await client.flush()
        job = driver_config(self.server.url, self.credentials, job_uid=job_uid, **config)
        driver = DriverProcess(job, volumes, quiet=True)
        peak, cpu_seconds = 0.0, 0.0
        started_at = time.monotonic()
        driver.start()
        try:
            async with asyncio.timeout(JOB_TIMEOUT_SECONDS):
                while driver.exit_code is None:
                    with suppress(OSError, ValueError):  # it may be gone by now
                        peak, cpu_seconds = peak_mib(driver.pid), cpu_seconds_of(driver.pid)
                    await asyncio.sleep(0.05)
            whole_seconds = time.monotonic() - started_at
        finally:
            driver.kill()
            await client.close()
            await self.operator.admin.delete_job(QUEUE_ID, job_uid)
        done = JobProgress.model_validate(volumes.termination_message)
        if done.phase != "Succeeded" or done.rows_failed:
            raise RuntimeError(f"the job did not go well: {done}")
        ended_at = seen.get("Finalizing") or seen["Succeeded"]
        return JobRun(done.rows_completed, ended_at - seen["Running"], whole_seconds, peak, cpu_seconds)


@asynccontextmanager
async def job_stack(directory: Path) -> AsyncIterator[JobStack]:
    """A stack without agents."""
    credentials = write_credentials(directory / "credentials")
    with secured_server(credentials) as server:
        async with Operator.of(server.url, credentials) as operator:
            await operator.connection.wait_connected()
            yield JobStack(server, credentials, operator, directory)


def peak_mib(pid: int) -> float:
    """Largest resident set of a process so far.

    Raises:
        OSError: there is no such process.
        ValueError: it has ended.
    """
    status = Path(f"/proc/{pid}/status").read_text()
    _, found, rest = status.partition("VmHWM:")
    if not found:
        raise ValueError(f"process {pid} has ended")
    return int(rest.split()[0]) / 1024


def cpu_seconds_of(pid: int) -> float:
    """User and system time of a process so far.

    Raises:
        OSError: there is no such process.
    """
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def run_async(work: Awaitable[_Answer]) -> _Answer:
    """On the event loop that the product uses."""

    async def main() -> _Answer:
        return await work

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main())
