"""Which GPUs the cluster has, from the labels and resources of its nodes."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

PRODUCT_LABEL: Final = "nvidia.com/gpu.product"
MEMORY_LABEL: Final = "nvidia.com/gpu.memory"
"""MiB per GPU as NVML reports it (a MIG slice's own memory where slices are GPUs)."""
SHARING_LABEL: Final = "nvidia.com/gpu.sharing-strategy"
SHARED_SUFFIX: Final = "-SHARED"
GPU_TAINT: Final = "nvidia.com/gpu"
_MIG: Final = re.compile(r"-MIG-")


@dataclass(frozen=True, slots=True)
class GpuPool:
    """Ready, schedulable nodes with the same kind and number of GPUs."""

    resource_name: str
    product: str
    memory_mib: int
    """Per GPU, as labelled; what CUDA offers is a little less (``memory.usable_bytes``)."""
    gpus_per_node: int
    nodes: int
    shared: bool = False
    """Time-sliced, MPS or MIG: peer-to-peer between two of them does not exist, so one GPU per replica."""

    @property
    def largest_replica(self) -> int:
        """Most GPUs that one pod can have here."""
        return 1 if self.shared else self.gpus_per_node


@dataclass(frozen=True, slots=True)
class Inventory:
    """The pools of one resource, and what was seen besides, for the message when there is none."""

    pools: tuple[GpuPool, ...] = ()
    unlabelled_nodes: tuple[str, ...] = ()
    """Nodes that offer the resource but carry no label with product or memory."""
    unusable_nodes: tuple[str, ...] = ()
    """Nodes that offer the resource but are not ready or cordoned."""


def gpu_inventory(nodes: Iterable[dict[str, Any]], resource_name: str) -> Inventory:
    """Group the nodes that offer ``resource_name`` into pools, sorted by memory and product."""
    counts: dict[tuple[str, int, int, bool], int] = defaultdict(int)
    unlabelled: list[str] = []
    unusable: list[str] = []
    for node in nodes:
        name = node["metadata"]["name"]
        gpus = _count(node.get("status", {}).get("allocatable", {}).get(resource_name))
        if gpus < 1:
            continue
        if not _usable(node):
            unusable.append(name)
            continue
        labels = node["metadata"].get("labels") or {}
        product = labels.get(PRODUCT_LABEL, "")
        memory_mib = _count(labels.get(MEMORY_LABEL))
        if not product or memory_mib < 1:
            unlabelled.append(name)
            continue
        counts[(product, memory_mib, gpus, _shared(labels, product))] += 1
    pools = [
        GpuPool(
            resource_name=resource_name,
            product=product,
            memory_mib=memory_mib,
            gpus_per_node=gpus,
            nodes=number,
            shared=shared,
        )
        for (product, memory_mib, gpus, shared), number in counts.items()
    ]
    pools.sort(key=lambda pool: (pool.memory_mib, pool.product, pool.gpus_per_node))
    return Inventory(tuple(pools), tuple(sorted(unlabelled)), tuple(sorted(unusable)))


def _usable(node: dict[str, Any]) -> bool:
    return not node.get("spec", {}).get("unschedulable") and node_ready(node)


def node_ready(node: dict[str, Any]) -> bool:
    """Whether the node's kubelet answers and takes pods."""
    conditions = node.get("status", {}).get("conditions") or []
    return any(condition.get("type") == "Ready" and condition.get("status") == "True" for condition in conditions)


def _shared(labels: dict[str, str], product: str) -> bool:
    strategy = labels.get(SHARING_LABEL, "none")
    return strategy not in ("", "none") or product.endswith(SHARED_SUFFIX) or _MIG.search(product) is not None


def _count(text: Any) -> int:
    """A whole number from a label or a quantity of an extended resource; 0 when it is none."""
    digits = str(text)
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 10 else 0
