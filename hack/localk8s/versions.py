"""Reader of ``hack/versions.env``."""

from __future__ import annotations

import functools
import re
from pathlib import Path

from localk8s.errors import ClusterError
from localk8s.paths import HACK_DIR

VERSIONS_FILE = HACK_DIR / "versions.env"
_LINE = re.compile(r"^([A-Z][A-Z0-9_]*)=(\S*)$")


def parse(text: str) -> dict[str, str]:
    """The KEY=VALUE lines of ``text``; comments and blank lines are skipped.

    Values hold no blanks and are taken literally (one pair of surrounding
    quotes is removed), which is the common part of what bash, make and this
    function understand.
    """
    pairs: dict[str, str] = {}
    for number, raw in enumerate(text.splitlines(), start=1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        match = _LINE.match(line)
        if match is None:
            raise ClusterError(f"versions.env:{number}: not KEY=VALUE: {line!r}", exit_code=2)
        key, value = match.groups()
        if len(value) >= 2 and value[0] == value[-1] and value[0] in "\"'":
            value = value[1:-1]
        pairs[key] = value
    return pairs


@functools.cache
def load(path: Path = VERSIONS_FILE) -> dict[str, str]:
    """All pinned versions."""
    return parse(path.read_text(encoding="utf-8"))


def version(key: str) -> str:
    """The pinned value of ``key``, e.g. ``KUBERNETES_VERSION``."""
    try:
        return load()[key]
    except KeyError:
        raise ClusterError(f"hack/versions.env does not pin {key}", exit_code=2) from None
