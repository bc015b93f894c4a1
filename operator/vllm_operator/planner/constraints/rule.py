"""What a rule is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from vllm_operator.planner.device import Device
from vllm_operator.planner.engine_settings import EngineSettings
from vllm_operator.planner.layout import Layout
from vllm_operator_api.model import AttentionCache, IndexCache, LatentCache, ModelFacts, StateCache


@dataclass(frozen=True, slots=True)
class Case:
    """What the rules judge: a model, cut in one way, with these settings, on this kind of device."""

    facts: ModelFacts
    layout: Layout
    settings: EngineSettings
    device: Device

    @property
    def tensor(self) -> int:
        """The tensor-parallel degree."""
        return self.layout.tensor


Rule = Callable[[Case], str | None]
"""The reason against a case, for the user; None: the rule holds. Raises nothing when every degree is at least 1."""


def uneven(what: str, gpus: int) -> str:
    """The reason that most rules give."""
    return f"{what} cannot be divided evenly over {gpus} GPUs"


CacheKind = TypeVar("CacheKind", AttentionCache, LatentCache, IndexCache, StateCache)


def caches_of(facts: ModelFacts, kind: type[CacheKind]) -> Iterator[CacheKind]:
    """The different caches of this kind that any layer keeps, in the order of the layer shapes."""
    seen: set[CacheKind] = set()
    for shape in facts.layer_shapes:
        for cache in shape.caches:
            if isinstance(cache, kind) and cache not in seen:
                seen.add(cache)
                yield cache
