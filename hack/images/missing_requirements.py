#!/usr/bin/env python3
"""Keep, of an exported lock file, the requirements that the running environment does not have yet.

    python3 missing_requirements.py < all.txt > missing.txt

The runtime image adds a few libraries to an environment that vLLM has pinned to the last digit: what is there stays as
it is, whatever the lock says, and only what is absent comes from the lock, with its hashes. Standard library only; run
it with the interpreter of the environment that is added to.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from importlib.metadata import distributions

_NAME = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)")


def normalized(name: str) -> str:
    """The comparable form of a distribution's name (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def blocks(lines: Iterable[str]) -> Iterator[list[str]]:
    """Group a requirements file into one list of lines per requirement: its hashes continue its line."""
    block: list[str] = []
    for line in lines:
        if not block and (not line.strip() or line.lstrip().startswith("#")):
            continue
        block.append(line)
        if not line.rstrip().endswith("\\"):
            yield block
            block = []
    if block:
        yield block


def missing(lines: Iterable[str], present: set[str]) -> Iterator[str]:
    """The lines of those requirements whose distribution is not in `present` (normalized names)."""
    for block in blocks(lines):
        match = _NAME.match(block[0].strip())
        if match is None or normalized(match.group(1)) not in present:
            yield from block


def main() -> None:
    """Filter standard input to standard output."""
    present = {normalized(d.name) for d in distributions() if d.name}
    sys.stdout.writelines(missing(sys.stdin, present))


if __name__ == "__main__":
    main()
