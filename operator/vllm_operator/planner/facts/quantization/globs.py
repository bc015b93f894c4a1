"""Patterns of module names, as lists of what is (not) quantised have them.

The lists come from the model's author, so no pattern is handed to a regular-expression engine, which one could keep
busy for hours: the few constructs that checkpoints use are turned into pieces that are looked for one after another.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

MAX_PATTERN: Final = 512
_MAX_ALTERNATIVES: Final = 64
_MAX_PIECES: Final = 16
_LITERAL_ESCAPES: Final = frozenset(".-_[](){}*+?|/\\$^ ")


@dataclass(frozen=True, slots=True)
class Glob:
    """Pieces that must follow each other in a name, with anything between them."""

    pieces: tuple[str, ...]
    """The first is at the name's beginning, the last at its end; empty ones leave them open."""

    def matches(self, name: str) -> bool:
        """Whether the whole name fits. Linear in its length."""
        first, last = self.pieces[0], self.pieces[-1]
        if len(self.pieces) == 1:
            return name == first
        if not name.startswith(first) or not name.endswith(last) or len(name) < len(first) + len(last):
            return False
        at, end = len(first), len(name) - len(last)
        for piece in self.pieces[1:-1]:
            found = name.find(piece, at, end)
            if found < 0:
                return False
            at = found + len(piece)
        return True


def wildcard(pattern: str) -> Glob | None:
    """``model.layers.*.self_attn``: ``*`` is anything. None: it is too long or has too many."""
    pieces = tuple(pattern.split("*"))
    return Glob(pieces) if len(pattern) <= MAX_PATTERN and len(pieces) <= _MAX_PIECES else None


def expression(pattern: str) -> list[Glob] | None:
    """A regular expression that uses literals, gaps such as ``.*``, and one level of alternatives.

    It must fit from a name's beginning, as vLLM uses ``re.match`` (``quantization/compressed_tensors/utils.py``).
    None: it uses anything else, and nothing is known of what it means.
    """
    if len(pattern) > MAX_PATTERN:
        return None
    anchored = pattern.endswith("$")
    alternatives = _expanded(pattern.removeprefix("^").removesuffix("$"))
    if alternatives is None:
        return None
    globs: list[Glob] = []
    for alternative in alternatives:
        pieces = _pieces(alternative)
        if pieces is None:
            return None
        globs.append(Glob(tuple(pieces if anchored else [*pieces, ""])))
    return globs


def _expanded(pattern: str) -> list[str] | None:
    """``a(b|c)d`` as ``abd`` and ``acd``."""
    done = [""]
    rest = pattern
    while rest:
        opening = _unescaped(rest, "(")
        if opening < 0:
            return None if _unescaped(rest, ")") >= 0 or _unescaped(rest, "|") >= 0 else [head + rest for head in done]
        closing = _unescaped(rest, ")")
        if closing < opening or "(" in rest[opening + 1 : closing]:
            return None
        options = rest[opening + 1 : closing].removeprefix("?:").split("|")
        done = [head + rest[:opening] + option for head in done for option in options]
        if len(done) > _MAX_ALTERNATIVES:
            return None
        rest = rest[closing + 1 :]
        if rest[:1] in ("*", "+", "?", "{"):
            return None
    return done


def _unescaped(text: str, character: str) -> int:
    at = text.find(character)
    while at > 0 and text[at - 1] == "\\":
        at = text.find(character, at + 1)
    return at


def _pieces(pattern: str) -> list[str] | None:
    pieces, piece, at = [], "", 0
    while at < len(pattern):
        for gap in (".*", ".+", "\\d+", "[0-9]+", "[^.]+", "\\w+"):
            if pattern.startswith(gap, at):
                pieces.append(piece)
                piece, at = "", at + len(gap)
                break
        else:
            character = pattern[at]
            if character == "\\":
                if pattern[at + 1 : at + 2] not in _LITERAL_ESCAPES or at + 1 == len(pattern):
                    return None
                character, at = pattern[at + 1], at + 1
            elif character in "[]{}*+?^$|()":
                return None
            piece, at = piece + character, at + 1
        if len(pieces) > _MAX_PIECES:
            return None
    return [*pieces, piece]
