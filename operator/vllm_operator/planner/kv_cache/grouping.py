"""Groups of layers that share a block table, as vLLM forms them over the whole model (v1/core/kv_cache_utils.py)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from vllm_operator.planner.kv_cache.layer_cache import LayerCache, ceil_div

LIKE_COUNTS_RATIO: Final = 1.5
"""Kinds whose numbers of layers differ by less are all padded to the larger one."""


@dataclass(frozen=True, slots=True)
class CachedLayers:
    """Layers with equal caches."""

    cache: LayerCache
    per_stage: tuple[int, ...]
    """How many of them each pipeline stage holds; they come in the order of the stages."""

    @property
    def count(self) -> int:
        """In the whole model."""
        return sum(self.per_stage)

    def part(self, index: int, parts: int) -> CachedLayers:
        """Every ``parts``-th of them, from ``index`` on: so every stage has some of each part."""
        per_stage, first = [], 0
        for count in self.per_stage:
            following = first + count
            per_stage.append(len(range(index, following, parts)) - len(range(index, first, parts)))
            first = following
        return CachedLayers(self.cache, tuple(per_stage))


@dataclass(frozen=True, slots=True)
class CacheGroup:
    """Layers with one block table: every block of a request is one page in each of them."""

    cache: LayerCache
    """Of one of its layers; all need the same number of blocks."""
    layers: int
    """In the whole model."""
    stage_bytes: tuple[int, ...]
    """Bytes of one block on each pipeline stage."""


def cache_groups(layers: Sequence[CachedLayers]) -> tuple[CacheGroup, ...]:
    """The groups of a model (``get_kv_cache_groups``).

    Layers that always need the same number of blocks make one group. Others are given pages of one size, put together
    by kind, and each kind is divided into groups of as many layers as the rarest kind has: the groups draw blocks from
    one pool, so all blocks are as large as the largest group's.
    """
    first = layers[0].cache
    if all(first.same_type(other.cache) for other in layers):
        return (group_of(layers),)
    kinds = _same_pages(layers)
    if kinds is None:
        return (group_of(layers, replace(first, kind="full")),)
    fewest = min(kind.count for kind in kinds)
    most = max(kind.count for kind in kinds)
    size = most if most < fewest * LIKE_COUNTS_RATIO else fewest
    groups: list[CacheGroup] = []
    for kind in kinds:
        parts = ceil_div(kind.count, size)
        groups += [group_of([kind.part(index, parts)]) for index in range(parts)]
    return tuple(groups)


def group_of(layers: Sequence[CachedLayers], cache: LayerCache | None = None) -> CacheGroup:
    """One group of all these layers."""
    by_stage = zip(*([count * kind.cache.page_bytes for count in kind.per_stage] for kind in layers), strict=True)
    return CacheGroup(cache or layers[0].cache, sum(kind.count for kind in layers), tuple(map(sum, by_stage)))


def _same_pages(layers: Sequence[CachedLayers]) -> Sequence[CachedLayers] | None:
    """All with the largest page: by more tokens where they divide it, else by padding (unify_kv_cache_spec_page_size).

    None where a latent would have to be padded, which vLLM cannot: beside sliding windows it then keeps every token of
    every layer (``_try_get_full_allocation_fallback_groups``).
    """
    largest = max(kind.cache.page_bytes for kind in layers)
    if any(kind.cache.kind == "latent" and largest % kind.cache.page_bytes for kind in layers):
        return None
    return [replace(kind, cache=_enlarged(kind.cache, largest)) for kind in layers]


def _enlarged(cache: LayerCache, page_bytes: int) -> LayerCache:
    if cache.page_bytes == page_bytes:
        return cache
    if cache.kind == "state" or page_bytes % cache.page_bytes:
        return replace(cache, page_bytes=page_bytes)
    return replace(cache, page_bytes=page_bytes, block_tokens=cache.block_tokens * page_bytes // cache.page_bytes)
