"""The inventory of all accelerators at once: nodes in, pools out. One computation serves all services."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from vllm_operator.planner.device import Device
from vllm_operator.planner.inventory.dra import gpus_by_node
from vllm_operator.planner.inventory.karpenter import pools_to_come
from vllm_operator.planner.inventory.node_reading import NodeReading, Offer, PoolKey, read_node, sort_key
from vllm_operator.planner.inventory.nodes import Manifest, vendor_by_prefix
from vllm_operator.planner.inventory.pool import GpuPool, Inventory, LabelRequirement, LeftOutNode
from vllm_operator.planner.inventory.products import link_of, product_named
from vllm_operator.planner.inventory.profiles import AcceleratorProfile
from vllm_operator.planner.inventory.usable import usable_bytes

Requests = Mapping[str, Mapping[str, int]]
"""By node: how many of each extended resource its pods ask for that have not ended. An absent node is unknown."""


def inventory(
    nodes: Iterable[Manifest],
    requests: Requests,
    profiles: Sequence[AcceleratorProfile],
    node_pools: Sequence[Manifest] = (),
    resource_slices: Sequence[Manifest] = (),
) -> Inventory:
    """Group nodes into pools, and add those that profiles and Karpenter's NodePools say could be made.

    The same objects give an equal inventory, in whatever order they come. Odd labels never raise: they leave a node
    out, with the reason.
    """
    sliced = gpus_by_node(resource_slices)
    readings = [read_node(node, profiles, sliced.get(str(node["metadata"]["name"]))) for node in nodes]
    return assemble(readings, requests, profiles, pools_to_come(node_pools))


def for_resource(found: Inventory, resource_name: str) -> tuple[GpuPool, ...]:
    """The pools of one resource."""
    return tuple(pool for pool in found.pools if pool.resource_name == resource_name)


def left_out_of(found: Inventory, resource_name: str) -> tuple[LeftOutNode, ...]:
    """The nodes that offer one resource and are in no pool of it."""
    return tuple(node for node in found.left_out if node.resource_name == resource_name)


def assemble(
    readings: Iterable[NodeReading],
    requests: Requests,
    profiles: Sequence[AcceleratorProfile] = (),
    to_come: Sequence[GpuPool] = (),
) -> Inventory:
    """The inventory of nodes that are read already. ``to_come``: pools of zero nodes, in any order."""
    groups: dict[PoolKey, _Group] = {}
    left_out: list[LeftOutNode] = []
    resources: set[str] = set()
    described: set[str] = set()
    for reading in readings:
        resources.update(reading.resources)
        left_out.extend(reading.left_out)
        for offer in reading.offers:
            group = groups.get(offer.key)
            if group is None:
                group = groups[offer.key] = _Group()
            group.add(reading, offer, requests.get(reading.name))
            described.add(offer.profile)
    vague = _vague(groups)
    pools = [group.pool(key, exact=key in vague) for key, group in sorted(groups.items(), key=_by_key)]
    pools += _not_yet(pools, profiles, described, to_come)
    return Inventory(
        pools=tuple(pools),
        left_out=tuple(sorted(left_out, key=lambda node: (node.name, node.resource_name))),
        resources_seen=tuple(sorted(resources)),
    )


@dataclass(slots=True)
class _Group:
    """The nodes of one pool."""

    nodes: int = 0
    free: list[int] = field(default_factory=list)
    exact: set[tuple[tuple[str, str], ...]] = field(default_factory=set)
    cpu_millis: int = 0
    memory_bytes: int = 0

    def add(self, reading: NodeReading, offer: Offer, asked: Mapping[str, int] | None) -> None:
        if asked is not None:
            self.free.append(max(offer.key.gpus_per_node - asked.get(offer.key.resource_name, 0), 0))
        self.cpu_millis = min(self.cpu_millis, reading.cpu_millis) if self.nodes else reading.cpu_millis
        self.memory_bytes = min(self.memory_bytes, reading.memory_bytes) if self.nodes else reading.memory_bytes
        self.exact.add(offer.exact)
        self.nodes += 1

    def pool(self, key: PoolKey, *, exact: bool) -> GpuPool:
        return GpuPool(
            resource_name=key.resource_name,
            product=key.product,
            device=key.device,
            usable_bytes=key.usable_bytes,
            gpus_per_node=key.gpus_per_node,
            nodes=self.nodes,
            free_gpus_by_node=tuple(sorted(self.free, reverse=True)),
            single=key.single,
            link=key.link,
            requirements=self._exact_requirements(key.requirements) if exact else key.requirements,
            taints=key.taints,
            cpu_millis_per_node=self.cpu_millis,
            memory_bytes_per_node=self.memory_bytes,
            price=key.price,
        )

    def _exact_requirements(self, requirements: tuple[LabelRequirement, ...]) -> tuple[LabelRequirement, ...]:
        """With the labels that all nodes of the pool have and others lack."""
        values: dict[str, set[str]] = {}
        for labels in self.exact:
            for key, value in labels:
                values.setdefault(key, set()).add(value)
        everywhere = [key for key in values if all(key in dict(labels) for labels in self.exact)]
        known = {requirement.key for requirement in requirements}
        return requirements + tuple(
            LabelRequirement(key=key, values=tuple(sorted(values[key])))
            for key in sorted(everywhere, reverse=True)
            if key not in known
        )


def _by_key(item: tuple[PoolKey, _Group]) -> tuple[Any, ...]:
    return sort_key(item[0])


def _vague(groups: Iterable[PoolKey]) -> set[PoolKey]:
    """Pools whose first requirement also selects nodes with other GPUs: ``a100`` whole and cut into slices."""
    alike: dict[tuple[str, tuple[LabelRequirement, ...]], list[PoolKey]] = {}
    for key in groups:
        alike.setdefault((key.resource_name, key.requirements[:1]), []).append(key)
    return {
        key
        for keys in alike.values()
        if len({(each.product, each.usable_bytes, each.single) for each in keys}) > 1
        for key in keys
    }


def _not_yet(
    existing: Sequence[GpuPool],
    profiles: Sequence[AcceleratorProfile],
    described: set[str],
    to_come: Sequence[GpuPool],
) -> list[GpuPool]:
    """Pools of zero nodes, unless nodes like theirs exist."""
    from_profiles = [_from_profile(each) for each in profiles if each.count and each.name not in described]
    present = {_kind(pool) for pool in (*existing, *from_profiles)}
    found = [*from_profiles, *(pool for pool in to_come if _kind(pool) not in present)]
    return sorted(
        found,
        key=lambda pool: (
            pool.resource_name,
            pool.usable_bytes,
            pool.product,
            pool.gpus_per_node,
            pool.requirements,
            pool.taints,
            pool.price,
        ),
    )


def _kind(pool: GpuPool) -> tuple[str, str, int, bool]:
    known = product_named(pool.product)
    return pool.resource_name, pool.product if known is None else known.name, pool.gpus_per_node, pool.single


def _from_profile(profile: AcceleratorProfile) -> GpuPool:
    known = product_named(profile.product, profile.memory_mib)
    vendor = vendor_by_prefix(profile.resource_name)
    return GpuPool(
        resource_name=profile.resource_name,
        product=profile.product,
        device=Device(
            vendor=vendor,
            compute_capability=profile.compute_capability or (known.compute_capability if known else None),
        ),
        usable_bytes=profile.usable_bytes or usable_bytes(profile.product, profile.memory_mib),
        gpus_per_node=profile.count,
        nodes=0,
        single=profile.single,
        link="unknown" if profile.single else profile.link or link_of(profile.product),
        requirements=profile.requirements,
        taints=profile.taints,
        price=profile.price,
    )
