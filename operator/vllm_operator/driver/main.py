"""The process of a job driver: configuration, logging, signals, reports, exit code.

Exit code 0: the job ended, well or by a fault that is the user's (a restart would not help). Other codes: the kubelet
starts the container again, and the driver goes on where it was.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

import structlog
import uvloop

from vllm_operator.driver.job import DriverPaths, DriverTimes, JobDriver
from vllm_operator.driver.output import OutputBusyError
from vllm_operator.driver.relay import ShardRelay
from vllm_operator.engine.tasks import end_tasks
from vllm_operator.observability.logging import configure_logging
from vllm_operator.queue.connection import QueueConnection
from vllm_operator_api.queue import DRIVER_INBOX_PREFIX, JobProgress
from vllm_operator_api.runtime import (
    DRIVER_CONFIG_ENV,
    MAX_TERMINATION_MESSAGE_BYTES,
    TERMINATION_MESSAGE_PATH,
    DriverConfig,
)

REPORT_SECONDS: Final = 2.0
RETRY_REPORT_SECONDS: Final = 0.2
REPORT_ANYWAY_SECONDS: Final = 10.0
"""Reports are not stored: an operator that has just started learns the state by the next one."""
EXIT_RESTART: Final = 1
EXIT_TERMINATED: Final = 128 + signal.SIGTERM
_MAX_MESSAGE_CHARACTERS: Final = 1024
_LAST_REPORT_SECONDS: Final = 5.0

_log: Final = structlog.stdlib.get_logger(__name__)


def run(environ: Mapping[str, str] = os.environ) -> int:
    """Run the job of ``DRIVER_CONFIG_ENV``; returns the exit code."""
    configure_logging(environ.get("VLLM_OPERATOR_LOG_LEVEL", "INFO"))
    config = DriverConfig.model_validate_json(environ[DRIVER_CONFIG_ENV])
    return run_job(config)


def run_job(
    config: DriverConfig,
    *,
    paths: DriverPaths | None = None,
    times: DriverTimes | None = None,
    termination_message: Path = Path(TERMINATION_MESSAGE_PATH),
) -> int:
    """Run one job with its volumes at ``paths``; returns the exit code."""
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_drive(config, paths, times, termination_message))
    except OutputBusyError as error:
        _log.warning("started again later", problem=str(error))
        return EXIT_RESTART


async def _drive(
    config: DriverConfig, paths: DriverPaths | None, times: DriverTimes | None, termination_message: Path
) -> int:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    connection = QueueConnection(
        config.queue.url,
        config.queue.credentials_directory,
        f"driver-{config.job_uid}",
        inbox_prefix=DRIVER_INBOX_PREFIX,
    )
    relay = ShardRelay(connection, config.queue.queue_id, config.job_uid)
    changed = asyncio.Event()
    driver = JobDriver(config, relay, paths=paths, times=times, on_phase=lambda _: changed.set())
    await connection.start()
    reporter = asyncio.create_task(_report(driver, relay, changed), name="reports")
    stopped = asyncio.create_task(stop.wait(), name="SIGTERM")
    work = asyncio.create_task(driver.run(), name="job")
    try:
        await asyncio.wait((work, stopped), return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            _log.info("stopped; the partial output stays")
            return EXIT_TERMINATED
        last = work.result()
        _write_termination_message(termination_message, last)
        with suppress(TimeoutError):
            async with asyncio.timeout(_LAST_REPORT_SECONDS):
                await relay.report(last)
        await driver.clean_up()
    finally:
        await end_tasks(work, stopped, reporter)
        await connection.stop()
    _log.info("job ended", phase=last.phase, rows=last.rows_completed + last.rows_failed, failed=last.rows_failed)
    return 0


async def _report(driver: JobDriver, relay: ShardRelay, changed: asyncio.Event) -> None:
    """Tell the progress on a change of phase at once, numbers every 2 s, and every 10 s in any case.

    What could not be told, because there is no connection yet, is told as soon as there is one.
    """
    loop = asyncio.get_running_loop()
    sent: JobProgress | None = None
    sent_at = 0.0
    untold = False
    while True:
        with suppress(TimeoutError):
            async with asyncio.timeout(RETRY_REPORT_SECONDS if untold else REPORT_SECONDS):
                await changed.wait()
        changed.clear()
        if untold or driver.progress != sent or loop.time() - sent_at >= REPORT_ANYWAY_SECONDS:
            progress = driver.progress
            untold = not await relay.report(progress)
            if not untold:
                sent, sent_at = progress, loop.time()


def _write_termination_message(path: Path, progress: JobProgress) -> None:
    """Where the kubelet takes it from for the pod's status, which the operator reads."""
    message = progress.message[:_MAX_MESSAGE_CHARACTERS]
    text = progress.model_copy(update={"message": message}).model_dump_json(exclude_none=True)
    while len(text.encode()) > MAX_TERMINATION_MESSAGE_BYTES:
        message = message[: len(message) // 2]
        text = progress.model_copy(update={"message": message}).model_dump_json(exclude_none=True)
    try:
        path.write_text(text)
    except OSError as error:
        _log.error("termination message not written", path=str(path), error=str(error))
