"""Which scheme each weight of a model has, from lists of names and patterns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from vllm_operator.planner.facts.architecture.blocks import Part, Weight
from vllm_operator.planner.facts.quantization.names import Names, Patterns, below_layers, is_foreign
from vllm_operator.planner.facts.quantization.schemes import Scheme

_ONLY_BY_NAME: Final = frozenset({Part.EMBEDDING, Part.HEAD, Part.ENCODER})
_ALIASES: Final = {"shared_experts": "shared_expert", "gate_proj": "w1", "up_proj": "w3", "down_proj": "w2"}
"""Names that checkpoints use for the same module."""


class Rules:
    """The scheme of a weight by its name."""

    def __init__(self, everywhere: Scheme | None, experts: Scheme | None, *, only_experts: bool) -> None:
        self._everywhere = everywhere
        self._experts = experts
        self._only_experts = only_experts
        self._ignored = Names()
        self._named: dict[str, Scheme] = {}
        self._named_patterns: dict[Scheme, Patterns] = {}
        self.guesses: list[str] = []

    def scheme(self, layer: int | None, weight: Weight) -> Scheme | None:
        """Scheme of a layer's weight, or of one outside of the layers; None: it is not quantised."""
        if not weight.linear:
            return None
        if weight.part is Part.EXPERTS and self._experts is not None:
            return self._experts
        if self._only_experts and weight.part is not Part.EXPERTS:
            return None
        names = _spellings(weight.name)
        if any(self._ignored.has(layer, name) for name in names):
            return None
        named = self._by_name(layer, names) if self._named or self._named_patterns else None
        if named is not None:
            return named
        return None if weight.part in _ONLY_BY_NAME else self._everywhere

    def ignore(self, names: list[str]) -> None:
        """Leave out what these match."""
        unclear = self._ignored.add(names)
        if unclear:
            self.guesses.append(f"{unclear} patterns of what is not quantised are not understood")

    def name(self, targets: Mapping[str, Scheme]) -> None:
        """Give these a scheme of their own."""
        unclear = 0
        for target, scheme in targets.items():
            if target.startswith("re:") or "*" in target:
                unclear += not self._named_patterns.setdefault(scheme, Patterns()).add(target)
            elif not is_foreign(target):
                self._named[below_layers(target)] = scheme
        if unclear:
            self.guesses.append(f"{unclear} patterns of what is quantised are not understood")

    def _by_name(self, layer: int | None, names: tuple[str, ...]) -> Scheme | None:
        for name in names:
            path = name if layer is None else f"layers.{layer}.{name}"
            while path:
                found = self._named.get(path)
                if found is not None:
                    return found
                path = path.rpartition(".")[0]
            for scheme, patterns in self._named_patterns.items():
                if patterns.match(layer, name):
                    return scheme
        return None


def rules_of(
    everywhere: Scheme | None,
    *,
    ignored: list[str],
    named: Mapping[str, Scheme] | None = None,
    experts: Scheme | None = None,
    only_experts: bool = False,
) -> Rules:
    """Rules: ``named`` before ``everywhere``; ``ignored`` and the output projection are left out.

    vLLM quantises the output projection only where a list names it (``get_quant_method`` for ``ParallelLMHead``).
    """
    rules = Rules(everywhere, experts, only_experts=only_experts)
    rules.ignore(ignored)
    rules.name(named or {})
    return rules


def _spellings(name: str) -> tuple[str, ...]:
    parts = name.split(".")
    if not any(part in _ALIASES for part in parts):
        return (name,)
    return name, ".".join(_ALIASES.get(part, part) for part in parts), name.replace("shared_experts", "shared_expert")
