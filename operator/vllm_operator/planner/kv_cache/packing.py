"""Groups whose pages differ in size and lie side by side in a block (``_get_packed_kv_cache_groups``).

vLLM forms them for models whose back ends want all pages of a block together; of those known here, DeepSeek-V4
(v1/core/kv_cache_utils.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vllm_operator.planner.kv_cache.grouping import CachedLayers, CacheGroup, group_of
from vllm_operator.planner.kv_cache.layer_cache import ceil_div


@dataclass(frozen=True, slots=True)
class _Bucket:
    """Layers that always need the same number of blocks, one entry for each size of page."""

    pages: tuple[CachedLayers, ...]

    @property
    def count(self) -> int:
        return sum(page.count for page in self.pages)

    @property
    def most(self) -> int:
        """Layers with the commonest page: how often the pattern of the bucket repeats."""
        return max(page.count for page in self.pages)

    @property
    def balanced(self) -> bool:
        """Whether it repeats one layer of each page."""
        return len({page.count for page in self.pages}) == 1

    def widest_bytes(self, parts: int) -> int:
        """Bytes of the largest group when it is divided into so many."""
        return sum(ceil_div(page.count, parts) * page.cache.page_bytes for page in self.pages)


def packed_groups(layers: Sequence[CachedLayers]) -> tuple[CacheGroup, ...]:
    """The groups of a model with pages of several sizes."""
    buckets = _buckets(layers)
    fewest_repeats = max((b.most for b in buckets if b.balanced and len(b.pages) > 1), default=0)
    repeats = _least_padding([b.most for b in buckets if b.balanced], fewest_repeats) if fewest_repeats else None
    parts = [ceil_div(b.most, repeats) if repeats is not None and b.balanced else 1 for b in buckets]
    splits = [repeats is None and b.pages[0].cache.kind == "sliding" for b in buckets]
    needed_bytes = max(
        bucket.widest_bytes(bucket.count if split else part)
        for bucket, part, split in zip(buckets, parts, splits, strict=True)
    )
    groups: list[CacheGroup] = []
    for bucket, part, split in zip(buckets, parts, splits, strict=True):
        pages_per_block = max(needed_bytes // bucket.pages[0].cache.page_bytes, 1)
        divided = max(part, ceil_div(bucket.count, pages_per_block)) if split else part
        groups += [group_of([page.part(index, divided) for page in bucket.pages]) for index in range(divided)]
    return tuple(groups)


def _buckets(layers: Sequence[CachedLayers]) -> list[_Bucket]:
    """By type, then by page: of one type, layers with pages of one size count as one kind."""
    buckets: list[dict[int, CachedLayers]] = []
    for kind in layers:
        bucket = next((b for b in buckets if next(iter(b.values())).cache.same_type(kind.cache)), None)
        if bucket is None:
            bucket = {}
            buckets.append(bucket)
        page = kind.cache.page_bytes
        if page in bucket:
            per_stage = tuple(map(sum, zip(bucket[page].per_stage, kind.per_stage, strict=True)))
            bucket[page] = CachedLayers(bucket[page].cache, per_stage)
        else:
            bucket[page] = kind
    return [_Bucket(tuple(bucket.values())) for bucket in buckets]


def _least_padding(counts: Sequence[int], least: int) -> int:
    """The divisor from ``least`` on that needs least added to the counts; the largest of equals (_approximate_gcd)."""
    candidates = range(least, max(*counts, least) + 1)
    return max(candidates, key=lambda size: (-sum(-count % size for count in counts), size))
