"""Servers as child processes: few rights, a log file each, and none left behind."""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from localk8s.errors import ClusterError
from localk8s.paths import HACK_DIR

# "nobody" on Debian and Ubuntu.
UNPRIVILEGED = 65534


def free_ports(count: int) -> list[int]:
    """``count`` different TCP ports of the loopback interface that are free now."""
    with contextlib.ExitStack() as held:
        ports: list[int] = []
        for _ in range(count):
            listener = held.enter_context(socket.socket())
            listener.bind(("127.0.0.1", 0))
            ports.append(int(listener.getsockname()[1]))
        return ports


@contextlib.contextmanager
def _executable(program: Path) -> Iterator[tuple[str, tuple[int, ...]]]:
    """``program`` as a path that an unprivileged child can execute.

    The cache may lie in a home directory that "nobody" must not enter; an open
    file handed to the child needs no such right.
    """
    fd = os.open(program, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}", (fd,)
    finally:
        os.close(fd)


class Children:
    """Child processes with one scratch directory, all gone after ``close()`` or when this process ends in any way.

    When this process is root the children run as "nobody" without capabilities.
    """

    def __init__(self, prefix: str) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix=f"{prefix}-"))
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._closed = False
        self._guard = subprocess.Popen(
            [sys.executable, "-I", str(HACK_DIR / "localk8s" / "guard.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            text=True,
        )
        self._order(str(self.directory))
        self.own(self.directory)
        atexit.register(self.close)

    def own(self, path: Path) -> None:
        """Give ``path`` to the user that the children run as."""
        if os.geteuid() == 0:
            os.chown(path, UNPRIVILEGED, UNPRIVILEGED)

    def subdirectory(self, name: str) -> Path:
        """A directory of the children's user below the scratch directory."""
        path = self.directory / name
        path.mkdir(exist_ok=True)
        self.own(path)
        return path

    def log_of(self, name: str) -> Path:
        """The log file of child ``name``."""
        return self.directory / f"{name}.log"

    def start(self, name: str, program: Path, arguments: Sequence[str], env: Mapping[str, str] | None = None) -> None:
        """Start ``program`` as child ``name``, its output appended to its log."""
        if self.running(name):
            raise ClusterError(f"{name} runs already")
        identity: dict[str, object] = {}
        if os.geteuid() == 0:
            identity = {"user": UNPRIVILEGED, "group": UNPRIVILEGED, "extra_groups": []}
        environment = {"PATH": "/usr/bin:/bin", "HOME": str(self.directory), **(env or {})}
        with self.log_of(name).open("ab") as log, _executable(program) as (executable, fds):
            process = subprocess.Popen(  # type: ignore[call-overload]
                [name, *arguments],
                executable=executable,
                pass_fds=fds,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.directory,
                env=environment,
                start_new_session=True,
                **identity,
            )
        self._processes[name] = process
        self._order(f"+{process.pid}")

    def running(self, name: str) -> bool:
        """Whether child ``name`` was started and has not ended."""
        process = self._processes.get(name)
        return process is not None and process.poll() is None

    def require_running(self, name: str) -> None:
        """``ClusterError`` with the last lines of the log when child ``name`` has ended."""
        if not self.running(name):
            tail = self.log_of(name).read_text(errors="replace").splitlines()[-15:]
            raise ClusterError("\n".join([f"{name} ended by itself; its last lines:", *tail]))

    def pid(self, name: str) -> int:
        """Process id of child ``name``."""
        return self._processes[name].pid

    def kill(self, name: str) -> None:
        """SIGKILL child ``name`` and wait for its end; nothing when it is not there.

        SIGKILL on purpose: an API server takes 14-25 s to drain after SIGTERM,
        and nothing here outlives the run.
        """
        process = self._processes.pop(name, None)
        if process is None:
            return
        process.kill()
        process.wait()
        self._order(f"-{process.pid}")

    def close(self) -> None:
        """End all children and remove the scratch directory; may be called twice."""
        if self._closed:
            return
        self._closed = True
        atexit.unregister(self.close)
        for name in list(self._processes):
            self.kill(name)
        shutil.rmtree(self.directory, ignore_errors=True)
        if self._guard.stdin is not None:
            with contextlib.suppress(OSError):
                self._guard.stdin.close()
        self._guard.wait()

    def _order(self, line: str) -> None:
        # The guard is a second line of defence: its loss must not break a test run.
        with contextlib.suppress(OSError, ValueError):
            if self._guard.stdin is not None:
                self._guard.stdin.write(line + "\n")
                self._guard.stdin.flush()
