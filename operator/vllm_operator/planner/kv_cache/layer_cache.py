"""What one layer keeps, as vLLM's ``KVCacheSpec`` says it: tokens and bytes of a block, and blocks per request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

CacheKind = Literal["full", "latent", "sliding", "chunked", "state"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerCache:
    """One kind of cache in one layer on one GPU. Equal caches may share a block table (v1/kv_cache_interface.py)."""

    kind: CacheKind
    block_tokens: int
    page_bytes: int
    """Bytes of one block of one layer, padding included."""
    shape: tuple[int, ...]
    """What is stored per token or state: caches of different shapes are not alike, whatever their bytes."""
    window_tokens: int = 0
    """Sliding window or chunk."""
    states: int = 0
    """States that one request holds."""

    def blocks(self, length_tokens: int, in_flight_tokens: int) -> int:
        """Blocks that one request of this length holds at most (``max_memory_usage_bytes`` over a page).

        Blocks behind a window are freed once their tokens are processed, so tokens still in flight keep theirs; a
        window need not start at the edge of a block, which takes one more.
        """
        if self.kind == "state":
            return self.states
        if self.kind == "sliding":
            return ceil_div(min(self.window_tokens - 1 + in_flight_tokens, length_tokens), self.block_tokens) + 1
        if self.kind == "chunked":
            return ceil_div(min(self.window_tokens + in_flight_tokens, length_tokens), self.block_tokens)
        return ceil_div(length_tokens, self.block_tokens)

    def same_type(self, other: LayerCache) -> bool:
        """Whether both always need the same number of blocks (``UniformTypeKVCacheSpecs.is_uniform_type``)."""
        if self.block_tokens != other.block_tokens:
            return False
        if self.kind in ("full", "latent"):
            return other.kind in ("full", "latent")
        if self.kind == "state":
            return other.kind == "state" and (self.page_bytes, self.states) == (other.page_bytes, other.states)
        return self.kind == other.kind and self.window_tokens == other.window_tokens


def ceil_div(dividend: int, divisor: int) -> int:
    """Quotient, rounded up."""
    return -(-dividend // divisor)
