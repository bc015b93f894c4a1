"""The order of candidates that fit. Smaller is better; the order is total and stable."""

from __future__ import annotations

import math
from typing import Any, Final

from vllm_operator.planner.choice.candidate import Candidate
from vllm_operator.planner.choice.layouts import power_of_two
from vllm_operator.planner.choice.request import PlanRequest
from vllm_operator.planner.inventory.pool import GpuPool

_LARGEST_TENSOR_ON_PCIE: Final = 2
"""Beyond two PCIe cards vLLM's own all-reduce is off (``custom_all_reduce.py``): stages exchange far less."""


def score(candidate: Candidate, request: PlanRequest) -> tuple[Any, ...]:
    """The user's preference, then fewest GPUs, then what runs best, then what is cheapest and free."""
    pool, layout = candidate.pool, candidate.layout
    return (
        preference(pool, request),
        layout.gpus,
        layout.nodes,
        not power_of_two(layout.tensor),
        pool.link == "pcie" and layout.tensor > _LARGEST_TENSOR_ON_PCIE,
        layout.pipeline,
        pool.price * layout.gpus if pool.price else math.inf,
        pool.usable_bytes,
        not pool.exists,
        -max(pool.free_gpus_by_node, default=0),
        -candidate.use.max_concurrency,
        pool.product,
        pool.gpus_per_node,
        pool.requirements,
    )


def preference(pool: GpuPool, request: PlanRequest) -> int:
    """Place of the pool's product in the user's list; all are equal where there is none."""
    return request.products.index(pool.product) if pool.product in request.products else 0


def room(candidate: Candidate, request: PlanRequest) -> tuple[Any, ...]:
    """The order of candidates that only fit without the margin: the one with most to spare.

    With more memory it is the first to be trusted, so that more memory never leads to more GPUs.
    """
    return (-candidate.use.slack_bytes, *score(candidate, request))
