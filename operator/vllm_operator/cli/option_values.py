"""Numbers of options: each parser says which value is wrong, and what would be right."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from typing import Final

import typer

from vllm_operator_api.quantities import BYTES_PER_GIB

_SHOWN: Final = 40
_MAX_DIGITS: Final = 18


def shown(text: str) -> str:
    """A value for a message, quoted and bounded."""
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "…")


def whole(text: str, least: int, most: int) -> int | None:
    """A whole number in these bounds, without sign or spaces; None when the text is none."""
    if not (text.isascii() and text.isdecimal() and len(text) <= _MAX_DIGITS):
        return None
    number = int(text)
    return number if least <= number <= most else None


def decimal(text: str, most: float) -> float | None:
    """A number above 0 and up to ``most``; None when the text is none (``nan`` and ``inf`` are not)."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) and 0 < number <= most else None


def whole_number(least: int, most: int) -> Callable[[str], int]:
    """Parser of an option that is a whole number."""

    def parse(text: str) -> int:
        number = whole(text, least, most)
        if number is None:
            raise typer.BadParameter(f"{shown(text)} is not a whole number from {least} to {most}")
        return number

    return parse


def gib_as_bytes(most_gib: int) -> Callable[[str], int]:
    """Parser of an option in GiB; gives bytes."""

    def parse(text: str) -> int:
        gib = decimal(text, most_gib)
        if gib is None or gib * BYTES_PER_GIB < 1:
            raise typer.BadParameter(f"{shown(text)} is not a number of GiB above 0 and up to {most_gib}")
        return int(gib * BYTES_PER_GIB)

    return parse


def share(text: str) -> float:
    """Parser of an option that is a share of something."""
    number = decimal(text, 1)
    if number is None:
        raise typer.BadParameter(f"{shown(text)} is not a share above 0 and up to 1")
    return number


def one_of(choices: Callable[[], Collection[str]]) -> Callable[[str], str]:
    """Parser of an option with a set of values, which is made when it is needed."""

    def parse(text: str) -> str:
        known = choices()
        if text not in known:
            raise typer.BadParameter(f"{shown(text)} is none of {', '.join(known)}")
        return text

    return parse
