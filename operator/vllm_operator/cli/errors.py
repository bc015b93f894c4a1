"""Faults of what the user has typed or pointed to."""

from __future__ import annotations

from typing import Final

_MAX_LINE: Final = 1000


class CommandError(Exception):
    """Bad usage or input that cannot be read: the command ends with status 2 and this as its one line on stderr."""


def one_line(text: str) -> str:
    """``text`` on one line, bounded and without control characters, for stderr."""
    line = " ".join(text.split())
    return "".join(letter if letter.isprintable() else "?" for letter in line)[:_MAX_LINE]
