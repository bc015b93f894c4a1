"""Driver and queue alone: agents that answer at once, and twice the question whether memory grows with the input."""

from __future__ import annotations

import asyncio
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path

import orjson
from tests.bench.jobs import JobRun, JobStack, job_stack, run_async
from tests.bench.report import Report
from tests.support.jobs import EchoAgent

SMALL_ROWS = 50_000
LARGE_ROWS = 200_000
AGENTS = 2
TARGET_MEMORY_RATIO = 1.15
TARGET_SPEED_RATIO = 0.8


def run() -> None:
    """Print rows per second and the driver's memory for a small and a large input."""
    with tempfile.TemporaryDirectory(prefix="bench-relay-") as directory:
        small, large = run_async(measure(Path(directory)))
    report = Report(
        f"relay: driver and queue with {AGENTS} agents that echo in this process",
        ("input", "rows/s", "driver's peak RSS", "whole job"),
    )
    for job in (small, large):
        report.row(
            f"{job.rows:,} rows", f"{job.rows_per_second:,.0f}", f"{job.driver_peak_mib:.0f} MiB",
            f"{job.whole_seconds:.1f} s",
        )  # fmt: skip
    memory, speed = large.driver_peak_mib / small.driver_peak_mib, large.rows_per_second / small.rows_per_second
    what = f"{LARGE_ROWS // SMALL_ROWS}-fold input"
    report.target(
        f"memory at {what}", f"x {memory:.2f}", f"<= {TARGET_MEMORY_RATIO}", met=memory <= TARGET_MEMORY_RATIO
    )
    report.target(f"rows/s at {what}", f"x {speed:.2f}", f">= {TARGET_SPEED_RATIO}", met=speed >= TARGET_SPEED_RATIO)
    report.show()


async def measure(directory: Path) -> tuple[JobRun, JobRun]:
    """A small and a large job, one after the other."""
    async with job_stack(directory) as stack, AsyncExitStack() as agents:
        for index in range(AGENTS):
            await agents.enter_async_context(EchoAgent(stack.server, stack.credentials, name=f"echo-{index}"))
        return await one(stack, SMALL_ROWS), await one(stack, LARGE_ROWS)


async def one(stack: JobStack, rows: int) -> JobRun:
    """A job of so many short chat rows."""
    lines = await asyncio.to_thread(
        lambda: b"".join(orjson.dumps({"id": row, "prompt": f"question {row}"}) + b"\n" for row in range(rows))
    )
    return await stack.run_job(lines, workers=AGENTS)
