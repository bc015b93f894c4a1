"""Labels that clouds and provisioners put on GPU nodes, whether or not the vendor's own labels are there.

- GKE: https://cloud.google.com/kubernetes-engine/docs/how-to/gpus, ``gpus-multi`` and ``timesharing-gpus``.
- Karpenter on AWS: https://karpenter.sh/docs/concepts/scheduling (``instance-gpu-memory`` is MiB per GPU);
  EKS Auto Mode has the same labels under ``eks.amazonaws.com``.
- Karpenter on Azure: https://github.com/Azure/karpenter-provider-azure, ``karpenter.azure.com/sku-gpu-name``.
- CoreWeave: ``gpu.nvidia.com/class``, ``model`` and ``vram`` (GB).
- All of them: ``node.kubernetes.io/instance-type``.
"""

from __future__ import annotations

from typing import Final

from vllm_operator.planner.inventory.instance_types import INSTANCE_TYPES
from vllm_operator.planner.inventory.pool import LabelRequirement
from vllm_operator.planner.inventory.products import Product, is_memory_of, product_named, products_named, same_memory
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

INSTANCE_TYPE_LABEL: Final = "node.kubernetes.io/instance-type"
GKE_ACCELERATOR_LABEL: Final = "cloud.google.com/gke-accelerator"
_GKE_PARTITION_LABEL: Final = "cloud.google.com/gke-gpu-partition-size"
_GKE_SHARING_LABEL: Final = "cloud.google.com/gke-gpu-sharing-strategy"
_GKE_CLIENTS_LABEL: Final = "cloud.google.com/gke-max-shared-clients-per-gpu"
AWS_PREFIXES: Final = ("karpenter.k8s.aws/", "eks.amazonaws.com/")
AZURE_GPU_NAME_LABEL: Final = "karpenter.azure.com/sku-gpu-name"
_COREWEAVE_LABELS: Final = ("gpu.nvidia.com/class", "gpu.nvidia.com/model")
_COUNT_LABELS: Final = (
    "cloud.google.com/gke-accelerator-count",
    *(f"{prefix}instance-gpu-count" for prefix in AWS_PREFIXES),
    "karpenter.azure.com/sku-gpu-count",
    "gpu.nvidia.com/count",
)
_MAX_CLIENTS: Final = 48
"""Of one GPU that GKE shares."""


def provisioner_requirements(labels: Labels) -> tuple[LabelRequirement, ...]:
    """Labels of the node in the names of the provisioner that made it; empty when none of those known did."""
    if labels.get(GKE_ACCELERATOR_LABEL):
        return required(labels, GKE_ACCELERATOR_LABEL, _GKE_PARTITION_LABEL, _GKE_SHARING_LABEL)
    for prefix in AWS_PREFIXES:
        if labels.get(f"{prefix}instance-gpu-name"):
            # ``a100`` is one name for 40 and 80 GB.
            return required(labels, f"{prefix}instance-gpu-name", f"{prefix}instance-gpu-memory")
    if labels.get(AZURE_GPU_NAME_LABEL):
        known = same_memory(products_named(labels[AZURE_GPU_NAME_LABEL]))
        return required(labels, AZURE_GPU_NAME_LABEL, *(() if known else (INSTANCE_TYPE_LABEL,)))
    return ()


def describe(labels: Labels, vendor: str, gpus: int) -> Described | Refusal | None:
    """What the cloud's labels say of the node's whole accelerators of this vendor, of which it offers ``gpus``."""
    described = _describe(labels, vendor)
    boards = _boards(labels)
    if isinstance(described, Described) and not described.single and boards and gpus > boards:
        return Refusal(
            f"offers {gpus} GPUs, but has {boards}: they are shared or cut into slices, and no label says how "
            "(NVIDIA's GPU feature discovery would)"
        )
    return described


