"""Root rights, asked for only by the steps that need them."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from localk8s.commands import succeeds
from localk8s.errors import ClusterError


def is_root() -> bool:
    """Whether this process runs as root."""
    return os.geteuid() == 0


def can_be_root() -> bool:
    """Root already, or sudo that works: without a password, or with a terminal to type it at."""
    if is_root():
        return True
    if shutil.which("sudo") is None:
        return False
    return sys.stdin.isatty() or succeeds(["sudo", "-n", "true"])


def as_root(argv: Sequence[str | Path]) -> list[str]:
    """``argv`` as a command that runs with root rights."""
    command = [str(part) for part in argv]
    if is_root():
        return command
    if not can_be_root():
        raise ClusterError(
            f"this step needs root: {' '.join(command)}\nRun it as root, or allow this user sudo.", exit_code=2
        )
    if sys.stdin.isatty():
        return ["sudo", *command]
    return ["sudo", "-n", *command]


def invoking_user() -> tuple[int, int]:
    """(uid, gid) of the person at the terminal, also below sudo: who should own the results."""
    uid, gid = os.environ.get("SUDO_UID"), os.environ.get("SUDO_GID")
    if is_root() and uid is not None and gid is not None:
        return int(uid), int(gid)
    return os.getuid(), os.getgid()
