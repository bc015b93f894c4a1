"""Files on a user's volume, opened so that no path leads out of it and nothing but regular files is touched."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from vllm_operator_api.conditions import Reason

_READ_BUFFER_BYTES: Final = 256 * 1024
"""About a shard: each one is read from its own offset."""
_DIRECTORY_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class JobFailedError(Exception):
    """The job cannot succeed and trying again does not help: ``reason`` and message are for the user."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What tells one state of a file from another while it is open."""

    size: int
    mtime_ns: int


def open_input(root: Path, path: str) -> BinaryIO:
    """Open a file below ``root`` for reading.

    Symbolic links are followed as long as they stay below ``root`` (a ConfigMap volume consists of them); the resolved
    path is then opened part by part without following any, so that a link swapped in meanwhile is refused.

    Raises:
        JobFailedError: there is no such file, or it is not a regular one, or it leads out of the volume.
        OSError: the storage failed.
    """
    base = root.resolve()
    try:
        resolved = (base / path).resolve(strict=True)
    except FileNotFoundError:
        raise JobFailedError(Reason.INPUT_NOT_FOUND, f"the input has no file {path!r}") from None
    except (NotADirectoryError, RuntimeError) as error:
        raise JobFailedError(Reason.INPUT_NOT_FOUND, f"the input has no file {path!r}: {error}") from None
    if not resolved.is_relative_to(base) or resolved == base:
        raise JobFailedError(Reason.INPUT_NOT_REGULAR_FILE, f"{path!r} leads out of the input's volume")
    try:
        descriptor = _open_below(base, resolved.relative_to(base).parts)
    except FileNotFoundError:
        raise JobFailedError(Reason.INPUT_NOT_FOUND, f"the input has no file {path!r}") from None
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):
            raise JobFailedError(Reason.INPUT_NOT_REGULAR_FILE, f"{path!r} is not a regular file") from None
        if error.errno not in (errno.EACCES, errno.EPERM):
            raise
        raise JobFailedError(
            Reason.STORAGE_ERROR,
            f"{path!r} may not be read by the job's user (uid {os.getuid()}): change its mode or group",
        ) from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise JobFailedError(Reason.INPUT_NOT_REGULAR_FILE, f"{path!r} is not a regular file")
    return open(descriptor, "rb", buffering=_READ_BUFFER_BYTES)  # noqa: PTH123 - a descriptor


def _open_below(base: Path, parts: tuple[str, ...]) -> int:
    directory = os.open(base, _DIRECTORY_FLAGS)
    try:
        for part in parts[:-1]:
            inner = os.open(part, _DIRECTORY_FLAGS, dir_fd=directory)
            os.close(directory)
            directory = inner
        # Without O_NONBLOCK opening a FIFO would wait for a writer.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        return os.open(parts[-1], flags, dir_fd=directory)
    finally:
        os.close(directory)


def snapshot(file: BinaryIO) -> Snapshot:
    """The state of an open file now."""
    status = os.fstat(file.fileno())
    return Snapshot(status.st_size, status.st_mtime_ns)


def open_directory(root: Path, parts: tuple[str, ...]) -> int:
    """Open (and make, where missing) a directory below ``root``; returns its descriptor, owned by the caller.

    Raises:
        JobFailedError: a part is a symbolic link or no directory.
        OSError: the storage failed.
    """
    directory = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in parts:
            if part in ("", ".", ".."):
                raise JobFailedError(Reason.STORAGE_ERROR, f"{part!r} cannot be part of the output's path")
            with suppress(FileExistsError):
                os.mkdir(part, 0o777, dir_fd=directory)
            try:
                inner = os.open(part, _DIRECTORY_FLAGS, dir_fd=directory)
            except NotADirectoryError:
                raise JobFailedError(
                    Reason.STORAGE_ERROR,
                    f"{part!r} in the output's path is not a directory (symbolic links are refused)",
                ) from None
            os.close(directory)
            directory = inner
    except BaseException:
        os.close(directory)
        raise
    return directory
