"""Nodes that only their cloud has labelled."""

from __future__ import annotations

import pytest
from tests.unit.planner.inventory.label_sets import (
    AKS_A100,
    COREWEAVE_H100,
    EKS_AUTO_A100,
    GKE_L4,
    GKE_MIG,
    KARPENTER_L4,
    Labels,
    labelled,
)

from vllm_operator.planner.inventory.pools import inventory

GIB = 1 << 30


@pytest.mark.parametrize(
    ("labels", "gpus", "product", "selected_by"),
    [
        (GKE_L4, 2, "NVIDIA-L4", {"cloud.google.com/gke-accelerator": "nvidia-l4"}),
        (
            KARPENTER_L4,
            4,
            "NVIDIA-L4",
            {"karpenter.k8s.aws/instance-gpu-name": "l4", "karpenter.k8s.aws/instance-gpu-memory": "22888"},
        ),
        (
            EKS_AUTO_A100,
            8,
            "NVIDIA-A100-SXM4-80GB",
            {"eks.amazonaws.com/instance-gpu-name": "a100", "eks.amazonaws.com/instance-gpu-memory": "81920"},
        ),
        (
            AKS_A100,
            4,
            "NVIDIA-A100-80GB-PCIe",
            {
                "karpenter.azure.com/sku-gpu-name": "A100",
                "node.kubernetes.io/instance-type": "Standard_NC96ads_A100_v4",
            },
        ),
        (
            {
                "node.kubernetes.io/instance-type": "Standard_ND96isr_H100_v5",
                "kubernetes.azure.com/accelerator": "nvidia",
            },
            8,
            "NVIDIA-H100-80GB-HBM3",
            {"node.kubernetes.io/instance-type": "Standard_ND96isr_H100_v5"},
        ),
        (COREWEAVE_H100, 8, "NVIDIA-H100-80GB-HBM3", {"gpu.nvidia.com/class": "H100_NVLINK_80GB"}),
    ],
    ids=["GKE", "Karpenter", "EKS Auto", "AKS with Karpenter", "AKS", "CoreWeave"],
)
def test_the_product_is_known_and_selected_in_the_clouds_own_names(
    labels: Labels, gpus: int, product: str, selected_by: Labels
) -> None:
    found = inventory([labelled(labels, gpus)], {}, ())
    assert found.left_out == ()
    (pool,) = found.pools
    assert (pool.product, pool.gpus_per_node, pool.single) == (product, gpus, False)
    assert {each.key: each.values for each in pool.requirements} == {
        key: (value,) for key, value in selected_by.items()
    }


@pytest.mark.parametrize(
    ("name", "gib"),
    [
        ("nvidia-tesla-t4", 14.56),
        ("nvidia-l4", 21.96),
        ("nvidia-tesla-a100", 39.39),
        ("nvidia-a100-80gb", 79.15),
        ("nvidia-h100-80gb", 79.18),
        ("nvidia-h100-mega-80gb", 79.18),
        ("nvidia-h200-141gb", 139.8),
        ("nvidia-b200", 178.36),
        ("nvidia-gb200", 184.0),
        ("nvidia-rtx-pro-6000", 94.97),
    ],
)
def test_names_of_gke(name: str, gib: float) -> None:
    (pool,) = inventory([labelled({"cloud.google.com/gke-accelerator": name}, 1)], {}, ()).pools
    assert pool.usable_bytes == int(gib * GIB)


def test_a_slice_on_gke() -> None:
    (pool,) = inventory([labelled(GKE_MIG, 7)], {}, ()).pools
    assert (pool.product, pool.single) == ("NVIDIA-A100-SXM4-40GB-MIG-1g.5gb", True)
    assert 4 * GIB < pool.usable_bytes < 4.75 * GIB
    assert {each.key for each in pool.requirements} == {
        "cloud.google.com/gke-accelerator",
        "cloud.google.com/gke-gpu-partition-size",
    }


@pytest.mark.parametrize(("strategy", "parts"), [("time-sharing", 1), ("mps", 4)])
def test_a_gpu_that_gke_shares(strategy: str, parts: int) -> None:
    labels = GKE_L4 | {
        "cloud.google.com/gke-gpu-sharing-strategy": strategy,
        "cloud.google.com/gke-max-shared-clients-per-gpu": "4",
    }
    (pool,) = inventory([labelled(labels, 8)], {}, ()).pools
    assert (pool.product, pool.single) == ("NVIDIA-L4-SHARED", True)
    assert pool.usable_bytes == int(21.96 * GIB) // parts


@pytest.mark.parametrize(
    ("labels", "gpus", "says"),
    [
        ({"cloud.google.com/gke-accelerator": "nvidia-x9"}, 1, "'nvidia-x9', a GPU that no table here knows"),
        (GKE_MIG | {"cloud.google.com/gke-gpu-partition-size": "tiny"}, 7, "'tiny'"),
        (
            {"karpenter.azure.com/sku-gpu-name": "A100"},
            1,
            "stands for GPUs of 40 GiB or 80 GiB, and nothing says which",
        ),
        (
            {"karpenter.k8s.aws/instance-gpu-name": "a100", "karpenter.k8s.aws/instance-gpu-memory": "8"},
            8,
            "not 8 MiB",
        ),
        ({"karpenter.k8s.aws/instance-gpu-name": "l4", "karpenter.k8s.aws/instance-gpu-memory": "big"}, 1, "'big'"),
        ({"gpu.nvidia.com/class": "H100_NVLINK_80GB", "gpu.nvidia.com/vram": "24"}, 8, "vram=24"),
        ({"gpu.nvidia.com/class": "H100_NVLINK_80GB", "gpu.nvidia.com/vram": "much"}, 8, "'much'"),
        ({"node.kubernetes.io/instance-type": "p4de.24xlarge"}, 56, "offers 56 GPUs, but has 8"),
    ],
)
def test_labels_that_do_not_say_enough(labels: Labels, gpus: int, says: str) -> None:
    found = inventory([labelled(labels, gpus)], {}, ())
    assert found.pools == ()
    (node,) = found.left_out
    assert says in node.why
    assert node.unlabelled


def test_a_new_gpu_of_karpenter_is_taken_by_its_memory() -> None:
    labels = {"karpenter.k8s.aws/instance-gpu-name": "x9000", "karpenter.k8s.aws/instance-gpu-memory": "300000"}
    (pool,) = inventory([labelled(labels, 8)], {}, ()).pools
    assert (pool.product, pool.usable_bytes) == ("x9000", int(300000 * 2**20 * 0.989))


def test_machines_with_gaudi_and_amd() -> None:
    nodes = [
        labelled({"node.kubernetes.io/instance-type": "dl1.24xlarge"}, 8, name="a", resource="habana.ai/gaudi"),
        labelled(
            {"node.kubernetes.io/instance-type": "Standard_ND96isr_MI300X_v5"}, 8, name="b", resource="amd.com/gpu"
        ),
    ]
    assert [pool.product for pool in inventory(nodes, {}, ()).pools] == ["AMD_Instinct_MI300X_OAM", "Gaudi"]
