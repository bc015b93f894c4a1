"""Labels and resources of real nodes, as the vendors' and clouds' components set them, shortened to what matters."""

from __future__ import annotations

from typing import Any, Final

from tests.support.builders import make_node

from vllm_operator.kube.kinds import Manifest

Labels = dict[str, str]


def gfd(product: str, memory: object, count: int, capability: str = "9.0", **more: str) -> Labels:
    """GPU feature discovery. Keywords become labels under ``nvidia.com/``: ``gpu_replicas`` is ``gpu.replicas``."""
    major, _, minor = capability.partition(".")
    return {
        "nvidia.com/gpu.present": "true",
        "nvidia.com/gpu.product": product,
        "nvidia.com/gpu.memory": str(memory),
        "nvidia.com/gpu.count": str(count),
        "nvidia.com/gpu.replicas": "1",
        "nvidia.com/gpu.sharing-strategy": "none",
        "nvidia.com/gpu.mode": "compute",
        "nvidia.com/gpu.compute.major": major,
        "nvidia.com/gpu.compute.minor": minor,
        "nvidia.com/mig.capable": "false",
        "nvidia.com/mps.capable": "false",
        **{f"nvidia.com/{key.replace('_', '.')}": value for key, value in more.items()},
    }


H100: Final = gfd("NVIDIA-H100-80GB-HBM3", 81559, 8, gpu_family="hopper", gpu_machine="ProLiant-XL675d")
L4: Final = gfd("NVIDIA-L4", 23034, 4, "8.9", gpu_family="ada-lovelace")
A100_OLD: Final = gfd("A100-SXM4-40GB", 40536, 8, "8.0", gpu_family="ampere")
"""A driver that leaves the prefix out."""
MIG_SINGLE: Final = gfd(
    "NVIDIA-A100-SXM4-80GB-MIG-1g.10gb", 9728, 56, "8.0", mig_strategy="single", mig_config_state="success"
)
MIG_MIXED: Final = {
    **gfd("NVIDIA-H100-80GB-HBM3", 81559, 4, mig_strategy="mixed", mig_config_state="success"),
    "nvidia.com/mig-3g.40gb.count": "8",
    "nvidia.com/mig-3g.40gb.memory": "40448",
    "nvidia.com/mig-3g.40gb.product": "NVIDIA-H100-80GB-HBM3-MIG-3g.40gb",
    "nvidia.com/mig-3g.40gb.replicas": "1",
    "nvidia.com/mig-3g.40gb.sharing-strategy": "none",
    "nvidia.com/mig-3g.40gb.slices.gi": "3",
}
TIME_SLICED: Final = {
    **gfd("NVIDIA-L4-SHARED", 23034, 4, "8.9"),
    "nvidia.com/gpu.replicas": "4",
    "nvidia.com/gpu.sharing-strategy": "time-slicing",
}
MPS: Final = {
    **gfd("NVIDIA-L4-SHARED", 23034, 1, "8.9"),
    "nvidia.com/gpu.replicas": "4",
    "nvidia.com/gpu.sharing-strategy": "mps",
}
MI300X: Final = {
    "amd.com/gpu.product-name": "AMD_Instinct_MI300X_OAM",
    "amd.com/gpu.vram": "192G",
    "amd.com/gpu.family": "AI",
    "amd.com/gpu.device-id": "74a1",
    "amd.com/gpu.cu-count": "304",
    "amd.com/compute-memory-partition": "spx_nps1",
    "beta.amd.com/gpu.vram": "192G",
    "beta.amd.com/gpu.vram.192G": "8",
}
AMD_TWO_KINDS: Final = {
    "beta.amd.com/gpu.product-name.AMD_Instinct_MI210": "4",
    "beta.amd.com/gpu.product-name.AMD_Instinct_MI300X_OAM": "4",
    "beta.amd.com/gpu.vram.64G": "4",
    "beta.amd.com/gpu.vram.192G": "4",
}
INTEL_FLEX: Final = {
    "gpu.intel.com/family": "Flex_Series",
    "gpu.intel.com/product": "Flex_170",
    "gpu.intel.com/device.count": "2",
    "gpu.intel.com/memory.max": str(2 * 16 * 1024**3),
    "gpu.intel.com/millicores": "2000",
    "gpu.intel.com/device-id.0380-56c0.present": "true",
}
GAUDI3: Final = {"feature.node.kubernetes.io/pci-1200_1da3_1060.present": "true", "habana.ai/hpu-present": "true"}
GKE_L4: Final = {
    "cloud.google.com/gke-accelerator": "nvidia-l4",
    "cloud.google.com/gke-accelerator-count": "2",
    "cloud.google.com/gke-gpu-driver-version": "latest",
    "cloud.google.com/gke-nodepool": "l4-pool",
    "node.kubernetes.io/instance-type": "g2-standard-24",
}
GKE_MIG: Final = {
    "cloud.google.com/gke-accelerator": "nvidia-tesla-a100",
    "cloud.google.com/gke-accelerator-count": "1",
    "cloud.google.com/gke-gpu-partition-size": "1g.5gb",
}
KARPENTER_L4: Final = {
    "karpenter.k8s.aws/instance-category": "g",
    "karpenter.k8s.aws/instance-family": "g6",
    "karpenter.k8s.aws/instance-gpu-count": "4",
    "karpenter.k8s.aws/instance-gpu-manufacturer": "nvidia",
    "karpenter.k8s.aws/instance-gpu-memory": "22888",
    "karpenter.k8s.aws/instance-gpu-name": "l4",
    "karpenter.sh/nodepool": "gpu",
    "node.kubernetes.io/instance-type": "g6.12xlarge",
}
EKS_AUTO_A100: Final = {
    "eks.amazonaws.com/instance-gpu-count": "8",
    "eks.amazonaws.com/instance-gpu-manufacturer": "nvidia",
    "eks.amazonaws.com/instance-gpu-memory": "81920",
    "eks.amazonaws.com/instance-gpu-name": "a100",
    "eks.amazonaws.com/compute-type": "auto",
}
AKS_A100: Final = {
    "kubernetes.azure.com/accelerator": "nvidia",
    "kubernetes.azure.com/agentpool": "gpu",
    "karpenter.azure.com/sku-gpu-name": "A100",
    "karpenter.azure.com/sku-gpu-count": "4",
    "karpenter.azure.com/sku-gpu-manufacturer": "nvidia",
    "node.kubernetes.io/instance-type": "Standard_NC96ads_A100_v4",
}
COREWEAVE_H100: Final = {
    "gpu.nvidia.com/class": "H100_NVLINK_80GB",
    "gpu.nvidia.com/count": "8",
    "gpu.nvidia.com/model": "H100_NVLINK_80GB",
    "gpu.nvidia.com/vram": "81",
    "node.coreweave.cloud/class": "gpu",
}


