"""C0, the bounds of a layout's degrees, and C14, its nodes."""

from __future__ import annotations

from typing import Final

from vllm_operator.planner.constraints.rule import Case

MAX_TENSOR: Final = 64
"""Largest tensor-parallel degree. A node may offer far more of a resource that is not whole GPUs."""


def degrees(case: Case) -> str | None:
    """Every degree is at least 1 (``config/parallel.py: ParallelConfig``), and tensor parallelism has a bound."""
    layout = case.layout
    for name in ("tensor", "pipeline", "data", "nodes"):
        if (degree := getattr(layout, name)) < 1:
            return f"{name}={degree} is less than 1"
    if layout.tensor > MAX_TENSOR:
        return f"tensor={layout.tensor} is more than {MAX_TENSOR}"
    return None


def even_nodes(case: Case) -> str | None:
    """C14: all nodes of a replica run equally many ranks (``config/parallel.py: local_world_size``)."""
    if case.layout.gpus % case.layout.nodes:
        return f"{case.layout.gpus} GPUs cannot be divided evenly over {case.layout.nodes} nodes"
    return None
