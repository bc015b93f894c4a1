"""Which layouts are tried on a pool."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from vllm_operator.planner.choice.legality import Legality
from vllm_operator.planner.choice.request import PlanRequest
from vllm_operator.planner.inventory.pool import GpuPool
from vllm_operator.planner.layout import Layout
from vllm_operator_api.model import LatentCache, ModelFacts

MAX_NODES: Final = 16
"""Nodes of one replica at most: 128 GPUs of usual nodes, twice what the largest known model needs."""
MAX_GPUS_PER_POD: Final = 64
"""Whatever a node offers: no node has more, and what is offered by the thousand is no whole GPU."""
_STAGES_IN_NODE: Final = (1, 2, 4, 8)
_COPIES: Final = (2, 4, 8, 16)


def layouts(facts: ModelFacts, request: PlanRequest, pool: GpuPool, legality: Legality) -> tuple[Layout, ...]:
    """All layouts that are tried on this pool, fewest GPUs first. Degrees that the user has given are kept to.

    - Tensor parallelism in powers of two, alone or with pipeline stages inside the node.
    - Copies of latent attention with the experts cut over all of them, where several requests must fit: latents are
      not cut, so only copies hold more of them.
    - Other legal degrees and numbers of stages, and a stage on each of several nodes (if allowed): only with more GPUs
      than any of those.

    The set does not depend on memory or length, so that what fits with less of one fits with more of it.
    """
    if request.given.anything:
        found = set(_given_layouts(request, pool, legality))
    else:
        tensors = legality.legal_tensor(gpus_per_pod(request, pool), pool.device)
        powers = tuple(tensor for tensor in tensors if power_of_two(tensor))
        found = {*_with_stages(powers, request, pool), *_with_copies(facts, powers, request, pool)}
        found |= _larger(found, _odd(tensors, request, pool))
        found |= _larger(found, _over_nodes(powers, request, pool))
    return tuple(sorted(found, key=lambda layout: (layout.gpus, layout)))


def gpus_per_pod(request: PlanRequest, pool: GpuPool) -> int:
    """Most GPUs that one pod of the service may have here."""
    return min(pool.largest_replica, request.max_gpus_per_pod or MAX_GPUS_PER_POD, MAX_GPUS_PER_POD)


def power_of_two(number: int) -> bool:
    """Whether the number is 1, 2, 4, 8 …"""
    return number & (number - 1) == 0


def _larger(than: set[Layout], others: Iterable[Layout]) -> set[Layout]:
    most = max((layout.gpus for layout in than), default=0)
    return {layout for layout in others if layout.gpus > most}


def _with_stages(powers: tuple[int, ...], request: PlanRequest, pool: GpuPool) -> Iterable[Layout]:
    most = gpus_per_pod(request, pool)
    for tensor in powers:
        for pipeline in _STAGES_IN_NODE:
            if tensor * pipeline <= most:
                yield Layout(tensor=tensor, pipeline=pipeline)


def _odd(tensors: tuple[int, ...], request: PlanRequest, pool: GpuPool) -> Iterable[Layout]:
    """Every cut inside the node: for nodes whose number of GPUs is no power of two."""
    most = gpus_per_pod(request, pool)
    for tensor in tensors:
        for pipeline in range(1, most // tensor + 1):
            yield Layout(tensor=tensor, pipeline=pipeline)


def _with_copies(facts: ModelFacts, powers: tuple[int, ...], request: PlanRequest, pool: GpuPool) -> Iterable[Layout]:
    latent = any(isinstance(cache, LatentCache) for shape in facts.layer_shapes for cache in shape.caches)
    if facts.experts is None or not latent or request.min_concurrency == 1:
        return
    most = gpus_per_pod(request, pool)
    for tensor in powers:
        for data in _COPIES:
            if tensor * data <= most:
                yield Layout(tensor=tensor, data=data, expert_parallel=True)


def _over_nodes(powers: tuple[int, ...], request: PlanRequest, pool: GpuPool) -> Iterable[Layout]:
    if not request.allow_multi_node or pool.single or not powers:
        return
    for nodes in range(2, _most_nodes(pool) + 1):
        yield Layout(tensor=powers[-1], pipeline=nodes, nodes=nodes)


def _most_nodes(pool: GpuPool) -> int:
    """Nodes that a replica may span here: those that exist, or as many as an autoscaler would make."""
    return min(MAX_NODES, pool.nodes) if pool.exists else MAX_NODES


def _given_layouts(request: PlanRequest, pool: GpuPool, legality: Legality) -> Iterable[Layout]:
    """Layouts with the given degrees; the degrees left open are the planner's: of tensor any legal one, else 1."""
    given, most = request.given, gpus_per_pod(request, pool)
    tensors = legality.legal_tensor(most, pool.device) if given.tensor is None else (given.tensor,)
    pipeline, data = given.pipeline or 1, given.data or 1
    for tensor in tensors:
        gpus = tensor * pipeline * data
        nodes = 1 if gpus <= most or not request.allow_multi_node else _nodes_for(gpus, most)
        if nodes and gpus // nodes <= most and (nodes == 1 or nodes <= _most_nodes(pool)):
            expert_parallel = given.expert_parallel if given.expert_parallel is not None else data > 1
            yield Layout(tensor=tensor, pipeline=pipeline, data=data, expert_parallel=expert_parallel, nodes=nodes)


def _nodes_for(gpus: int, most: int) -> int:
    """The fewest nodes that divide the GPUs evenly; 0: none do."""
    return next((nodes for nodes in range(2, MAX_NODES + 1) if gpus % nodes == 0 and gpus // nodes <= most), 0)
