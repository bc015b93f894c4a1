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
    settings_file: Path
    is_init: bool  # process 1 of the node, as opposed to the unshare that waits for it


def is_node_command(cmdline: bytes, settings_file: Path) -> bool:
    """Whether a /proc/PID/cmdline is that of the node with these settings, or of its unshare."""
    return settings_of(cmdline) == settings_file


def settings_of(cmdline: bytes) -> Path | None:
    """The settings file of the node whose /proc/PID/cmdline this is; None when it is something else."""
    arguments = cmdline.rstrip(b"\0").split(b"\0")
    if len(arguments) < 3 or arguments[-2] != MODULE.encode():
        return None
    return Path(os.fsdecode(arguments[-1]))


def find(settings_file: Path) -> list[NodeProcess]:
    """The living processes of the node with these settings."""
    return [process for process in _all() if process.settings_file == settings_file]


def others(settings_file: Path) -> list[Path]:
    """The settings files of living nodes other than this one: of other cache directories."""
    return sorted({process.settings_file for process in _all() if process.settings_file != settings_file})


def _all() -> list[NodeProcess]:
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            settings_file = settings_of((entry / "cmdline").read_bytes())
            if settings_file is None:
                continue
            status = (entry / "status").read_text()
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        if fields.get("State", "Z").startswith(("Z", "X")):
            continue
        namespaced = fields.get("NSpid", "").split()
        is_init = len(namespaced) > 1 and namespaced[-1] == "1"
        found.append(NodeProcess(int(entry.name), settings_file, is_init))
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
