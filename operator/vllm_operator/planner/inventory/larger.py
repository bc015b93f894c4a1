"""Accelerators that are not in the cluster and could be: what a message may recommend."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from vllm_operator.planner.device import Device, Vendor
from vllm_operator.planner.inventory.pool import GpuPool
from vllm_operator.planner.inventory.products import product_named
from vllm_operator.planner.inventory.usable import usable_bytes

_USUAL: Final[dict[Vendor, tuple[str, ...]]] = {
    "nvidia": (
        "NVIDIA-L4",
        "NVIDIA-L40S",
        "NVIDIA-A100-SXM4-80GB",
        "NVIDIA-H100-80GB-HBM3",
        "NVIDIA-H200",
        "NVIDIA-B200",
        "NVIDIA-B300-SXM6-AC",
    ),
    "amd": ("AMD_Instinct_MI300X_OAM", "AMD_Instinct_MI325X_OAM", "AMD_Instinct_MI355X_OAM"),
}
"""Products for serving that clouds and vendors sell, the smallest first."""
_GPUS_PER_NODE: Final = 8


def larger_pools(pool: GpuPool) -> tuple[GpuPool, ...]:
    """Nodes of eight of each usual product of the same vendor with more memory per accelerator, the smallest first."""
    return tuple(other for other in _usual_pools(pool.device.vendor) if other.usable_bytes > pool.usable_bytes)


@lru_cache(maxsize=8)
def _usual_pools(vendor: Vendor) -> tuple[GpuPool, ...]:
    pools = []
    for name in _USUAL.get(vendor, ()):
        product = product_named(name)
        if product is not None:
            pools.append(
                GpuPool(
                    resource_name=f"{vendor}.com/gpu",
                    product=name,
                    device=Device(vendor=vendor, compute_capability=product.compute_capability),
                    usable_bytes=usable_bytes(name),
                    gpus_per_node=_GPUS_PER_NODE,
                    nodes=0,
                    link=product.link,
                )
            )
    return tuple(pools)
