"""Memory that an engine sees on an accelerator, from its product and from the memory that its label states."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from vllm_operator.planner.inventory.products import Product, is_mig, product_named
from vllm_operator_api.quantities import BYTES_PER_GIB, BYTES_PER_MIB

_SAME_MEMORY_SHARE: Final = 0.01
"""A label that is so near to the table's is the same board under another driver."""
_MIG_SHARE: Final = 0.95
"""Kept aside of a slice: labels may be nominal (README of GFD: 5120 for 1g.5gb) where the driver gives 4864."""
_SHARES: Final = ((28 * 1024, 0.97), (60 * 1024, 0.984))
"""Label below so many MiB: CUDA's share of it at the least. T4 0.971, L4 0.976; A100-40 0.985, L40S 0.987."""
_LARGE_SHARE: Final = 0.989
"""A100-80 0.989, H100 0.994, B200 0.996 of the label."""
_OTHER_VENDORS_SHARE: Final = 0.985
"""AMD: MI300X 0.997 of 192 GiB, MI355X 0.999. No figure is published for the others; this leaves room."""


@lru_cache(maxsize=512)
def usable_bytes(product: str, label_mib: int = 0) -> int:
    """Memory of one accelerator that CUDA (ROCm …) reports as its total; vLLM takes its share of that.

    Args:
        product: name as labelled, with or without NVIDIA's prefix.
        label_mib: memory as labelled; 0: no label, the product's own is used.

    Returns:
        bytes; 0 when neither the product is known nor a memory given.
    """
    if is_mig(product):
        return int(label_mib * BYTES_PER_MIB * _MIG_SHARE)
    known = product_named(product, label_mib)
    if known is None:
        return int(label_mib * BYTES_PER_MIB * _share(label_mib))
    return product_usable_bytes(known, label_mib)


def product_usable_bytes(product: Product, label_mib: int = 0) -> int:
    """``usable_bytes`` of a known product: measured where the label agrees with it, else a share of the label."""
    memory_mib = label_mib or product.label_mib
    share = _share(memory_mib) if product.vendor == "nvidia" else _OTHER_VENDORS_SHARE
    by_share = int(memory_mib * BYTES_PER_MIB * share)
    if product.usable_gib is None:
        return by_share
    if memory_mib < product.label_mib * (1 - _SAME_MEMORY_SHARE):
        return min(by_share, int(product.usable_gib * BYTES_PER_GIB))
    return int(product.usable_gib * BYTES_PER_GIB)


def _share(memory_mib: int) -> float:
    return next((share for below, share in _SHARES if memory_mib < below), _LARGE_SHARE)
