"""Progress for a person: one line per step with the seconds it took, on stderr.

Standard output stays free for results (a path, a list), so that commands can
be used in ``$(...)``.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager


def say(text: str) -> None:
    """One line on stderr, at once."""
    print(text, file=sys.stderr, flush=True)


@contextmanager
def step(title: str, *, quiet_below: float = 0.0) -> Iterator[None]:
    """Time a block and print ``title`` with the seconds when it ends well.

    A step that ends in less than ``quiet_below`` seconds (it found its work
    done already) prints nothing.
    """
    started = time.monotonic()
    yield
    seconds = time.monotonic() - started
    if seconds >= quiet_below:
        say(f"  {title:<58} {seconds:6.1f} s")
