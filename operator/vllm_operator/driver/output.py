"""The output while it grows: a partial file and, beside it, a log of what is complete in it.

Each shard is appended to the partial file and flushed to the disk, then a record of the totals so far is appended to
the log and flushed. After a crash the log's last whole record says where both, and the input, are to be taken up: what
the partial file holds beyond it is cut off. The finished file appears at once and whole, and never in place of another.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Final

import orjson

from vllm_operator.driver.rows import InputFacts
from vllm_operator.driver.storage import JobFailedError
from vllm_operator_api.conditions import Reason

_MAX_NAME_BYTES: Final = 255
_COPY_BYTES: Final = 1 << 20
_NO_LINKS: Final = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV})
"""File systems without hard links (SMB, some FUSE) answer so."""
_NO_LOCKS: Final = frozenset({errno.EOPNOTSUPP, errno.ENOSYS, errno.ENOLCK, errno.EINVAL})


class OutputBusyError(Exception):
    """Another driver of this job is still at work on the output."""


@dataclass(frozen=True, slots=True)
class Totals:
    """What is complete: everything before these positions is in the output."""

    shards: int = 0
    rows: int = 0
    input_offset: int = 0
    input_lines: int = 0
    output_bytes: int = 0
    failed_rows: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0


NOTHING: Final = Totals()
_NO_FACTS: Final = InputFacts(rows=0, sha256="")


@dataclass(frozen=True, slots=True)
class FinishedOutput:
    """The whole output."""

    size: int
    sha256: str


class PartialOutput:
    """Owns the partial file and its log in one directory; every method blocks on the disk.

    The files are opened by ``open``; any method may raise ``OSError``, after which the same call may be made again.
    """

    def __init__(self, directory: int, name: str, job_uid: str) -> None:
        """``directory``: a descriptor, closed with this object. ``name``: of the finished file."""
        stem = f"{name}.{job_uid}"
        if len(f"{stem}.partial.log".encode()) > _MAX_NAME_BYTES:
            stem = f".{job_uid}"
        self._directory = directory
        self._name = name
        self._partial_name = f"{stem}.partial"
        self._log_name = f"{stem}.partial.log"
        self._job_uid = job_uid
        self._data = -1
        self._log = -1
        self._log_bytes = 0
        self._facts: InputFacts | None = None
        self.totals = NOTHING

    def check_free(self) -> bool:
        """True when this job has finished the output already (and only lacked the time to say so).

        Raises:
            JobFailedError: something of the output's name exists that this job did not make.
        """
        final = self._stat(self._name)
        if final is None:
            return False
        partial = self._stat(self._partial_name)
        if partial is not None:
            if (partial.st_dev, partial.st_ino) == (final.st_dev, final.st_ino):
                return True
        elif self._log_is_complete():
            return True
        raise JobFailedError(
            Reason.OUTPUT_EXISTS,
            f"the output {self._name!r} exists already and is not overwritten: remove it, or choose another path",
        )

    def open(self) -> InputFacts | None:
        """Take up what an earlier driver of this job left; returns the facts of the input that it saw, if any.

        Raises:
            OutputBusyError: that driver still runs.
        """
        self._close_files()
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        self._log = os.open(self._log_name, flags, 0o644, dir_fd=self._directory)
        self._lock()
        self._data = os.open(self._partial_name, flags, 0o644, dir_fd=self._directory)
        os.fsync(self._directory)
        header, records = _read_log(self._log)
        if header is None or header.get("jobUid") != self._job_uid:
            self._facts, self.totals, self._log_bytes = None, NOTHING, 0
        else:
            self._facts = InputFacts(rows=int(header["rows"]), sha256=str(header["sha256"]))
            size = os.fstat(self._data).st_size
            self._log_bytes, self.totals = next(
                (entry for entry in reversed(records) if entry[1].output_bytes <= size), records[0]
            )
        self._cut_tails()
        return self._facts

    def begin(self, facts: InputFacts) -> None:
        """Start over, with this input."""
        self._facts, self.totals, self._log_bytes = facts, NOTHING, 0
        self._cut_tails()
        self._append_log({"version": 1, "jobUid": self._job_uid, "rows": facts.rows, "sha256": facts.sha256})

    def append(self, lines: bytes, totals: Totals) -> None:
        """Add a whole shard; ``totals`` includes it (``output_bytes`` is set here).

        A call that failed half-way may be made again: it begins where the last complete one ended.
        """
        self._cut_tails()
        _write_all(self._data, lines)
        os.fsync(self._data)
        done = replace(totals, output_bytes=self.totals.output_bytes + len(lines))
        self._append_log(_record(done))
        self.totals = done

    def publish(self) -> FinishedOutput:
        """Give the finished file its name, unless something else has taken it meanwhile.

        Raises:
            JobFailedError: something has.
        """
        finished = self.read_through()
        try:
            os.link(
                self._partial_name,
                self._name,
                src_dir_fd=self._directory,
                dst_dir_fd=self._directory,
                follow_symlinks=False,
            )
        except FileExistsError:
            self.check_free()
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            if not self.check_free():
                os.rename(self._partial_name, self._name, src_dir_fd=self._directory, dst_dir_fd=self._directory)
        os.fsync(self._directory)
        return finished

    def read_through(self, sink: bytearray | None = None) -> FinishedOutput:
        """Size and hash of what is complete; with ``sink`` also its bytes."""
        digest = hashlib.sha256()
        offset = 0
        while chunk := os.pread(self._data, min(_COPY_BYTES, self.totals.output_bytes - offset), offset):
            digest.update(chunk)
            offset += len(chunk)
            if sink is not None:
                sink.extend(chunk)
        return FinishedOutput(size=offset, sha256=digest.hexdigest())

    def finished(self) -> FinishedOutput:
        """Size and hash of the finished file, when ``check_free`` said that it is this job's."""
        descriptor = os.open(self._name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._directory)
        with open(descriptor, "rb") as file:  # noqa: PTH123 - a descriptor
            digest = hashlib.file_digest(file, "sha256")
            return FinishedOutput(size=os.fstat(descriptor).st_size, sha256=digest.hexdigest())

    def remove(self) -> None:
        """Remove partial file and log: the finished file is there, or the job has failed."""
        for name in (self._partial_name, self._log_name):
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=self._directory)
        os.fsync(self._directory)

    def close(self) -> None:
        """Close files and directory; the lock goes with them."""
        self._close_files()
        if self._directory >= 0:
            os.close(self._directory)
            self._directory = -1

    def _close_files(self) -> None:
        for descriptor in (self._data, self._log):
            if descriptor >= 0:
                os.close(descriptor)
        self._data = self._log = -1

    def _lock(self) -> None:
        try:
            fcntl.flock(self._log, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OutputBusyError("another driver of this job is writing the output") from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise

    def _cut_tails(self) -> None:
        os.ftruncate(self._data, self.totals.output_bytes)
        os.lseek(self._data, self.totals.output_bytes, os.SEEK_SET)
        os.ftruncate(self._log, self._log_bytes)
        os.lseek(self._log, self._log_bytes, os.SEEK_SET)

    def _append_log(self, record: dict[str, Any]) -> None:
        line = orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)
        _write_all(self._log, line)
        os.fsync(self._log)
        self._log_bytes += len(line)

    def read_log(self) -> tuple[InputFacts, Totals]:
        """Facts and totals of the finished output, when ``check_free`` said that it is this job's."""
        log = os.open(self._log_name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._directory)
        try:
            header, points = _read_log(log)
        finally:
            os.close(log)
        if header is None or header["jobUid"] != self._job_uid:
            return _NO_FACTS, NOTHING
        return InputFacts(header["rows"], header["sha256"]), points[-1][1]

    def _log_is_complete(self) -> bool:
        try:
            facts, totals = self.read_log()
        except FileNotFoundError:
            return False
        return 0 < facts.rows == totals.rows

    def _stat(self, name: str) -> os.stat_result | None:
        try:
            return os.stat(name, dir_fd=self._directory, follow_symlinks=False)
        except FileNotFoundError:
            return None


