"""Why there is nothing to choose from: what of the cluster is missing or not labelled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from vllm_operator.planner.inventory.pool import Inventory, LeftOutNode
from vllm_operator.planner.inventory.pools import left_out_of
from vllm_operator.planner.problem import PlanProblem
from vllm_operator_api.conditions import Reason

_NAMED_NODES: Final = 5


def no_pools(resource_name: str, inventory: Inventory) -> PlanProblem:
    """The problem of a resource that no usable node offers."""
    left_out = left_out_of(inventory, resource_name)
    unlabelled = [node for node in left_out if node.unlabelled]
    if unlabelled:
        return PlanProblem(
            Reason.ACCELERATOR_LABELS_MISSING,
            f"{len(unlabelled)} node(s) offer {resource_name} but do not say which accelerator it is: "
            f"{_told(unlabelled)}; install the vendor's feature discovery (NVIDIA: GPU feature discovery), or describe "
            "the nodes in the chart value acceleratorProfiles",
        )
    if left_out:
        return PlanProblem(
            Reason.NO_ACCELERATOR_NODES,
            f"no node that is ready and schedulable offers {resource_name}; these offer it but are not used: "
            f"{_told(left_out)}",
        )
    seen = ", ".join(inventory.resources_seen)
    there = f"nodes offer {seen}: set spec.accelerator.resourceName to one of them" if seen else "no node offers any"
    return PlanProblem(
        Reason.NO_ACCELERATOR_NODES,
        f"no node offers {resource_name}; {there}, add nodes with accelerators and the vendor's device plugin, or "
        "describe a pool that an autoscaler fills in the chart value acceleratorProfiles",
    )


def _told(nodes: Sequence[LeftOutNode]) -> str:
    told = ", ".join(f"{node.name} {node.why}" for node in nodes[:_NAMED_NODES])
    return told if len(nodes) <= _NAMED_NODES else f"{told} and {len(nodes) - _NAMED_NODES} more"
