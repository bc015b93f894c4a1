"""What is known of accelerators by name: memory, compute capability, link.

Names are those of NVIDIA's GPU feature discovery (GFD): what nvidia-smi prints, with ``-`` for spaces. Sources:

- ``label_mib`` (memory as NVML reports it and GFD labels it) and ``usable_gib`` (CUDA's total, which is what vLLM's
  ``--gpu-memory-utilization`` is a share of) are from vLLM start-up logs and nvidia-smi listings that users published.
  Where no such log is known, ``usable_gib`` is None, and a factor by size is used (``usable.py``).
- Compute capabilities: NVIDIA's table, https://developer.nvidia.com/cuda-gpus.
- ``nvlink`` for boards on an NVSwitch or NVLink baseboard (SXM, HGX, NVL; AMD's OAM mesh; Gaudi's on-chip Ethernet),
  ``pcie`` for cards, from the vendors' data sheets. No label says so.
- Names in lower case are those of clouds: of GKE (https://cloud.google.com/kubernetes-engine/docs/how-to/gpus), of
  Karpenter's ``instance-gpu-name`` (https://karpenter.sh/docs/reference/instance-types), of CoreWeave's
  ``gpu.nvidia.com/class``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from vllm_operator.planner.device import Vendor
from vllm_operator.planner.inventory.pool import Link


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """One accelerator on the market."""

    name: str
    label_mib: int
    """Memory as the driver reports it."""
    usable_gib: float | None = None
    """Memory that an engine sees, measured; None: not known."""
    vendor: Vendor = "nvidia"
    compute_capability: tuple[int, int] | None = None
    link: Link = "pcie"
    aliases: tuple[str, ...] = ()


def _nvidia(
    name: str,
    label_mib: int,
    usable_gib: float | None,
    capability: tuple[int, int],
    link: Link,
    *aliases: str,
) -> Product:
    return Product(
        name=name,
        label_mib=label_mib,
        usable_gib=usable_gib,
        compute_capability=capability,
        link=link,
        aliases=aliases,
    )


def _other(vendor: Vendor, name: str, memory_gib: int, usable_gib: float | None, link: Link, *aliases: str) -> Product:
    return Product(
        name=name,
        label_mib=memory_gib * 1024,
        usable_gib=usable_gib,
        vendor=vendor,
        link=link,
        aliases=aliases,
    )


PRODUCTS: Final = (
    _nvidia("Tesla-P4", 7680, None, (6, 1), "pcie", "nvidia-tesla-p4", "p4"),
    _nvidia("Tesla-P100-PCIE-16GB", 16384, None, (6, 0), "pcie", "nvidia-tesla-p100", "p100"),
    _nvidia("Tesla-V100-SXM2-16GB", 16384, 15.77, (7, 0), "nvlink", "nvidia-tesla-v100", "v100", "tesla_v100_nvlink"),
    _nvidia("Tesla-V100-SXM2-32GB", 32768, None, (7, 0), "nvlink", "v100", "tesla-v100-sxm3-32gb"),
    _nvidia("Tesla-V100-PCIE-16GB", 16384, 15.77, (7, 0), "pcie", "tesla_v100_pcie"),
    _nvidia("Tesla-V100-PCIE-32GB", 32768, None, (7, 0), "pcie"),
    _nvidia("Tesla-T4", 15360, 14.56, (7, 5), "pcie", "nvidia-tesla-t4", "t4", "nvidia-t4"),
    _nvidia("Quadro-RTX-4000", 8192, None, (7, 5), "pcie", "quadro_rtx_4000"),
    _nvidia("Quadro-RTX-5000", 16384, None, (7, 5), "pcie", "quadro_rtx_5000"),
    _nvidia("NVIDIA-A100-SXM4-40GB", 40960, 39.39, (8, 0), "nvlink", "nvidia-tesla-a100", "a100", "a100_nvlink"),
    _nvidia("NVIDIA-A100-SXM4-80GB", 81920, 79.15, (8, 0), "nvlink", "nvidia-a100-80gb", "a100", "a100_nvlink_80gb"),
    _nvidia("NVIDIA-A100-PCIE-40GB", 40960, 39.39, (8, 0), "pcie", "a100", "a100_pcie_40gb"),
    _nvidia("NVIDIA-A100-80GB-PCIe", 81920, 79.15, (8, 0), "pcie", "a100", "a100_pcie_80gb"),
    _nvidia("NVIDIA-A800-SXM4-80GB", 81920, 79.15, (8, 0), "nvlink", "a800"),
    _nvidia("NVIDIA-A800-80GB-PCIe", 81920, 79.15, (8, 0), "pcie"),
    _nvidia("NVIDIA-A30", 24576, None, (8, 0), "pcie", "a30"),
    _nvidia("NVIDIA-A2", 15356, None, (8, 6), "pcie", "a2"),
    _nvidia("NVIDIA-A10", 23028, None, (8, 6), "pcie", "a10"),
    _nvidia("NVIDIA-A10G", 23028, 22.07, (8, 6), "pcie", "a10g"),
    _nvidia("NVIDIA-A16", 15356, None, (8, 6), "pcie", "a16"),
    _nvidia("NVIDIA-A40", 46068, None, (8, 6), "pcie", "a40"),
    _nvidia("NVIDIA-RTX-A4000", 16376, None, (8, 6), "pcie", "rtx_a4000"),
    _nvidia("NVIDIA-RTX-A5000", 24564, None, (8, 6), "pcie", "rtx_a5000"),
    _nvidia("NVIDIA-RTX-A6000", 49140, None, (8, 6), "pcie", "rtx_a6000"),
    _nvidia("NVIDIA-GeForce-RTX-3090", 24576, 23.6, (8, 6), "pcie", "rtx-3090"),
    _nvidia("NVIDIA-GeForce-RTX-4090", 24564, 23.55, (8, 9), "pcie", "rtx-4090"),
    _nvidia("NVIDIA-GeForce-RTX-5090", 32607, 31.36, (12, 0), "pcie", "rtx-5090"),
    _nvidia("NVIDIA-L4", 23034, 21.96, (8, 9), "pcie", "l4"),
    _nvidia("NVIDIA-L40", 46068, 44.4, (8, 9), "pcie", "l40"),
    _nvidia("NVIDIA-L40S", 46068, 44.4, (8, 9), "pcie", "l40s"),
    _nvidia("NVIDIA-RTX-6000-Ada-Generation", 49140, None, (8, 9), "pcie", "rtx-6000-ada"),
    _nvidia(
        "NVIDIA-RTX-PRO-6000-Blackwell-Server-Edition",
        97887,
        94.97,
        (12, 0),
        "pcie",
        "nvidia-rtx-pro-6000",
        "nvidia-rtx-pro-6000-blackwell-workstation-edition",
        "nvidia-rtx-pro-6000-blackwell-max-q-workstation-edition",
        "rtxp6000",
    ),
    _nvidia(
        "NVIDIA-H100-80GB-HBM3",
        81559,
        79.18,
        (9, 0),
        "nvlink",
        "nvidia-h100-80gb",
        "nvidia-h100-mega-80gb",
        "h100",
        "h100_nvlink_80gb",
        "h100-sxm5-80gb",
    ),
    _nvidia("NVIDIA-H100-PCIe", 81559, 79.18, (9, 0), "pcie", "h100_pcie"),
    _nvidia("NVIDIA-H100-NVL", 95830, None, (9, 0), "nvlink"),
    _nvidia("NVIDIA-H800", 81559, 79.18, (9, 0), "nvlink", "h800"),
    _nvidia("NVIDIA-H20", 97871, 95.0, (9, 0), "nvlink", "h20"),
    _nvidia("NVIDIA-H20-3e", 143771, 139.8, (9, 0), "nvlink"),
    _nvidia("NVIDIA-H200", 143771, 139.8, (9, 0), "nvlink", "nvidia-h200-141gb", "h200"),
    _nvidia("NVIDIA-H200-NVL", 143771, 139.8, (9, 0), "nvlink"),
    _nvidia("NVIDIA-GH200-480GB", 97871, None, (9, 0), "unknown", "gh200"),
    _nvidia("NVIDIA-B200", 183359, 178.36, (10, 0), "nvlink", "b200", "b200_180gb"),
    _nvidia("NVIDIA-GB200", 189471, 184.0, (10, 0), "nvlink", "gb200", "nvidia-gb200"),
    _nvidia("NVIDIA-B300-SXM6-AC", 275040, 267.7, (10, 3), "nvlink", "nvidia-b300", "b300"),
    _nvidia("NVIDIA-GB300", 284208, None, (10, 3), "nvlink", "gb300"),
    _other("amd", "AMD_Instinct_MI210", 64, None, "pcie", "mi210"),
    _other("amd", "AMD_Instinct_MI250", 64, None, "nvlink", "mi250"),
    _other("amd", "AMD_Instinct_MI250X", 64, None, "nvlink", "mi250x"),
    _other("amd", "AMD_Instinct_MI300A", 128, None, "nvlink", "mi300a"),
    _other("amd", "AMD_Instinct_MI300X_OAM", 192, 191.5, "nvlink", "mi300x"),
    _other("amd", "AMD_Instinct_MI308X", 192, None, "nvlink", "mi308x"),
    _other("amd", "AMD_Instinct_MI325X_OAM", 256, None, "nvlink", "mi325x"),
    _other("amd", "AMD_Instinct_MI350X_OAM", 288, None, "nvlink", "mi350x"),
    _other("amd", "AMD_Instinct_MI355X_OAM", 288, 287.7, "nvlink", "mi355x"),
    _other("intel", "Flex_140", 6, None, "pcie"),
    _other("intel", "Flex_170", 16, None, "pcie"),
    _other("intel", "Max_1100", 48, None, "unknown"),
    _other("intel", "Max_1550", 128, None, "unknown"),
    _other("habana", "Gaudi", 32, None, "nvlink", "gaudi-hl-205", "hl-205"),
    _other("habana", "Gaudi2", 96, None, "nvlink", "gaudi-hl-225", "hl-225"),
    _other("habana", "Gaudi3", 128, None, "nvlink", "gaudi-hl-325", "hl-325"),
)
"""AMD's MI250 boards show two devices of 64 GiB each; Intel's Flex 140 two of 6 GiB."""

_ENDINGS: Final = re.compile(r"(-mig-.*|-shared)$")
_MIG: Final = re.compile(r"-MIG-", re.IGNORECASE)
_FABRIC: Final = re.compile(r"SXM|HBM|NVL|OAM")
_CARD: Final = re.compile(r"PCIe|RTX", re.IGNORECASE)
_AMD_MODEL: Final = re.compile(r"mi-?[0-9]{3}[ax]?(?![0-9a-z])")


@lru_cache(maxsize=512)
def products_named(name: str) -> tuple[Product, ...]:
    """The products that a name stands for: several where a cloud's name leaves memory or board open, none if unknown.

    The name may have NVIDIA's prefix or not, and an ending ``-SHARED`` or ``-MIG-…``.
    """
    key = _key(name)
    found = _BY_KEY.get(key, ())
    if not found and (model := _AMD_MODEL.search(key)) is not None:
        found = _BY_KEY.get(model[0].replace("-", ""), ())
    return found


def product_named(name: str, memory_mib: int = 0) -> Product | None:
    """The one product of this name; where there are several, the first whose memory is that (15 % up or down).

    None when the name is unknown, or stands for products of different memory and ``memory_mib`` (0: unknown) does not
    say which.
    """
    found = products_named(name)
    if memory_mib and len(found) > 1:
        found = tuple(product for product in found if is_memory_of(product, memory_mib))
    return found[0] if found and same_memory(found) else None


def is_memory_of(product: Product, memory_mib: int) -> bool:
    """Whether a label's memory can be this product's: drivers and ECC move it by some percent, never by 15."""
    return abs(memory_mib - product.label_mib) <= 0.15 * product.label_mib


def same_memory(products: Sequence[Product]) -> bool:
    """Whether all of them have the same memory."""
    return len({product.label_mib for product in products}) == 1


@lru_cache(maxsize=512)
def link_of(name: str) -> Link:
    """How the accelerators of a node reach each other, from the product's name."""
    known = products_named(name)
    if known and len({product.link for product in known}) == 1:
        return known[0].link
    if _FABRIC.search(name):
        return "nvlink"
    return "pcie" if _CARD.search(name) else "unknown"


def is_mig(name: str) -> bool:
    """Whether the name is that of a MIG slice."""
    return _MIG.search(name) is not None


def is_part(name: str) -> bool:
    """Whether the name is that of a slice or of a GPU that is shared: no two of them work together."""
    return is_mig(name) or name.endswith("-SHARED")


def _key(name: str) -> str:
    key = name.strip().casefold().replace(" ", "-").replace("_", "-")
    while (shorter := _ENDINGS.sub("", key)) != key:
        key = shorter
    return key.removeprefix("nvidia-")


def _by_key() -> dict[str, tuple[Product, ...]]:
    found: dict[str, tuple[Product, ...]] = {}
    for product in PRODUCTS:
        for key in dict.fromkeys(_key(name) for name in (product.name, *product.aliases)):
            found[key] = (*found.get(key, ()), product)
    return found


_BY_KEY: Final = _by_key()
