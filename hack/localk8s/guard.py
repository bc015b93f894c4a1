"""A helper process that ends the servers of a test run when the run itself dies.

It reads orders from a pipe whose other end the run holds: ``+PID`` watch this
process, ``-PID`` forget it, ``/PATH`` remove this directory in the end. The
end of the pipe, however it comes about (exit, crash, SIGKILL), means: kill
what is left, remove the directories, go. Processes are held by pidfd, so a
number that is used again is never hit.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys


def main() -> int:
    """Serve orders from standard input until its end."""
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    watched: dict[int, int] = {}
    directories: list[str] = []
    for line in sys.stdin:
        order = line.rstrip("\n")
        if order.startswith("/"):
            directories.append(order)
        elif order.startswith("+"):
            with contextlib.suppress(OSError):
                watched[int(order[1:])] = os.pidfd_open(int(order[1:]))
        elif order.startswith("-"):
            pidfd = watched.pop(int(order[1:]), None)
            if pidfd is not None:
                os.close(pidfd)
    for pidfd in watched.values():
        with contextlib.suppress(OSError):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    for directory in directories:
        shutil.rmtree(directory, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
