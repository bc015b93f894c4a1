"""One node as the inventory sees it: what it offers to which pool, or why it is left out. Kept per node by callers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Final

from vllm_operator.planner.device import Device, Vendor
from vllm_operator.planner.inventory import amd, clouds, gaudi, intel, nvidia
from vllm_operator.planner.inventory.dra import NodeGpus
from vllm_operator.planner.inventory.nodes import (
    Manifest,
    cpu_millis,
    lasting_taints,
    looks_like_accelerator,
    memory_bytes,
    offered,
    vendor_by_prefix,
    vendor_of,
    why_unusable,
)
from vllm_operator.planner.inventory.pool import LabelRequirement, LeftOutNode, Link, Taint
from vllm_operator.planner.inventory.products import link_of, products_named
from vllm_operator.planner.inventory.profiles import AcceleratorProfile
from vllm_operator.planner.inventory.reading import Described, Labels, Refusal, shown
from vllm_operator.planner.inventory.usable import usable_bytes

_DESCRIBE: Final = {
    "nvidia": nvidia.describe,
    "amd": amd.describe,
    "intel": intel.describe,
    "habana": gaudi.describe,
}
_WHOLE: Final = frozenset({nvidia.GPU_RESOURCE, amd.GPU_RESOURCE, "habana.ai/gaudi"})
"""Resources of whole accelerators, of which a cloud's labels speak."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolKey:
    """Nodes with an equal one are in one pool."""

    resource_name: str
    product: str
    device: Device
    usable_bytes: int
    gpus_per_node: int
    single: bool
    link: Link
    requirements: tuple[LabelRequirement, ...]
    taints: tuple[Taint, ...]
    price: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What one node offers of one resource."""

    key: PoolKey
    exact: tuple[tuple[str, str], ...]
    """Labels with product and memory that NVIDIA's GPU feature discovery put on the node: they tell it from nodes that
    the provisioner's labels do not tell apart."""
    profile: str
    """Name of the profile that describes the node; empty: none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeReading:
    """Everything that the inventory needs of one node."""

    name: str
    resources: tuple[str, ...] = ()
    """Those that look like accelerators, sorted."""
    offers: tuple[Offer, ...] = ()
    left_out: tuple[LeftOutNode, ...] = ()
    cpu_millis: int = 0
    memory_bytes: int = 0


def read_node(
    node: Manifest, profiles: Sequence[AcceleratorProfile] = (), sliced: NodeGpus | None = None
) -> NodeReading:
    """Read one node. ``sliced``: its GPUs as ResourceSlices list them, if they do. Never raises on odd labels."""
    name = str(node["metadata"]["name"])
    numbers = offered(node)
    profiled = {profile.resource_name for profile in profiles}
    resources = sorted(each for each in numbers if each in profiled or looks_like_accelerator(each))
    if not resources:
        return NodeReading(name=name)
    labels: Labels = node["metadata"].get("labels") or {}
    unusable = why_unusable(node)
    taints = lasting_taints(node)
    offers: list[Offer] = []
    left_out: list[LeftOutNode] = []
    for resource_name in resources:
        found: Offer | Refusal | None
        if unusable is not None:
            found = Refusal(unusable, unlabelled=False)
        elif numbers[resource_name] < 1:
            found = Refusal(f"has {resource_name}, but none that is healthy (allocatable is 0)", unlabelled=False)
        else:
            profile = next((each for each in profiles if each.describes(resource_name, labels)), None)
            found = _offer(resource_name, numbers[resource_name], labels, taints, profile, sliced)
        if isinstance(found, Offer):
            offers.append(found)
        elif found is not None:
            left_out.append(
                LeftOutNode(name=name, why=found.why, unlabelled=found.unlabelled, resource_name=resource_name)
            )
    return NodeReading(
        name=name,
        resources=tuple(resources),
        offers=tuple(offers),
        left_out=tuple(left_out),
        cpu_millis=cpu_millis(node),
        memory_bytes=memory_bytes(node),
    )


def _offer(
    resource_name: str,
    gpus: int,
    labels: Labels,
    taints: tuple[Taint, ...],
    profile: AcceleratorProfile | None,
    sliced: NodeGpus | None,
) -> Offer | Refusal | None:
    """None for a resource that looks like an accelerator and is none that is known here."""
    vendor = vendor_of(resource_name)
    if vendor is None and profile is None:
        return None
    described = _describe(vendor, resource_name, gpus, labels, profile)
    if isinstance(described, Described) and sliced is not None and resource_name == nvidia.GPU_RESOURCE:
        described = _with_slices(described, sliced, profile)
    if isinstance(described, Refusal):
        return described
    usable = profile.usable_bytes if profile is not None else 0
    usable = (usable or usable_bytes(described.product, described.memory_mib)) // described.divide_by
    if not usable:
        return Refusal(
            f"has the product {shown(described.product)}, whose memory no label states and no table here knows"
        )
    key = PoolKey(
        resource_name=resource_name,
        product=described.product,
        device=Device(
            vendor=vendor or vendor_by_prefix(resource_name),
            compute_capability=described.compute_capability or _capability(described.product),
        ),
        usable_bytes=usable,
        gpus_per_node=gpus,
        single=described.single,
        link="unknown" if described.single else described.link or link_of(described.product),
        requirements=clouds.provisioner_requirements(labels)
        or described.requirements
        or (profile.requirements if profile else ()),
        taints=taints,
        price=profile.price if profile is not None else 0.0,
    )
    return Offer(key=key, exact=_exact(resource_name, labels), profile=profile.name if profile is not None else "")


def _describe(
    vendor: Vendor | None, resource_name: str, gpus: int, labels: Labels, profile: AcceleratorProfile | None
) -> Described | Refusal:
    described: Described | Refusal | None = None
    if vendor is not None:
        described = _DESCRIBE[vendor](labels, resource_name, gpus)
        if described is None and resource_name in _WHOLE:
            described = clouds.describe(labels, vendor, gpus)
    if profile is None:
        return described or Refusal(f"has no label that says which product its {resource_name} is")
    if isinstance(described, Refusal) and not described.unlabelled:
        return described
    if not isinstance(described, Described):
        described = Described(product=profile.product, single=profile.single, requirements=profile.requirements)
    return replace(
        described,
        memory_mib=profile.memory_mib or described.memory_mib,
        compute_capability=profile.compute_capability or described.compute_capability,
        link=profile.link or described.link,
    )


def _with_slices(described: Described, sliced: NodeGpus, profile: AcceleratorProfile | None) -> Described | Refusal:
    """The driver's own numbers in place of labels; a profile still wins over them."""
    if profile is not None or described.single:
        return described
    if len(sliced.kinds) > 1:
        kinds = ", ".join(sorted({kind.product for kind in sliced.kinds})[:4])
        return Refusal(f"has GPUs of different kinds behind one resource, says its ResourceSlice: {kinds}")
    (gpu,) = sliced.kinds
    return replace(
        described,
        memory_mib=gpu.memory_mib,
        compute_capability=gpu.compute_capability if gpu.compute_capability > (0, 0) else described.compute_capability,
    )


@lru_cache(maxsize=512)
def _capability(product: str) -> tuple[int, int] | None:
    capabilities = {known.compute_capability for known in products_named(product)}
    return capabilities.pop() if len(capabilities) == 1 else None


def _exact(resource_name: str, labels: Labels) -> tuple[tuple[str, str], ...]:
    keys = (nvidia.product_requirement_key(resource_name), nvidia.memory_requirement_key(resource_name))
    return tuple((key, labels[key]) for key in keys if labels.get(key))


def sort_key(key: PoolKey) -> tuple[Any, ...]:
    """A total order of pools: by resource, then the smaller first."""
    return (
        key.resource_name,
        key.usable_bytes,
        key.product,
        key.gpus_per_node,
        key.single,
        key.link,
        key.requirements,
        key.taints,
        key.price,
        key.device.vendor,
        key.device.compute_capability or (0, 0),
    )
