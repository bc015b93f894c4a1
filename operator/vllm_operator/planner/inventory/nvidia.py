"""NVIDIA: labels of GPU feature discovery (GFD, part of k8s-device-plugin) and of the GPU operator's MIG manager.

Names and meaning: https://github.com/NVIDIA/k8s-device-plugin/blob/main/docs/gpu-feature-discovery/README.md.
``nvidia.com/gpu.memory`` is MiB per GPU, and of a slice where slices are GPUs (``mig.strategy=single``).
"""

from __future__ import annotations

from typing import Final

from vllm_operator.planner.inventory.products import is_memory_of, is_mig, is_part, products_named
from vllm_operator.planner.inventory.reading import (
    Described,
    Labels,
    Refusal,
    memory_label,
    mig_slice_mib,
    required,
    shown,
    whole_number,
)

GPU_RESOURCE: Final = "nvidia.com/gpu"
PRODUCT_LABEL: Final = "nvidia.com/gpu.product"
MEMORY_LABEL: Final = "nvidia.com/gpu.memory"
GPU_TAINT: Final = "nvidia.com/gpu"
MIG_PREFIX: Final = "nvidia.com/mig-"
_MIG_STATE_LABEL: Final = "nvidia.com/mig.config.state"
_MIG_CHANGING: Final = frozenset({"pending", "rebooting"})
_VGPU_LABEL: Final = "nvidia.com/vgpu.present"
_INVALID_SUFFIX: Final = "-MIG-INVALID"
SHARED: Final = ".shared"
"""Ending of a resource that is renamed where it is shared (``renameByDefault``)."""
_MAX_CLIENTS: Final = 1024
"""Replicas of a shared GPU beyond which the label is no number to divide by; MPS itself allows 48 clients."""


def describe(labels: Labels, resource_name: str, gpus: int) -> Described | Refusal | None:
    """The GPU (or slice) behind a resource of NVIDIA's device plugin, of which the node offers ``gpus``."""
    state = labels.get(_MIG_STATE_LABEL, "")
    if state in _MIG_CHANGING:
        return Refusal(f"is being cut into MIG slices ({_MIG_STATE_LABEL}={state})", unlabelled=False)
    prefix = resource_name.removesuffix(SHARED)
    if prefix.startswith(MIG_PREFIX):
        return _slice(labels, prefix)
    product = labels.get(f"{prefix}.product", "")
    if not product:
        return None
    if product.endswith(_INVALID_SUFFIX):
        return Refusal(f"has an invalid MIG configuration ({prefix}.product={shown(product)})", unlabelled=False)
    memory_mib = memory_label(labels, f"{prefix}.memory")
    if isinstance(memory_mib, Refusal):
        return memory_mib
    replicas = max(whole_number(labels.get(f"{prefix}.replicas", "1")) or 1, 1)
    strategy = labels.get(f"{prefix}.sharing-strategy", "none") or "none"
    shared = strategy != "none" or replicas > 1 or resource_name.endswith(SHARED) or product.endswith("-SHARED")
    contradiction = _contradiction(labels, prefix, product, memory_mib, gpus if not shared else 0)
    if contradiction is not None and strategy != "mps":
        return contradiction
    return Described(
        product=product,
        memory_mib=memory_mib,
        divide_by=_parts(product, memory_mib, replicas) if strategy == "mps" else 1,
        compute_capability=_capability(labels),
        single=shared or is_part(product),
        link="unknown" if labels.get(_VGPU_LABEL) == "true" else None,
        requirements=required(labels, f"{prefix}.product"),
    )


def memory_requirement_key(resource_name: str) -> str:
    """The label that tells GPUs of one product apart by their memory."""
    return f"{resource_name.removesuffix(SHARED)}.memory"


def product_requirement_key(resource_name: str) -> str:
    """The label that names the product behind a resource."""
    return f"{resource_name.removesuffix(SHARED)}.product"


def _slice(labels: Labels, prefix: str) -> Described | Refusal | None:
    """A MIG slice that has a resource of its own (``mig.strategy=mixed``)."""
    slice_name = prefix.removeprefix(MIG_PREFIX)
    whole = labels.get(PRODUCT_LABEL, "")
    product = labels.get(f"{prefix}.product", "") or (f"{whole}-MIG-{slice_name}" if whole else "")
    if not product:
        return None
    memory_mib = memory_label(labels, f"{prefix}.memory")
    if isinstance(memory_mib, Refusal):
        return memory_mib
    return Described(
        product=product if is_mig(product) else f"{product}-MIG-{slice_name}",
        memory_mib=memory_mib or mig_slice_mib(slice_name),
        compute_capability=_capability(labels),
        single=True,
        requirements=required(labels, f"{prefix}.product") or required(labels, PRODUCT_LABEL),
    )


def _contradiction(labels: Labels, prefix: str, product: str, memory_mib: int, gpus: int) -> Refusal | None:
    """``gpus``: offered by the node; 0 where that is no number of boards."""
    known = products_named(product)
    if memory_mib and known and not is_mig(product) and not any(is_memory_of(each, memory_mib) for each in known):
        return Refusal(
            f"has labels that contradict each other: {prefix}.memory={memory_mib} MiB, but {shown(product)} has "
            f"{known[0].label_mib} MiB"
        )
    counted = whole_number(labels.get(f"{prefix}.count"))
    if counted and gpus > counted:
        # GFD labels one of several products, and counts that one only ("Multiple device types detected").
        return Refusal(
            f"offers {gpus} {prefix}, but its labels describe {counted} of them ({product}): it has GPUs of "
            "different kinds behind one resource"
        )
    return None


def _parts(product: str, memory_mib: int, replicas: int) -> int:
    """MPS gives each client a fixed part of the memory; a label far below the product's is such a part already."""
    known = products_named(product)
    if memory_mib and known and not any(is_memory_of(each, memory_mib) for each in known):
        return 1
    return min(replicas, _MAX_CLIENTS)


def _capability(labels: Labels) -> tuple[int, int] | None:
    major = whole_number(labels.get("nvidia.com/gpu.compute.major"))
    minor = whole_number(labels.get("nvidia.com/gpu.compute.minor", "0"))
    return (major, minor) if major and minor is not None else None