def _write_all(descriptor: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]


def _record(totals: Totals) -> dict[str, int]:
    return {
        "shards": totals.shards,
        "rows": totals.rows,
        "inputOffset": totals.input_offset,
        "inputLines": totals.input_lines,
        "outputBytes": totals.output_bytes,
        "failedRows": totals.failed_rows,
        "promptTokens": totals.prompt_tokens,
        "completionTokens": totals.completion_tokens,
    }


def _totals(record: dict[str, Any]) -> Totals:
    return Totals(
        shards=int(record["shards"]),
        rows=int(record["rows"]),
        input_offset=int(record["inputOffset"]),
        input_lines=int(record["inputLines"]),
        output_bytes=int(record["outputBytes"]),
        failed_rows=int(record["failedRows"]),
        prompt_tokens=int(record["promptTokens"]),
        completion_tokens=int(record["completionTokens"]),
    )


def _read_log(descriptor: int) -> tuple[dict[str, Any] | None, list[tuple[int, Totals]]]:
    """The header, and each point to take up from: the log's length and the totals there. Ends before a torn line."""
    header: dict[str, Any] | None = None
    points: list[tuple[int, Totals]] = []
    offset = 0
    with open(os.dup(descriptor), "rb") as file:  # noqa: PTH123 - a descriptor
        file.seek(0)
        for line in file:
            offset += len(line)
            if not line.endswith(b"\n"):
                break
            try:
                record = orjson.loads(line)
                if header is None:
                    header = {"jobUid": record["jobUid"], "rows": int(record["rows"]), "sha256": record["sha256"]}
                    points.append((offset, NOTHING))
                else:
                    points.append((offset, _totals(record)))
            except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
                break
    return header, points
