"""Running other programs to their end, with errors a person can read."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from localk8s.errors import ClusterError

_TAIL_LINES = 25


def run(
    argv: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float | None = None,
    stdin_file: Path | None = None,
) -> str:
    """Run ``argv`` and return its standard output; raise ``ClusterError`` with its last lines when it fails.

    ``env`` is added to the current environment; standard input is ``stdin_file``, or empty.
    """
    command = [str(part) for part in argv]
    try:
        with Path(stdin_file or os.devnull).open("rb") as stdin:
            done = subprocess.run(
                command,
                cwd=cwd,
                env={**os.environ, **env} if env else None,
                stdin=stdin,
                capture_output=True,
                text=True,
                timeout=timeout,
                check=False,
            )
    except FileNotFoundError:
        raise ClusterError(f"{command[0]}: command not found") from None
    except subprocess.TimeoutExpired:
        raise ClusterError(f"{' '.join(command)}: no end after {timeout:.0f} s") from None
    if done.returncode != 0:
        output = (done.stderr.strip() or done.stdout.strip()).splitlines()
        tail = "\n".join(output[-_TAIL_LINES:])
        raise ClusterError(f"{' '.join(command)}: exit status {done.returncode}\n{tail}")
    return done.stdout


def succeeds(argv: Sequence[str | Path], *, timeout: float = 20) -> bool:
    """Whether ``argv`` can be run and exits 0 in time; its output is dropped."""
    try:
        run(argv, timeout=timeout)
    except ClusterError:
        return False
    return True