def labelled(
    labels: Labels,
    gpus: int,
    *,
    name: str = "node",
    resource: str = "nvidia.com/gpu",
    taints: tuple[dict[str, Any], ...] = (),
) -> Manifest:
    """A ready node with these labels that offers ``gpus`` of the resource, 64 CPUs and 512 GiB."""
    builder = make_node(name).gpus(gpus, resource=resource).set("spec.taints", list(taints))
    for key, value in labels.items():
        builder.label(key, value)
    node = builder.build()
    node["status"]["allocatable"]["memory"] = "512Gi"
    return node


def karpenter_node_pool(*requirements: tuple[str, str, list[str]], **spec: Any) -> Manifest:
    """A ``karpenter.sh/v1`` NodePool on AWS. Keywords replace what is in ``spec.template.spec``."""
    return {
        "apiVersion": "karpenter.sh/v1",
        "kind": "NodePool",
        "metadata": {"name": "gpu"},
        "spec": {
            "limits": {"cpu": "1000"},
            "template": {
                "spec": {
                    "nodeClassRef": {"group": "karpenter.k8s.aws", "kind": "EC2NodeClass", "name": "default"},
                    "requirements": [
                        {"key": key, "operator": operator, "values": values} for key, operator, values in requirements
                    ],
                    **spec,
                }
            },
        },
    }


def resource_slice(node: str, *devices: tuple[str, str, str], generation: int = 1, pool: str = "") -> Manifest:
    """A ResourceSlice of NVIDIA's driver: product, memory and compute capability of each whole GPU."""
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceSlice",
        "metadata": {"name": f"{node}-gpu.nvidia.com-x"},
        "spec": {
            "driver": "gpu.nvidia.com",
            "nodeName": node,
            "pool": {"name": pool or node, "generation": generation, "resourceSliceCount": 1},
            "devices": [
                {
                    "name": f"gpu-{index}",
                    "attributes": {
                        "type": {"string": "gpu"},
                        "productName": {"string": product},
                        "architecture": {"string": "Hopper"},
                        "cudaComputeCapability": {"version": capability},
                    },
                    "capacity": {"memory": {"value": memory}},
                }
                for index, (product, memory, capability) in enumerate(devices)
            ],
        },
    }
