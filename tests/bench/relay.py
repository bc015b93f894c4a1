"""Driver and queue alone, with agents that answer at once: do memory and CPU per row grow with the input?"""

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
TARGET_CPU_RATIO = 1.15


def run() -> None:
    """Print rows per second and the driver's memory and CPU for a small and a large input."""
    with tempfile.TemporaryDirectory(prefix="bench-relay-") as directory:
        small, large = run_async(measure(Path(directory)))
    report = Report(
        f"relay: driver and queue with {AGENTS} agents that echo in this process",
        ("input", "rows/s", "driver's peak RSS", "driver's CPU per row", "whole job"),
    )
    for job in (small, large):
        report.row(
            f"{job.rows:,} rows", f"{job.rows_per_second:,.0f}", f"{job.driver_peak_mib:.0f} MiB",
            f"{job.driver_cpu_seconds / job.rows * 1e6:.1f} us", f"{job.whole_seconds:.1f} s",
        )  # fmt: skip
    memory = large.driver_peak_mib / small.driver_peak_mib
    cpu = (large.driver_cpu_seconds / large.rows) / (small.driver_cpu_seconds / small.rows)
    what = f"at {LARGE_ROWS // SMALL_ROWS} times the rows"
    report.target(f"memory {what}", f"x {memory:.2f}", f"<= {TARGET_MEMORY_RATIO}", met=memory <= TARGET_MEMORY_RATIO)
    report.target(f"CPU per row {what}", f"x {cpu:.2f}", f"<= {TARGET_CPU_RATIO}", met=cpu <= TARGET_CPU_RATIO)
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
