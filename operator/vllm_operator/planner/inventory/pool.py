"""A pool: nodes that offer the same accelerators in the same number. What the planner chooses from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vllm_operator.planner.device import Device

Link = Literal["nvlink", "pcie", "unknown"]
"""How the accelerators of one node reach each other; ``nvlink`` stands for any fully connected fast fabric."""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class LabelRequirement:
    """A node label that a pod asks for: ``key In values``."""

    key: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Taint:
    """A taint that all nodes of a pool carry (effect NoSchedule or NoExecute) and a pod must tolerate."""

    key: str
    value: str
    effect: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuPool:
    """Ready, schedulable nodes with the same kind and number of accelerators, or such nodes that could be made."""

    resource_name: str
    """Extended resource that a pod asks for: ``nvidia.com/gpu``, ``nvidia.com/mig-3g.40gb``, ``amd.com/gpu`` …"""
    product: str
    """As the nodes are labelled: ``NVIDIA-H100-80GB-HBM3``."""
    device: Device
    usable_bytes: int
    """Memory that the engine sees on one accelerator, free of what the driver keeps: below the labelled size."""
    gpus_per_node: int
    """Allocatable, not capacity."""
    nodes: int
    """0: none exists now, an autoscaler would make one."""
    free_gpus_by_node: tuple[int, ...] = ()
    """Accelerators that no pod has asked for, of each node, most first. Advisory: preemption and scale-up exist."""
    single: bool = False
    """Time-sliced, MPS or MIG: no two of them reach each other, so one per replica."""
    link: Link = "unknown"
    requirements: tuple[LabelRequirement, ...] = ()
    """Labels that select this pool's nodes, in the names that the provisioner knows where it makes nodes."""
    taints: tuple[Taint, ...] = ()
    cpu_millis_per_node: int = 0
    memory_bytes_per_node: int = 0
    """Allocatable CPU and host memory of the smallest of its nodes; 0: unknown."""
    price: float = 0.0
    """Per accelerator and hour, from a profile, in any one currency; 0: unknown."""

    @property
    def largest_replica(self) -> int:
        """Most accelerators that one pod can have here."""
        return 1 if self.single else self.gpus_per_node

    @property
    def exists(self) -> bool:
        """Whether a node is there now."""
        return self.nodes > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOutNode:
    """A node that offers the resource and is in no pool."""

    name: str
    why: str
    """For the user: ``is cordoned``, ``is not Ready``, ``has no label with the GPU's product`` …"""
    unlabelled: bool = False
    """It would be in a pool if it were labelled, or if a profile described it."""
    resource_name: str = ""
    """The resource that it offers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """All pools of all resources, sorted and stable: the same nodes give the same inventory."""

    pools: tuple[GpuPool, ...] = ()
    left_out: tuple[LeftOutNode, ...] = ()
    resources_seen: tuple[str, ...] = ()
    """Names of all extended resources that look like accelerators, on any node."""
