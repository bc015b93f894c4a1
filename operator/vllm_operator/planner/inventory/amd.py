"""AMD: labels of the node labeller of ROCm/k8s-device-plugin.

Names and meaning: https://github.com/ROCm/k8s-device-plugin (README, ``cmd/k8s-node-labeller``). A node with GPUs of
different kinds has counters (``beta.amd.com/gpu.vram.64G=4``) and no plain labels. Which labels there are depends on
the labeller's flags. With the naming strategy ``mixed`` a partition has a resource of its own: ``amd.com/cpx_nps4``.
"""

from __future__ import annotations

import re
from typing import Final

from vllm_operator.planner.inventory.products import is_memory_of, product_named
from vllm_operator.planner.inventory.reading import MAX_MEMORY_MIB, Described, Labels, Refusal, required, shown

GPU_RESOURCE: Final = "amd.com/gpu"
_PREFIXES: Final = ("amd.com/gpu.", "beta.amd.com/gpu.")
_PARTITION_LABEL: Final = "amd.com/compute-memory-partition"
_PARTITION: Final = re.compile(r"^(spx|dpx|tpx|qpx|cpx)_nps[0-9]$")
_DEVICES_PER_GPU: Final = {"spx": 1, "dpx": 2, "tpx": 3, "qpx": 4, "cpx": 8}
"""Devices that one GPU becomes. CPX: one for each of the eight compute dies of an MI300X (six of an MI300A: then a
little memory is left unused)."""
_VRAM: Final = re.compile(r"^([0-9]{1,4})G$")
_PRODUCT_BY_DEVICE_ID: Final = {
    "740f": "AMD_Instinct_MI210",
    "740c": "AMD_Instinct_MI250",
    "7408": "AMD_Instinct_MI250X",
    "74a0": "AMD_Instinct_MI300A",
    "74a1": "AMD_Instinct_MI300X_OAM",
    "74a2": "AMD_Instinct_MI308X",
    "74a5": "AMD_Instinct_MI325X_OAM",
    "75a0": "AMD_Instinct_MI350X_OAM",
    "75a3": "AMD_Instinct_MI355X_OAM",
}
"""PCI device ids, from https://pci-ids.ucw.cz/read/PC/1002."""


def describe(labels: Labels, resource_name: str, gpus: int) -> Described | Refusal | None:
    """The GPU behind a resource of AMD's device plugin, of which the node offers ``gpus``."""
    product_label = _plain(labels, "product-name")
    id_label = _plain(labels, "device-id")
    name = labels.get(product_label, "") or _PRODUCT_BY_DEVICE_ID.get(
        labels.get(id_label, "").casefold().removeprefix("0x"), ""
    )
    if not name:
        kinds = _counted(labels, "product-name") or _counted(labels, "device-id")
        if len(kinds) > 1:
            return Refusal(f"offers {gpus} {resource_name} of different kinds: {', '.join(kinds[:4])}")
        return None
    memory_mib = _vram_mib(labels)
    if isinstance(memory_mib, Refusal):
        return memory_mib
    partition = _partition(labels, resource_name)
    product = product_named(name)
    whole = product is None or not memory_mib or is_memory_of(product, memory_mib)
    if product is not None and not whole and partition == "spx":
        return Refusal(
            f"has labels that contradict each other: {memory_mib // 1024} GiB of vram, but {shown(name)} has "
            f"{product.label_mib // 1024} GiB"
        )
    return Described(
        product=name if partition == "spx" else f"{name}-{partition.upper()}",
        memory_mib=memory_mib or (product.label_mib if product else 0),
        divide_by=_DEVICES_PER_GPU[partition] if whole else 1,
        link=product.link if product else None,
        requirements=required(labels, product_label if labels.get(product_label) else id_label)
        + (required(labels, _PARTITION_LABEL) if partition != "spx" else ()),
    )


def _plain(labels: Labels, name: str) -> str:
    return next((prefix + name for prefix in _PREFIXES if labels.get(prefix + name)), _PREFIXES[0] + name)


def _counted(labels: Labels, name: str) -> list[str]:
    found = {key[len(start) :] for prefix in _PREFIXES for key in labels if key.startswith(start := f"{prefix}{name}.")}
    return sorted(found)


def _vram_mib(labels: Labels) -> int | Refusal:
    key = _plain(labels, "vram")
    text = labels.get(key)
    if text is None:
        return 0
    match = _VRAM.match(text)
    memory_mib = int(match[1]) * 1024 if match else 0
    if not 0 < memory_mib <= MAX_MEMORY_MIB:
        return Refusal(f"has the label {key}={shown(text)}, which is no memory size such as 192G")
    return memory_mib


def _partition(labels: Labels, resource_name: str) -> str:
    for text in (resource_name.partition("/")[2], labels.get(_PARTITION_LABEL, "")):
        match = _PARTITION.match(text)
        if match is not None:
            return match[1]
    return "spx"
