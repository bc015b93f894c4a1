"""Child processes of PID 1: their output, their ends, and orphans that end up here."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from typing import Final

import structlog

from vllm_runtime.exit_message import OutputTail

_PR_SET_CHILD_SUBREAPER: Final = 36
"""linux/prctl.h"""
_CHUNK_BYTES: Final = 64 * 1024
_PUMP_END_SECONDS: Final = 1.0

_log: Final = structlog.get_logger(__name__)


class Child:
    """One child process, leader of a session of its own. Made by ``Reaper.spawn``."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], tail: OutputTail | None) -> None:
        self.name = name
        self.ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        """The exit code, negative for a signal, as soon as the process has ended."""
        self._process = process
        self._tail = tail
        self._pump: threading.Thread | None = None
        if process.stdout is not None:
            self._pump = threading.Thread(target=self._copy_output, name=f"{name} output", daemon=True)
            self._pump.start()

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process, if it still runs."""
        if not self.ended.done():
            os.kill(self.pid, number)

    def kill_group(self) -> None:
        """SIGKILL the process and everything it started that did not leave its session's first process group."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    def reaped(self, exit_code: int) -> None:
        """Take the exit code from the reaper."""
        self._process.returncode = exit_code
        if not self.ended.done():
            self.ended.set_result(exit_code)

    async def output(self) -> list[str]:
        """The last lines of output; after the end. Waits a moment for those that are on their way."""
        if self._pump is not None:
            await asyncio.to_thread(self._pump.join, _PUMP_END_SECONDS)
        return self._tail.lines() if self._tail is not None else []

    def _copy_output(self) -> None:
        """Copy the child's output to ours; a slow reader of ours slows the child down, not the supervisor."""
        assert self._process.stdout is not None
        source = self._process.stdout.fileno()
        while chunk := os.read(source, _CHUNK_BYTES):
            if self._tail is not None:
                self._tail.feed(chunk)
            view = memoryview(chunk)
            try:
                while view:
                    view = view[os.write(1, view) :]
            except OSError:
                continue  # nobody reads our output any more; the child must not block on it


class Reaper:
    """Collects every child that ends, adopted orphans too, as PID 1 must."""

    def __init__(self) -> None:
        self._children: dict[int, Child] = {}

    def start(self) -> None:
        """Begin; orphans of our children come to us even when we are not PID 1."""
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        asyncio.get_running_loop().add_signal_handler(signal.SIGCHLD, self._reap)

    def spawn(
        self, name: str, command: Sequence[str], environment: Mapping[str, str], tail: OutputTail | None = None
    ) -> Child:
        """Start a child. With ``tail`` its output is copied and its end kept, otherwise it writes to ours.

        Raises:
            OSError: the program cannot be started.
        """
        process = subprocess.Popen(
            command,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if tail is not None else None,
            stderr=subprocess.STDOUT if tail is not None else None,
            bufsize=0,
            start_new_session=True,
        )
        child = Child(name, process, tail)
        self._children[process.pid] = child
        _log.info("started", name=name, pid=process.pid)
        self._reap()  # it may have ended before it was in the table
        return child

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            child = self._children.pop(pid, None)
            if child is not None:
                child.reaped(os.waitstatus_to_exitcode(status))