def _describe(labels: Labels, vendor: str) -> Described | Refusal | None:
    if vendor == "nvidia" and labels.get(GKE_ACCELERATOR_LABEL):
        return _gke(labels)
    instance = INSTANCE_TYPES.get(labels.get(INSTANCE_TYPE_LABEL, ""))
    if instance is not None:
        product = product_named(instance.product)
        if product is not None and product.vendor == vendor:
            return _of(product, labels, (INSTANCE_TYPE_LABEL,))
    if vendor != "nvidia":
        return None
    for prefix in AWS_PREFIXES:
        if labels.get(f"{prefix}instance-gpu-name"):
            return _named(labels, f"{prefix}instance-gpu-name", f"{prefix}instance-gpu-memory")
    if labels.get(AZURE_GPU_NAME_LABEL):
        return _named(labels, AZURE_GPU_NAME_LABEL)
    key = next((key for key in _COREWEAVE_LABELS if labels.get(key)), None)
    return None if key is None else _coreweave(labels, key)


def _boards(labels: Labels) -> int:
    """GPUs of the machine; 0 when nothing says."""
    instance = INSTANCE_TYPES.get(labels.get(INSTANCE_TYPE_LABEL, ""))
    if instance is not None:
        return instance.gpus
    return next((whole_number(labels[key]) or 0 for key in _COUNT_LABELS if key in labels), 0)


def _gke(labels: Labels) -> Described | Refusal:
    named = _named(labels, GKE_ACCELERATOR_LABEL)
    partition = labels.get(_GKE_PARTITION_LABEL, "")
    if isinstance(named, Refusal) or not (partition or labels.get(_GKE_SHARING_LABEL)):
        return named
    strategy = labels.get(_GKE_SHARING_LABEL, "")
    clients = min(max(whole_number(labels.get(_GKE_CLIENTS_LABEL, "1")) or 1, 1), _MAX_CLIENTS)
    memory_mib = mig_slice_mib(partition) if partition else named.memory_mib
    if not memory_mib:
        return Refusal(f"has the label {_GKE_PARTITION_LABEL}={shown(partition)}, which is no size of a MIG slice")
    return Described(
        product=named.product + (f"-MIG-{partition}" if partition else "-SHARED"),
        memory_mib=memory_mib,
        divide_by=clients if strategy == "mps" else 1,
        compute_capability=named.compute_capability,
        single=True,
        link=named.link,
    )


def _named(labels: Labels, name_key: str, memory_key: str = "") -> Described | Refusal:
    memory_mib = memory_label(labels, memory_key) if memory_key else 0
    if isinstance(memory_mib, Refusal):
        return memory_mib
    name = labels[name_key]
    product = product_named(name, memory_mib)
    if product is not None:
        return _of(product, labels, (name_key,))
    several = products_named(name)
    if not several and memory_mib:
        return Described(product=name, memory_mib=memory_mib, requirements=required(labels, name_key, memory_key))
    if not several:
        return Refusal(f"has the label {name_key}={shown(name)}, a GPU that no table here knows")
    sizes = " or ".join(f"{size // 1024} GiB" for size in sorted({product.label_mib for product in several}))
    found = f"not {memory_mib} MiB" if memory_mib else "and nothing says which"
    return Refusal(f"has the label {name_key}={shown(name)}, which stands for GPUs of {sizes}, {found}")


def _coreweave(labels: Labels, key: str) -> Described | Refusal:
    vram_gb = whole_number(labels.get("gpu.nvidia.com/vram", "0"))
    if vram_gb is None:
        vram = labels["gpu.nvidia.com/vram"]
        return Refusal(f"has the label gpu.nvidia.com/vram={shown(vram)}, which is no memory size in GB")
    product = next(
        (each for each in products_named(labels[key]) if not vram_gb or is_memory_of(each, vram_gb * 1000)), None
    )
    if product is None:
        return Refusal(f"has the labels {key}={shown(labels[key])} and vram={vram_gb}, a GPU that no table here knows")
    return _of(product, labels, (key,))


def _of(product: Product, labels: Labels, keys: tuple[str, ...]) -> Described:
    return Described(
        product=product.name,
        memory_mib=product.label_mib,
        compute_capability=product.compute_capability,
        link=product.link,
        requirements=required(labels, *keys),
    )
