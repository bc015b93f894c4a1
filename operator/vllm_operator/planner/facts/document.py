"""JSON of a model's author, parsed within bounds of memory: it is looked at before it is parsed.

Python's parser bounds depth and the length of numbers by itself, but not how many values it makes: some MiB of
``[[],[],[]`` become some hundred MiB of lists.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

from vllm_operator.planner.facts.errors import invalid, too_large

MAX_DOCUMENT_BYTES: Final = 4 * 1024 * 1024
"""Real ones have some ten KiB; the largest known, which lists how each of 22,000 modules is quantised, has 3 MiB."""
_MAX_WIDE_BYTES: Final = 1024 * 1024
"""Of a document with other characters than ASCII: each may take four bytes once it is parsed."""
_MAX_PARSED_BYTES: Final = 18 * 1024 * 1024
_OBJECT_BYTES: Final = 184
_LIST_BYTES: Final = 88
_MEMBER_BYTES: Final = 280
_LEAF_MEMBER_BYTES: Final = 100
_ELEMENT_BYTES: Final = 70
"""What CPython 3.11 needs at most for an object and a list, for a member of an object (less where the object is small
and holds no other: ``_LEAF``), and for an element of a list, beside the text itself."""
_LEAF: Final = re.compile(rb"\{[^{}\[\]]{1,160}\}")


def parse_json(text: bytes, what: str) -> dict[str, Any]:
    """A JSON object from a file of the model.

    Raises:
        DocumentTooLargeError: it has too many bytes or values.
        ModelError: it is too deep, not JSON, names a key twice, or is not an object.
    """
    if len(text) > MAX_DOCUMENT_BYTES:
        too_large(f"{what} has {len(text)} bytes; at most {MAX_DOCUMENT_BYTES} are read")
    if len(text) > _MAX_WIDE_BYTES and not text.isascii():
        too_large(f"{what} has {len(text)} bytes; at most {_MAX_WIDE_BYTES} are read where not all of it is ASCII")
    if _parsed_bytes(text) > _MAX_PARSED_BYTES:
        too_large(f"{what} holds about {text.count(b',')} values, more than any model's; it is not read")
    try:
        document = json.loads(text, object_pairs_hook=lambda pairs: _object(pairs, what))
    except RecursionError:
        invalid(f"{what} is nested too deep")
    except ValueError as error:
        invalid(f"{what} is not JSON: {str(error)[:200]}")
    if not isinstance(document, dict):
        invalid(f"{what} is not a JSON object")
    return document


def _parsed_bytes(text: bytes) -> int:
    """Memory that parsing takes, a little above what was measured of documents made to need much."""
    members = text.count(b":")
    leaf_members = sum(leaf.group().count(b":") for leaf in _LEAF.finditer(text))
    return (
        len(text) * (1 if text.isascii() else 4)
        + _OBJECT_BYTES * text.count(b"{")
        + _LIST_BYTES * text.count(b"[")
        + _LEAF_MEMBER_BYTES * leaf_members
        + _MEMBER_BYTES * (members - leaf_members)
        + _ELEMENT_BYTES * max(0, text.count(b",") - members)
    )


def _object(pairs: list[tuple[str, Any]], what: str) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        invalid(f"{what} names the key {twice[:100]!r} twice")
    return document
