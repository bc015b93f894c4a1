"""JSON Lines, read in memory that is bounded by one line whatever the input holds.

A line is a row unless it is blank. A row that cannot be used keeps its index and becomes an error row. Nothing here
trusts the bytes: length, encoding, syntax and depth are checked before a row is handed on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, Final

import orjson

from vllm_operator_api.queue import MAX_ROW_BYTES

MAX_DEPTH: Final = 64
"""Nesting of a row. orjson itself reads 1,024 levels, but writes 254 only."""
_BOM: Final = b"\xef\xbb\xbf"
_SKIP_BYTES: Final = 1 << 20

INVALID_ROW: Final = "invalid_row"
ROW_TOO_LARGE: Final = "row_too_large"


@dataclass(frozen=True, slots=True)
class Position:
    """A place in the input: the byte offset of a line's begin, and the number of lines before it."""

    offset: int = 0
    lines: int = 0


INPUT_BEGIN: Final = Position()


@dataclass(frozen=True, slots=True)
class Line:
    """A line that is not blank, without its newline. ``content`` is None when it is longer than a row may be."""

    number: int
    """From 1, blank lines counted, as an editor shows it."""
    start: int
    end: int
    content: bytes | None


@dataclass(frozen=True, slots=True)
class InvalidRow:
    """Why a line is no usable row."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class InputFacts:
    """What a whole pass over the input tells."""

    rows: int
    sha256: str


def read_lines(
    file: BinaryIO, start: Position = INPUT_BEGIN, *, max_bytes: int = MAX_ROW_BYTES, digest: Any = None
) -> Iterator[Line]:
    """The lines from ``start`` on that are not blank. ``digest`` (of hashlib) gets every byte that is read.

    A byte order mark before the first line is no part of it; a carriage return before a newline is left to the JSON
    parser, for which it is white space.
    """
    file.seek(start.offset)
    offset, number = start.offset, start.lines
    while raw := file.readline(max_bytes + 2):
        number += 1
        begin, offset = offset, offset + len(raw)
        if digest is not None:
            digest.update(raw)
        if begin == 0 and raw.startswith(_BOM):
            raw = raw[len(_BOM) :]
        if raw.endswith(b"\n") or len(raw) <= max_bytes:
            content: bytes | None = raw.strip()
            if not content:
                continue
        else:
            blank = not raw.strip()
            while not raw.endswith(b"\n") and (raw := file.readline(_SKIP_BYTES)):
                offset += len(raw)
                blank = blank and not raw.strip()
                if digest is not None:
                    digest.update(raw)
            if blank:
                continue
            content = None
        yield Line(number=number, start=begin, end=offset, content=content)


def survey(file: BinaryIO, *, max_bytes: int = MAX_ROW_BYTES) -> InputFacts:
    """Count the rows of the whole input, and hash it."""
    digest = hashlib.sha256()
    rows = sum(1 for _ in read_lines(file, max_bytes=max_bytes, digest=digest))
    return InputFacts(rows=rows, sha256=digest.hexdigest())


def parse_row(line: Line) -> dict[str, Any] | InvalidRow:
    """The row's keys and values, or why it has none."""
    if line.content is None:
        size = line.end - line.start
        return InvalidRow(ROW_TOO_LARGE, f"line {line.number}: {size} bytes; a row may have {MAX_ROW_BYTES}")
    try:
        line.content.decode()
        row = orjson.loads(line.content)
    except UnicodeDecodeError as error:
        return InvalidRow(INVALID_ROW, f"line {line.number}: not UTF-8 (byte {error.start})")
    except orjson.JSONDecodeError as error:
        return InvalidRow(INVALID_ROW, f"line {line.number}: not valid JSON: {error.msg} (column {error.colno})")
    if not isinstance(row, dict):
        return InvalidRow(INVALID_ROW, f"line {line.number}: {_json_type(row)} where a JSON object is expected")
    if line.content.count(b"{") + line.content.count(b"[") > MAX_DEPTH and _is_deeper(row, MAX_DEPTH):
        return InvalidRow(INVALID_ROW, f"line {line.number}: nested deeper than {MAX_DEPTH} levels")
    return row


def _is_deeper(value: Any, limit: int) -> bool:
    """Whether containers are nested more than ``limit`` deep; without recursion."""
    level = [value]
    for _ in range(limit):
        inner: list[Any] = []
        for item in level:
            children = item.values() if isinstance(item, dict) else item
            inner.extend(child for child in children if isinstance(child, dict | list))
        if not inner:
            return False
        level = inner
    return True


def _json_type(value: Any) -> str:
    if value is None:
        return "null"
    names = {list: "an array", str: "a string", bool: "a boolean"}
    return names.get(type(value), "a number")
