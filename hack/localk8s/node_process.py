"""Finding and ending the processes of a native node, by what they are and not by a remembered number."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from localk8s.errors import ClusterError

MODULE = "localk8s.node_main"


@dataclass(frozen=True)
class NodeProcess:
    """A process whose command line starts the node of one cluster directory."""

    pid: int
    is_init: bool  # process 1 of the node, as opposed to the unshare that waits for it


def is_node_command(cmdline: bytes, settings_file: Path) -> bool:
    """Whether a /proc/PID/cmdline is that of the node with these settings, or of its unshare."""
    arguments = cmdline.rstrip(b"\0").split(b"\0")
    return arguments[-2:] == [MODULE.encode(), os.fsencode(settings_file)]


def find(settings_file: Path) -> list[NodeProcess]:
    """The living processes of the node with these settings."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if not is_node_command((entry / "cmdline").read_bytes(), settings_file):
                continue
            status = (entry / "status").read_text()
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        if fields.get("State", "Z").startswith(("Z", "X")):
            continue
        namespaced = fields.get("NSpid", "").split()
        found.append(NodeProcess(int(entry.name), is_init=len(namespaced) > 1 and namespaced[-1] == "1"))
    return found


def init_pid(settings_file: Path) -> int | None:
    """The pid, as the host sees it, of the node's process 1."""
    return next((process.pid for process in find(settings_file) if process.is_init), None)


def end(settings_file: Path, seconds: float = 30) -> bool:
    """Kill the node and wait until it is gone; returns whether there was one.

    The kernel ends every process of the pid namespace before process 1 itself is gone.
    """
    deadline = time.monotonic() + seconds
    any_found = False
    while processes := find(settings_file):
        any_found = True
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            raise ClusterError(f"the node does not end: {', '.join(str(process.pid) for process in processes)}")
        time.sleep(0.02)
    return any_found
