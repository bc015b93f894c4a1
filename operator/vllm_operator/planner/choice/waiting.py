"""Whether a plan that fits can start now: GPUs may be taken, a quota used up, or no node there yet."""

from __future__ import annotations

from collections.abc import Sequence

from vllm_operator.planner.inventory.pool import GpuPool
from vllm_operator.planner.layout import Layout


def waiting_for(pools: Sequence[GpuPool], layout: Layout, quota_left: int | None = None) -> str | None:
    """What one more replica waits for; None when nothing speaks against it. ``pools``: those of the plan.

    Advisory: what is free is not known exactly, and preemption and autoscalers exist.
    """
    resource = pools[0].resource_name if pools else "GPUs"
    if quota_left is not None and quota_left < layout.gpus:
        return (
            f"the namespace's ResourceQuota leaves fewer than the {layout.gpus} {resource} of one replica; raise it, "
            "or delete what uses it"
        )
    existing = [pool for pool in pools if pool.exists]
    if not existing:
        return f"no node of {_names(pools)} exists now; an autoscaler has to add {_nodes(layout)} with {_each(layout)}"
    if any(_has_room(pool, layout) for pool in existing):
        return None
    return (
        f"{_each(layout)} on {_nodes(layout)} of {_names(existing)} are taken; it starts when pods end, or when an "
        f"autoscaler adds {_nodes(layout)} with the labels {_labels(existing[0])}"
    )


def _has_room(pool: GpuPool, layout: Layout) -> bool:
    """True also where what is free is not known."""
    free = pool.free_gpus_by_node
    if not free:
        return True
    return sum(number >= layout.gpus_per_node for number in free) >= layout.nodes


def _names(pools: Sequence[GpuPool]) -> str:
    return ", ".join(dict.fromkeys(pool.product for pool in pools)) or "the planned product"


def _nodes(layout: Layout) -> str:
    return "one node" if layout.nodes == 1 else f"{layout.nodes} nodes"


def _each(layout: Layout) -> str:
    return f"{layout.gpus_per_node} GPU{'s' if layout.gpus_per_node > 1 else ''}"


def _labels(pool: GpuPool) -> str:
    return ", ".join(f"{label.key}={'|'.join(label.values)}" for label in pool.requirements)
