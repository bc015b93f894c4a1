"""GPU machines that clouds rent: which accelerators are in them, and how many.

From the clouds' own lists: https://aws.amazon.com/ec2/instance-types (accelerated computing) and
https://learn.microsoft.com/azure/virtual-machines/sizes/overview (N series). GKE's nodes always name their accelerator,
so Google's machines are not needed here. Machines with a part of a GPU (g6f, NVads_A10 below 36) are left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceType:
    """One machine type."""

    name: str
    cloud: str
    """``aws`` or ``azure``."""
    gpu_name: str
    """In Karpenter's labels ``instance-gpu-name`` and ``sku-gpu-name``."""
    product: str
    gpus: int
    cpus: int
    memory_gib: int


def _rows(cloud: str, gpu_name: str, product: str, table: str) -> list[InstanceType]:
    """``table``: lines of name, GPUs, CPUs and GiB of memory."""
    return [
        InstanceType(
            name=name,
            cloud=cloud,
            gpu_name=gpu_name,
            product=product,
            gpus=int(gpus),
            cpus=int(cpus),
            memory_gib=int(memory_gib),
        )
        for name, gpus, cpus, memory_gib in (line.split() for line in table.strip().splitlines())
    ]


_T4: Final = """
    g4dn.xlarge   1  4  16
    g4dn.2xlarge  1  8  32
    g4dn.4xlarge  1 16  64
    g4dn.8xlarge  1 32 128
    g4dn.12xlarge 4 48 192
    g4dn.16xlarge 1 64 256
    g4dn.metal    8 96 384
"""
_A10G: Final = """
    g5.xlarge   1   4  16
    g5.2xlarge  1   8  32
    g5.4xlarge  1  16  64
    g5.8xlarge  1  32 128
    g5.12xlarge 4  48 192
    g5.16xlarge 1  64 256
    g5.24xlarge 4  96 384
    g5.48xlarge 8 192 768
"""
_L4: Final = """
    g6.xlarge   1   4  16
    g6.2xlarge  1   8  32
    g6.4xlarge  1  16  64
    g6.8xlarge  1  32 128
    g6.12xlarge 4  48 192
    g6.16xlarge 1  64 256
    g6.24xlarge 4  96 384
    g6.48xlarge 8 192 768
    gr6.4xlarge 1  16 128
    gr6.8xlarge 1  32 256
"""
_L40S: Final = """
    g6e.xlarge   1   4   32
    g6e.2xlarge  1   8   64
    g6e.4xlarge  1  16  128
    g6e.8xlarge  1  32  256
    g6e.12xlarge 4  48  384
    g6e.16xlarge 1  64  512
    g6e.24xlarge 4  96  768
    g6e.48xlarge 8 192 1536
"""
_V100_16: Final = """
    p3.2xlarge  1  8  61
    p3.8xlarge  4 32 244
    p3.16xlarge 8 64 488
"""
_AZURE_T4: Final = """
    Standard_NC4as_T4_v3  1  4  28
    Standard_NC8as_T4_v3  1  8  56
    Standard_NC16as_T4_v3 1 16 110
    Standard_NC64as_T4_v3 4 64 440
"""
_AZURE_V100: Final = """
    Standard_NC6s_v3   1  6 112
    Standard_NC12s_v3  2 12 224
    Standard_NC24s_v3  4 24 448
"""
_AZURE_A100_PCIE: Final = """
    Standard_NC24ads_A100_v4 1 24 220
    Standard_NC48ads_A100_v4 2 48 440
    Standard_NC96ads_A100_v4 4 96 880
"""
_AZURE_A10: Final = """
    Standard_NV36ads_A10_v5  1 36 440
    Standard_NV36adms_A10_v5 1 36 880
    Standard_NV72ads_A10_v5  2 72 880
"""
_AZURE_H100_NVL: Final = """
    Standard_NC40ads_H100_v5  1 40 320
    Standard_NC80adis_H100_v5 2 80 640
"""

_ALL: Final = (
    *_rows("aws", "t4", "Tesla-T4", _T4),
    *_rows("aws", "a10g", "NVIDIA-A10G", _A10G),
    *_rows("aws", "l4", "NVIDIA-L4", _L4),
    *_rows("aws", "l40s", "NVIDIA-L40S", _L40S),
    *_rows("aws", "v100", "Tesla-V100-SXM2-16GB", _V100_16),
    *_rows("aws", "v100", "Tesla-V100-SXM2-32GB", "p3dn.24xlarge 8 96 768"),
    *_rows("aws", "a100", "NVIDIA-A100-SXM4-40GB", "p4d.24xlarge 8 96 1152"),
    *_rows("aws", "a100", "NVIDIA-A100-SXM4-80GB", "p4de.24xlarge 8 96 1152"),
    *_rows("aws", "h100", "NVIDIA-H100-80GB-HBM3", "p5.4xlarge 1 16 256\np5.48xlarge 8 192 2048"),
    *_rows("aws", "h200", "NVIDIA-H200", "p5e.48xlarge 8 192 2048\np5en.48xlarge 8 192 2048"),
    *_rows("aws", "b200", "NVIDIA-B200", "p6-b200.48xlarge 8 192 2048"),
    *_rows("aws", "b300", "NVIDIA-B300-SXM6-AC", "p6-b300.48xlarge 8 192 4096"),
    *_rows("aws", "", "Gaudi", "dl1.24xlarge 8 96 768"),
    *_rows("azure", "T4", "Tesla-T4", _AZURE_T4),
    *_rows("azure", "V100", "Tesla-V100-PCIE-16GB", _AZURE_V100),
    *_rows("azure", "A10", "NVIDIA-A10", _AZURE_A10),
    *_rows("azure", "A100", "NVIDIA-A100-80GB-PCIe", _AZURE_A100_PCIE),
    *_rows("azure", "A100", "NVIDIA-A100-SXM4-40GB", "Standard_ND96asr_v4 8 96 900"),
    *_rows("azure", "A100", "NVIDIA-A100-SXM4-80GB", "Standard_ND96amsr_A100_v4 8 96 1900"),
    *_rows("azure", "H100", "NVIDIA-H100-NVL", _AZURE_H100_NVL),
    *_rows("azure", "H100", "NVIDIA-H100-80GB-HBM3", "Standard_ND96isr_H100_v5 8 96 1900"),
    *_rows("azure", "H200", "NVIDIA-H200", "Standard_ND96isr_H200_v5 8 96 1850"),
    *_rows("azure", "GB200", "NVIDIA-GB200", "Standard_ND128isr_NDR_GB200_v6 4 128 900"),
    *_rows("azure", "MI300X", "AMD_Instinct_MI300X_OAM", "Standard_ND96isr_MI300X_v5 8 96 1850"),
)

INSTANCE_TYPES: Final = {instance.name: instance for instance in _ALL}
"""By name, as in the label ``node.kubernetes.io/instance-type``."""
