"""What a plain cluster lacks: fake GPUs with the labels of GPU feature discovery, and a default StorageClass."""

from __future__ import annotations

from typing import Any

from localk8s.api import JSON_PATCH, MERGE_PATCH, ApiClient

GPUS_PER_NODE = 8

# The labels that NVIDIA's GPU feature discovery sets on a node with eight L4 cards of 24 GB
# (github.com/NVIDIA/k8s-device-plugin, docs/gpu-feature-discovery).
GPU_LABELS = {
    "nvidia.com/gpu.present": "true",
    "nvidia.com/gpu.product": "NVIDIA-L4",
    "nvidia.com/gpu.family": "ada-lovelace",
    "nvidia.com/gpu.memory": "23034",
    "nvidia.com/gpu.count": str(GPUS_PER_NODE),
    "nvidia.com/gpu.replicas": "1",
    "nvidia.com/gpu.sharing-strategy": "none",
    "nvidia.com/gpu.compute.major": "8",
    "nvidia.com/gpu.compute.minor": "9",
    "nvidia.com/gpu.machine": "local-cluster",
    "nvidia.com/gpu.mode": "compute",
    "nvidia.com/mig.capable": "false",
    "nvidia.com/mig.strategy": "single",
    "nvidia.com/cuda.driver.major": "580",
    "nvidia.com/cuda.driver.minor": "95",
    "nvidia.com/cuda.driver.rev": "05",
    "nvidia.com/cuda.driver-version.full": "580.95.05",
    "nvidia.com/cuda.runtime.major": "13",
    "nvidia.com/cuda.runtime.minor": "0",
}

GPU_STATUS_PATCH = [
    {"op": "add", "path": f"/status/{field}/nvidia.com~1gpu", "value": str(GPUS_PER_NODE)}
    for field in ("capacity", "allocatable")
]

# As kind's default class: same name, same binding mode, so that manifests behave alike on both.
STORAGE_CLASS: dict[str, Any] = {
    "apiVersion": "storage.k8s.io/v1",
    "kind": "StorageClass",
    "metadata": {
        "name": "standard",
        "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
    },
    "provisioner": "kubernetes.io/host-path",
    "reclaimPolicy": "Delete",
    "volumeBindingMode": "WaitForFirstConsumer",
}


def add_fake_gpus(client: ApiClient, node: str) -> None:
    """Let ``node`` advertise GPUs; the kubelet keeps extended resources that it did not report itself."""
    client.request("PATCH", f"/api/v1/nodes/{node}", {"metadata": {"labels": GPU_LABELS}}, content_type=MERGE_PATCH)
    client.request("PATCH", f"/api/v1/nodes/{node}/status", GPU_STATUS_PATCH, content_type=JSON_PATCH)


def add_storage_class(client: ApiClient) -> None:
    """Make the default StorageClass of the native cluster."""
    name = STORAGE_CLASS["metadata"]["name"]
    client.apply(f"/apis/storage.k8s.io/v1/storageclasses/{name}", STORAGE_CLASS)


def node_ready(client: ApiClient, node: str) -> bool:
    """Whether ``node`` is registered and Ready."""
    if not client.exists(f"/api/v1/nodes/{node}"):
        return False
    status = client.request("GET", f"/api/v1/nodes/{node}").get("status", {})
    return any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions", []))
