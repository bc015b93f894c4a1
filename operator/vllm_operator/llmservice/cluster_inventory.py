"""One inventory of accelerators for all services, made anew only when something it depends on has changed.

A node is read again only when it changed: with a thousand nodes reading is what takes time. Many that changed at once
are read in slices, and services get the inventory before until all are read. Everything else (``cluster_sources``) is
handed in.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from vllm_operator.kube.kinds import NODE, Manifest, ObjectRef
from vllm_operator.llmservice.observe import CacheView
from vllm_operator.planner.inventory.dra import NodeGpus
from vllm_operator.planner.inventory.karpenter import pools_to_come
from vllm_operator.planner.inventory.node_reading import NodeReading, read_node
from vllm_operator.planner.inventory.pool import GpuPool, Inventory
from vllm_operator.planner.inventory.pools import Requests, assemble
from vllm_operator.planner.inventory.profiles import AcceleratorProfile
from vllm_operator.planner.inventory.quota import quota_left

_SLICE: Final = 64
"""Nodes that are read at a time: some milliseconds."""


class ClusterInventory:
    """What is known of the cluster's accelerators. No call does I/O; it belongs to one event loop."""

    def __init__(self, cache: CacheView, profiles: Sequence[AcceleratorProfile], on_change: Callable[[], None]) -> None:
        """``on_change`` is called when services should look again at what ``inventory`` returns.

        The nodes that the cache holds when it is asked first are known; of later ones ``node_changed`` must tell.
        """
        self._cache = cache
        self._profiles = tuple(profiles)
        self._on_change = on_change
        self._readings: dict[str, NodeReading] = {}
        self._unread: set[str] = set()
        self._requests: Requests = {}
        self._sliced: Mapping[str, NodeGpus] = {}
        self._to_come: tuple[GpuPool, ...] = ()
        self._quotas: Mapping[str, Sequence[Mapping[str, Any]]] = {}
        self._leader_worker_set = False
        self._current: Inventory | None = None
        self._outdated = True
        self._behind = asyncio.Event()
        """Set while more nodes are unread than one call reads."""

    def inventory(self) -> Inventory:
        """The pools of all accelerators. The same object until something changes."""
        if not self._outdated and self._current is not None:
            return self._current
        if self._current is None:
            self._unread.update(node["metadata"]["name"] for node in self._cache.list(NODE.kind))
        elif len(self._unread) > _SLICE:
            self._behind.set()
            return self._current
        self._read(len(self._unread))
        return self._assemble()

    def quota_left(self, namespace: str, resource_name: str) -> int | None:
        """Accelerators that the namespace's ResourceQuotas leave; None: no quota, or not known."""
        return quota_left(self._quotas.get(namespace, ()), resource_name)

    @property
    def leader_worker_set(self) -> bool:
        """Whether the cluster has LeaderWorkerSets."""
        return self._leader_worker_set

    @property
    def nodes_with_accelerators(self) -> tuple[str, ...]:
        """Names of the nodes that are in a pool, sorted."""
        self.inventory()
        return tuple(sorted(name for name, reading in self._readings.items() if reading.offers))

    def node_changed(self, name: str) -> None:
        """The cache took a new state of a node, or dropped it."""
        self._unread.add(name)
        self._outdated = True

    def take_requests(self, requests: Requests) -> bool:
        """Accelerators that pods ask for, by node; nodes that are absent are unknown. True: that is news."""
        if requests == self._requests:
            return False
        self._requests = requests
        self._outdated = True
        return True

    def take_node_pools(self, node_pools: Sequence[Manifest]) -> bool:
        """Karpenter's NodePools. True: that is news."""
        to_come = pools_to_come(node_pools)
        if to_come == self._to_come:
            return False
        self._to_come = to_come
        self._outdated = True
        return True

    def take_sliced(self, sliced: Mapping[str, NodeGpus]) -> bool:
        """GPUs by node, from ResourceSlices. True: that is news."""
        if sliced == self._sliced:
            return False
        names = sliced.keys() | self._sliced.keys()
        self._unread.update(name for name in names if sliced.get(name) != self._sliced.get(name))
        self._sliced = dict(sliced)
        self._outdated = True
        return True

    def take_quotas(self, quotas: Mapping[str, Sequence[Mapping[str, Any]]]) -> bool:
        """ResourceQuotas by namespace; namespaces that are absent are unknown. True: that is news."""
        if quotas == self._quotas:
            return False
        self._quotas = dict(quotas)
        return True

    def take_leader_worker_set(self, present: bool) -> bool:
        """Whether the cluster has LeaderWorkerSets. True: that is news."""
        changed = present is not self._leader_worker_set
        self._leader_worker_set = present
        return changed

    async def read_all(self) -> Inventory:
        """Read every node that changed, in slices between which others run."""
        if self._current is None:
            self._unread.update(node["metadata"]["name"] for node in self._cache.list(NODE.kind))
        while len(self._unread) > _SLICE:
            self._read(_SLICE)
            await asyncio.sleep(0)
        self._read(len(self._unread))
        self._behind.clear()
        return self._assemble()

    async def run(self) -> None:
        """Catch up when many nodes changed at once, for ever."""
        while True:
            await self._behind.wait()
            before = self._current
            if await self.read_all() is not before:
                self._on_change()

    def _read(self, number: int) -> None:
        for _ in range(number):
            name = self._unread.pop()
            node = self._cache.get(ObjectRef(NODE.kind, "", name))
            if node is None:
                self._readings.pop(name, None)
            else:
                self._readings[name] = read_node(node, self._profiles, self._sliced.get(name))

    def _assemble(self) -> Inventory:
        found = assemble(self._readings.values(), self._requests, self._profiles, self._to_come)
        if found != self._current:
            self._current = found
        self._outdated = False
        assert self._current is not None
        return self._current
