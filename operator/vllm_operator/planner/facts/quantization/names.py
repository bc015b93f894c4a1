"""Sets of module names and patterns, found quickly by layer and name.

The lists come from the model's author and every weight of every layer is looked up in them, so both their number and
what is tried per look-up are bounded.
"""

from __future__ import annotations

import re
from typing import Final

from vllm_operator.planner.facts.quantization.globs import Glob, expression, wildcard

_MAX_PATTERNS: Final = 64
"""Patterns that mean the same in all layers: each name is tried once."""
_MAX_NUMBERED: Final = 8
"""Patterns with digits in them, which may mean some layers only: tried for every layer."""
_MAX_OF_LAYER: Final = 8
_MAX_READ: Final = 256
"""Patterns that are looked at, whether they are understood or not."""
_MAX_COMPONENTS: Final = 10_000
_LAYER: Final = re.compile(r"(?:^|\.)layers\.(\d{1,5})(\..*|\*.*|)$", re.DOTALL)
_DIGIT: Final = re.compile(r"\d")
_FOREIGN: Final = ("vision", "visual", "audio", "mm_projector", "multi_modal", "patch_merge", "mtp", "embed_vision")
"""Parts of names that are no layer of the language model."""


def is_foreign(name: str) -> bool:
    """Whether a name is of an encoder or of multi-token prediction."""
    return any(part in name for part in _FOREIGN)


def full_name(layer: int | None, name: str) -> str:
    """The name of a layer's module as patterns mean it."""
    return name if layer is None else f"model.layers.{layer}.{name}"


def below_layers(name: str) -> str:
    """``model.language_model.layers.3.mlp`` as ``layers.3.mlp``: what is before differs between checkpoints."""
    found = _LAYER.search(name)
    return name if found is None else f"layers.{found.group(1)}{found.group(2)}"


class Patterns:
    """Some patterns for whole names."""

    def __init__(self) -> None:
        self._everywhere: list[Glob] = []
        self._numbered: list[Glob] = []
        self._known: dict[str, bool] = {}
        self._read = 0

    def add(self, pattern: str) -> bool:
        """Take a pattern in; False: it is not understood, or there are too many."""
        self._read += 1
        globs = _globs(pattern) if self._read <= _MAX_READ else None
        if globs is None:
            return False
        numbered = any(_DIGIT.search(piece) for glob in globs for piece in glob.pieces)
        kept, most = (self._numbered, _MAX_NUMBERED) if numbered else (self._everywhere, _MAX_PATTERNS)
        if len(kept) + len(globs) > most:
            return False
        kept += globs
        return True

    def match(self, layer: int | None, name: str) -> bool:
        """Whether one of them fits the module."""
        if not self._everywhere and not self._numbered:
            return False
        full = full_name(layer, name)
        if name not in self._known:
            self._known[name] = any(glob.matches(full) for glob in self._everywhere)
        return self._known[name] or any(glob.matches(full) for glob in self._numbered)


class Names:
    """Names, parts of names, and patterns."""

    def __init__(self) -> None:
        self._layers: dict[int, tuple[set[str], list[Glob]]] = {}
        self._components: set[str] = set()
        self._patterns = Patterns()

    def add(self, names: list[str]) -> int:
        """Take names in; how many are not understood or too many."""
        unclear = 0
        for name in names:
            if is_foreign(name):
                continue
            found = None if name.startswith("re:") else _LAYER.search(name)
            if found is not None and "*" not in name[: found.start()]:
                self._add_to_layer(int(found.group(1)), found.group(2))
            elif name.startswith("re:") or "*" in name:
                unclear += not self._patterns.add(name)
            elif len(name) <= 256 and len(self._components) < _MAX_COMPONENTS:
                self._components.add(name)
        return unclear

    def has(self, layer: int | None, name: str) -> bool:
        """Whether a module is among them."""
        if _has_component(self._components, name) or self._patterns.match(layer, name):
            return True
        if layer is None or layer not in self._layers:
            return False
        exact, globs = self._layers[layer]
        return _has_prefix(exact, name) or any(glob.matches(f".{name}") for glob in globs)

    def _add_to_layer(self, layer: int, rest: str) -> None:
        exact, globs = self._layers.setdefault(layer, (set(), []))
        if "*" not in rest:
            exact.add(rest.removeprefix("."))
        elif len(globs) < _MAX_OF_LAYER and (glob := wildcard(rest)) is not None:
            globs.append(glob)


def _globs(pattern: str) -> list[Glob] | None:
    if pattern.startswith("re:"):
        return expression(pattern.removeprefix("re:"))
    found = [wildcard(pattern), wildcard(f"{pattern}.*")]  # a module, and what is in it
    return [glob for glob in found if glob is not None] or None


def _has_prefix(names: set[str], name: str) -> bool:
    """Whether the module or one that it is in is listed."""
    while name:
        if name in names:
            return True
        name = name.rpartition(".")[0]
    return "" in names


def _has_component(names: set[str], name: str) -> bool:
    """Whether a run of the name's components is listed: ``lm_head``, ``gate``, ``mlp.gate``, ``self_attn``."""
    if not names:
        return False
    parts = name.split(".")
    return any(
        ".".join(parts[first:last]) in names for first in range(len(parts)) for last in range(first + 1, len(parts) + 1)
    )
