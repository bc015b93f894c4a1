"""Dynamic resource allocation: GPUs that NVIDIA's driver (``gpu.nvidia.com``) lists in ResourceSlices.

Exact where the labels are not: each device has its own product, memory and compute capability. Only the source of
facts; pods still ask for the extended resource. Format: ``resource.k8s.io/v1`` (``v1beta1`` nests a device under
``basic``), attributes of https://github.com/kubernetes-sigs/dra-driver-nvidia-gpu.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from vllm_operator.planner.inventory.reading import MAX_MEMORY_MIB
from vllm_operator_api.quantities import BYTES_PER_MIB, parse_bytes

DRIVER: Final = "gpu.nvidia.com"
_VERSION: Final = re.compile(r"^([0-9]{1,2})\.([0-9]{1,2})(?:\.|$)")
_MAX_QUANTITY: Final = 24


@dataclass(frozen=True, slots=True, order=True)
class SlicedGpu:
    """One whole GPU of a ResourceSlice."""

    product: str
    """As nvidia-smi prints it, with ``-`` for spaces."""
    memory_mib: int
    compute_capability: tuple[int, int]
    """(0, 0): not listed."""


@dataclass(frozen=True, slots=True)
class NodeGpus:
    """The whole GPUs of one node by kind, sorted; one kind where all are alike."""

    kinds: tuple[SlicedGpu, ...]


def gpus_by_node(resource_slices: Iterable[Mapping[str, Any]]) -> dict[str, NodeGpus]:
    """The GPUs of each node that ResourceSlices tell of. Slices of an older generation of a pool are left out."""
    newest: dict[tuple[str, str], int] = {}
    slices: list[tuple[str, str, int, Any]] = []
    for resource_slice in resource_slices:
        spec = _mapping(resource_slice.get("spec"))
        node, pool = spec.get("nodeName"), _mapping(spec.get("pool"))
        if spec.get("driver") != DRIVER or not isinstance(node, str) or not node:
            continue
        name, generation = str(pool.get("name", "")), pool.get("generation", 0)
        generation = generation if isinstance(generation, int) else 0
        newest[node, name] = max(newest.get((node, name), 0), generation)
        slices.append((node, name, generation, spec.get("devices")))
    found: dict[str, set[SlicedGpu]] = {}
    for node, name, generation, devices in slices:
        if generation < newest[node, name] or not isinstance(devices, list):
            continue
        for device in devices:
            gpu = _gpu(_mapping(device))
            if gpu is not None:
                found.setdefault(node, set()).add(gpu)
    return {node: NodeGpus(tuple(sorted(kinds))) for node, kinds in found.items()}


def _gpu(device: Mapping[str, Any]) -> SlicedGpu | None:
    device = _mapping(device.get("basic")) or device
    attributes = _mapping(device.get("attributes"))
    if _text(attributes, "type", "string") != "gpu":
        return None
    product = _text(attributes, "productName", "string").replace(" ", "-")
    memory_mib = _memory_mib(_mapping(_mapping(device.get("capacity")).get("memory")).get("value"))
    if not product or not memory_mib:
        return None
    version = _VERSION.match(_text(attributes, "cudaComputeCapability", "version"))
    return SlicedGpu(product, memory_mib, (int(version[1]), int(version[2])) if version else (0, 0))


def _memory_mib(quantity: object) -> int:
    text = str(quantity)
    if len(text) > _MAX_QUANTITY:
        return 0
    try:
        memory_mib = parse_bytes(text) // BYTES_PER_MIB
    except ValueError:
        return 0
    return memory_mib if memory_mib <= MAX_MEMORY_MIB else 0


def _text(attributes: Mapping[str, Any], name: str, kind: str) -> str:
    value = _mapping(attributes.get(name)).get(kind)
    return value if isinstance(value, str) else ""


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
