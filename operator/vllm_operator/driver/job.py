"""One job from its input to its output: validate, publish shards in a window, write results in order, finish.

Everything that must survive a crash lies on the storage (``PartialOutput``) or in the queue; a driver that starts again
goes on from there, and may do so at any point.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Final, Protocol, TypeVar

import structlog

from vllm_operator.driver.blocking import in_thread
from vllm_operator.driver.output import FinishedOutput, PartialOutput, Totals
from vllm_operator.driver.relay import QueueState, StoredResult
from vllm_operator.driver.requests import RequestTemplate
from vllm_operator.driver.rows import InputFacts, Position, read_lines, survey
from vllm_operator.driver.sharding import CutSettings, CutStart, cut, max_rows_per_shard
from vllm_operator.driver.shards import BuiltShard, WrongResultError, build_shard, read_result, render_shard
from vllm_operator.driver.storage import JobFailedError, Snapshot, open_directory, open_input, snapshot
from vllm_operator_api.conditions import Reason
from vllm_operator_api.queue import DriverPhase, JobProgress, ShardResult
from vllm_operator_api.runtime import INPUT_MOUNT_PATH, OUTPUT_MOUNT_PATH, TMP_PATH, DriverConfig

MAX_CONFIG_MAP_BYTES: Final = 900 * 1024
"""A ConfigMap holds 1 MiB in all; the rest is for its metadata and for characters that JSON escapes."""
MIN_WINDOW_SHARDS: Final = 8
MAX_WRONG_RESULTS: Final = 5
"""Results of one shard that are not its own: then agent and driver do not understand each other."""
STORAGE_ATTEMPTS: Final = 12
_STORAGE_MIN_BACKOFF_SECONDS: Final = 1.0
_STORAGE_MAX_BACKOFF_SECONDS: Final = 60.0
"""In all about 6 minutes: a full disk that somebody makes room on does not end the job."""
_HOPELESS: Final = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG})
"""Before anything has run, these are mistakes in the job, not troubles of the storage."""

_Answer = TypeVar("_Answer")
_log: Final = structlog.stdlib.get_logger(__name__)


class Relay(Protocol):
    """What the job asks of the queue (``ShardRelay``)."""

    async def publish(self, shard: int, payload: bytes, *, compressed: bool) -> bool: ...
    async def wake_agents(self) -> None: ...
    async def state(self) -> QueueState: ...
    async def result(self, shard: int) -> StoredResult | None: ...
    async def drop_result(self, sequence: int) -> None: ...
    async def store_output(self, content: bytes) -> None: ...
    async def next_notices(self, timeout_seconds: float) -> frozenset[int]: ...


@dataclass(frozen=True, slots=True)
class DriverPaths:
    """Where the volumes are mounted."""

    input_root: Path = Path(INPUT_MOUNT_PATH)
    output_root: Path = Path(OUTPUT_MOUNT_PATH)
    scratch: Path = Path(TMP_PATH)
    """Holds the output while it grows when it goes into a ConfigMap."""


@dataclass(frozen=True, slots=True)
class DriverTimes:
    """How long to wait for what."""

    check_seconds: float = 5.0
    """Without a result for so long, the queue is asked what it holds: notices can get lost, and so can shards."""
    storage_min_backoff_seconds: float = _STORAGE_MIN_BACKOFF_SECONDS
    storage_attempts: int = STORAGE_ATTEMPTS


class JobDriver:
    """Runs one job. ``progress`` is its state at any time; ``on_phase`` is called when the phase has changed."""

    def __init__(
        self,
        config: DriverConfig,
        relay: Relay,
        *,
        paths: DriverPaths | None = None,
        times: DriverTimes | None = None,
        on_phase: Callable[[JobProgress], None] = lambda _: None,
    ) -> None:
        self._config = config
        self._relay = relay
        self._paths = paths or DriverPaths()
        self._times = times or DriverTimes()
        self._on_phase = on_phase
        self._template = RequestTemplate(
            endpoint=config.endpoint,
            model=config.model,
            message_key=config.message_key,
            system_prompt=config.system_prompt,
            sampling=config.sampling,
        )
        self._window = max(MIN_WINDOW_SHARDS, 2 * config.workers * config.slots)
        self._shards: dict[int, BuiltShard] = {}
        self._answered: set[int] = set()
        self._queued: frozenset[int] = frozenset()
        self._cut_from = CutStart()
        self._wrong: dict[int, int] = {}
        self.progress = JobProgress(job_uid=config.job_uid, phase="Validating")

    async def run(self) -> JobProgress:
        """Carry the job out; returns its last report, Succeeded or Failed. May be run again after any interruption.

        Raises:
            OutputBusyError: an earlier driver of this job still runs.
        """
        output: PartialOutput | None = None
        try:
            output = await self._storage(self._open_output, fail_fast=True)
            if await self._storage(output.check_free):
                facts, totals = await self._storage(output.read_log)
                self.progress = self.progress.model_copy(
                    update={"rows_total": facts.rows, "shards_total": totals.shards}
                )
                return self._succeeded(await self._storage(output.finished), totals)
            file = await self._storage(
                lambda: open_input(self._paths.input_root, self._config.input.path), fail_fast=True
            )
            with file:
                facts = await self._storage(lambda: _validated(file, output), fail_fast=True)
                await self._relay_all(file, facts, output)
                return await self._finish(output, facts)
        except JobFailedError as failure:
            _log.info("job failed", reason=failure.reason, message=failure.message)
            if output is not None and failure.reason is not Reason.OUTPUT_EXISTS:
                await self._discard(output)
            self._show("Failed", reason=str(failure.reason), message=failure.message)
            return self.progress
        finally:
            if output is not None:
                output.close()

    async def clean_up(self) -> None:
        """Remove what a finished output does not need any more. Only after the last report is safe: it is the proof

        for a driver that starts again that the output is this job's.
        """
        if self.progress.phase == "Succeeded":
            output = await self._storage(self._open_output)
            await self._discard(output)
            output.close()

    async def _relay_all(self, file: BinaryIO, facts: InputFacts, output: PartialOutput) -> None:
        pinned = snapshot(file)
        settings = self._cut_settings(facts.rows)
        start = _resume_at(output.totals)
        shards_total = start.index + await in_thread(lambda: _count_shards(file, settings, start))
        self._show("Running", rows_total=facts.rows, shards_total=shards_total, **_numbers(output.totals))
        await self._look(start.index)
        self._cut_from = start
        while output.totals.shards < shards_total:
            _check_unchanged(file, pinned)
            await self._fill_window(file, settings)
            if not await self._commit_next(file, output):
                await self._await_results(file, output.totals.shards)
        _check_unchanged(file, pinned)

    async def _fill_window(self, file: BinaryIO, settings: CutSettings) -> None:
        published = False
        while len(self._shards) < self._window:
            shard = await self._storage(lambda: self._next_shard(file, settings))
            if shard is None:
                break
            index = shard.plan.index
            if index not in self._answered and shard.payload is not None:
                if not await self._publish(shard):
                    break
                published = True
            self._shards[index] = replace(shard, payload=None)
            self._cut_from = CutStart(index + 1, shard.plan.next_row, shard.plan.end)
        if published:
            await self._relay.wake_agents()

    def _next_shard(self, file: BinaryIO, settings: CutSettings) -> BuiltShard | None:
        start = self._cut_from
        plan = next(cut(read_lines(file, start.position), settings, start), None)
        return None if plan is None else build_shard(file, plan, self._template, self._config.job_uid)

    async def _publish(self, shard: BuiltShard) -> bool:
        """False when the queue has no room for it."""
        if shard.payload is None:
            return True
        return await self._relay.publish(shard.plan.index, shard.payload, compressed=shard.compressed)

    async def _commit_next(self, file: BinaryIO, output: PartialOutput) -> bool:
        """Write the next shard if its result is there; False when it is to be waited for."""
        index = output.totals.shards
        shard = self._shards.get(index)
        if shard is None:
            return False  # the queue had no room for it yet
        stored: StoredResult | None = None
        result = None
        if shard.expected_rows:
            if index not in self._answered:
                return False
            stored = await self._relay.result(index)
            if stored is None:
                self._answered.discard(index)
                return False
            try:
                result = await in_thread(lambda: self._read_result(stored, shard))
            except WrongResultError as error:
                await self._refuse(file, shard, stored, error)
                return True
        lines, totals = await self._storage(lambda: self._render(file, shard, result, output.totals))
        if self._config.output.path is None and output.totals.output_bytes + len(lines) > MAX_CONFIG_MAP_BYTES:
            raise JobFailedError(
                Reason.OUTPUT_TOO_LARGE,
                f"the output is larger than the {MAX_CONFIG_MAP_BYTES // 1024} KiB that fit into a ConfigMap: "
                "use a PersistentVolumeClaim as destination",
            )
        await self._storage(lambda: output.append(lines, totals))
        if stored is not None:
            await self._relay.drop_result(stored.sequence)
        del self._shards[index]
        self._answered.discard(index)
        self._wrong.pop(index, None)
        self.progress = self.progress.model_copy(update=_numbers(output.totals))
        return True

    def _read_result(self, stored: StoredResult, shard: BuiltShard) -> ShardResult:
        return read_result(stored.payload, shard, self._config.job_uid, compressed=stored.compressed)

    def _render(
        self, file: BinaryIO, shard: BuiltShard, result: ShardResult | None, before: Totals
    ) -> tuple[bytes, Totals]:
        return render_shard(file, shard, result, self._template, self._config.output.result_key, before)

    async def _refuse(self, file: BinaryIO, shard: BuiltShard, stored: StoredResult, error: WrongResultError) -> None:
        index = shard.plan.index
        times = self._wrong[index] = self._wrong.get(index, 0) + 1
        _log.warning("result refused", shard=index, times=times, error=str(error))
        if times >= MAX_WRONG_RESULTS:
            raise JobFailedError(
                Reason.DRIVER_FAILED,
                f"shard {index} was answered wrongly {times} times, last: {error}. "
                "Are operator and runtime of one version?",
            )
        await self._relay.drop_result(stored.sequence)
        self._answered.discard(index)
        await self._publish_again(file, index)

    async def _await_results(self, file: BinaryIO, next_commit: int) -> None:
        noticed = await self._relay.next_notices(self._times.check_seconds)
        self._answered |= {index for index in noticed if index >= next_commit}
        if not noticed:
            await self._look(next_commit)
            held = self._answered | self._queued
            lost = [index for index, shard in self._shards.items() if shard.expected_rows and index not in held]
            for index in lost:
                await self._publish_again(file, index)
            _log.debug("waits for results", shard=next_commit, queued=len(self._queued), answered=len(self._answered))
            if lost:
                _log.warning("shards lost by the queue are published again", shards=len(lost))
                await self._relay.wake_agents()

    async def _look(self, next_commit: int) -> None:
        """Learn what the queue holds; results of shards that are written already are late ones and are removed."""
        state = await self._relay.state()
        self._queued = state.queued
        self._answered = {index for index in state.answered if index >= next_commit}
        for index in state.answered - self._answered:
            late = await self._relay.result(index)
            if late is not None:
                await self._relay.drop_result(late.sequence)

    async def _publish_again(self, file: BinaryIO, index: int) -> None:
        plan = self._shards[index].plan
        await self._publish(await self._storage(lambda: build_shard(file, plan, self._template, self._config.job_uid)))

    async def _finish(self, output: PartialOutput, facts: InputFacts) -> JobProgress:
        self._show("Finalizing")
        if output.totals.rows != facts.rows:
            raise JobFailedError(Reason.INPUT_CHANGED, _changed_message())
        if self._config.output.path is None:
            content = bytearray()
            finished = await self._storage(lambda: output.read_through(content))
            await self._relay.store_output(bytes(content))
        else:
            finished = await self._storage(output.publish)
        return self._succeeded(finished, output.totals)

    def _succeeded(self, finished: FinishedOutput, totals: Totals) -> JobProgress:
        self._show("Succeeded", output_bytes=finished.size, output_sha256=finished.sha256, **_numbers(totals))
        return self.progress

    def _show(self, phase: DriverPhase, **changes: int | str | None) -> None:
        self.progress = self.progress.model_copy(update={"reason": None, "message": "", **changes, "phase": phase})
        self._on_phase(self.progress)

    def _open_output(self) -> PartialOutput:
        path = self._config.output.path
        if path is None:
            directory = open_directory(self._paths.scratch, ())
            return PartialOutput(directory, "output", self._config.job_uid)
        *parents, name = path.split("/")
        directory = open_directory(self._paths.output_root, tuple(parents))
        return PartialOutput(directory, name, self._config.job_uid)

    def _cut_settings(self, rows: int) -> CutSettings:
        max_tokens = self._config.sampling.get("max_tokens")
        return CutSettings(
            max_rows=max_rows_per_shard(
                rows, self._config.workers, self._config.endpoint, max_tokens if isinstance(max_tokens, int) else None
            ),
            row_overhead_bytes=self._template.overhead_bytes,
        )

    async def _discard(self, output: PartialOutput) -> None:
        try:
            await in_thread(output.remove)
        except OSError as error:
            _log.warning("partial output not removed", error=str(error))

    async def _storage(self, step: Callable[[], _Answer], *, fail_fast: bool = False) -> _Answer:
        """Do something with the storage, and again while it fails, for some minutes.

        Raises:
            JobFailedError: it failed for too long; with ``fail_fast`` also at once, when waiting cannot help.
        """
        backoff_seconds = self._times.storage_min_backoff_seconds
        for attempt in range(1, self._times.storage_attempts + 1):
            try:
                answer = await in_thread(step)
                if self.progress.reason is not None:
                    self._show(self.progress.phase)
                return answer
            except OSError as error:
                problem = f"the storage failed: {_described(error)}"
                if attempt == self._times.storage_attempts or (fail_fast and error.errno in _HOPELESS):
                    raise JobFailedError(Reason.STORAGE_ERROR, problem) from error
            _log.warning("storage failed", problem=problem, attempt=attempt)
            self._show(self.progress.phase, reason=str(Reason.STORAGE_ERROR), message=f"{problem}; tried again")
            await asyncio.sleep(backoff_seconds)
            backoff_seconds = min(backoff_seconds * 2, _STORAGE_MAX_BACKOFF_SECONDS)
        raise AssertionError("the last attempt returns or raises")


def _described(error: OSError) -> str:
    what = error.strerror or str(error)
    named = f"{what}: {error.filename!r}" if isinstance(error.filename, str) else what
    denied = error.errno in (errno.EACCES, errno.EPERM)
    return f"{named} (the job's user has uid {os.getuid()}, gid {os.getgid()})" if denied else named


def _validated(file: BinaryIO, output: PartialOutput) -> InputFacts:
    known = output.open()
    facts = survey(file)
    if facts.rows == 0:
        raise JobFailedError(Reason.INPUT_EMPTY, "the input has no row: every line of it is blank, or it has none")
    if known is None:
        output.begin(facts)
    elif known != facts:
        raise JobFailedError(Reason.INPUT_CHANGED, _changed_message())
    return facts


def _check_unchanged(file: BinaryIO, pinned: Snapshot) -> None:
    if snapshot(file) != pinned:
        raise JobFailedError(Reason.INPUT_CHANGED, _changed_message())


def _changed_message() -> str:
    return "the input was changed while the job ran, so its rows and the answers may not belong together: run a new job"


def _resume_at(totals: Totals) -> CutStart:
    return CutStart(totals.shards, totals.rows, Position(totals.input_offset, totals.input_lines))


def _count_shards(file: BinaryIO, settings: CutSettings, start: CutStart) -> int:
    return sum(1 for _ in cut(read_lines(file, start.position), settings, start))


def _numbers(totals: Totals) -> dict[str, int]:
    return {
        "rows_completed": totals.rows - totals.failed_rows,
        "rows_failed": totals.failed_rows,
        "shards_committed": totals.shards,
        "prompt_tokens": totals.prompt_tokens,
        "completion_tokens": totals.completion_tokens,
    }
