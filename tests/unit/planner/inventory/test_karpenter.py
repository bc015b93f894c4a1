"""Pools that Karpenter's NodePools allow."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.planner.inventory.label_sets import KARPENTER_L4, karpenter_node_pool, labelled

from vllm_operator.kube.kinds import Manifest
from vllm_operator.planner.inventory.pool import LabelRequirement, Taint
from vllm_operator.planner.inventory.pools import inventory

AWS = "karpenter.k8s.aws/"
GIB = 1 << 30
G6E = ("instance-family", "In", ["g6e"])
SHORT = {
    "NVIDIA-H100-80GB-HBM3": "H100",
    "NVIDIA-L40S": "L40S",
    "Tesla-V100-SXM2-16GB": "V100 16",
    "Tesla-V100-SXM2-32GB": "V100 32",
    "Gaudi": "Gaudi",
}


def pools(node_pool: Manifest) -> set[tuple[str, int]]:
    found = inventory([], {}, (), [node_pool]).pools
    assert all(pool.nodes == 0 for pool in found)
    return {(pool.product, pool.gpus_per_node) for pool in found}


def test_one_pool_for_each_number_of_gpus() -> None:
    node_pool = karpenter_node_pool(
        (f"{AWS}instance-family", "In", ["g6"]),
        ("karpenter.sh/capacity-type", "In", ["spot"]),
        taints=[{"key": "nvidia.com/gpu", "effect": "NoSchedule"}],
    )
    one, four, eight = inventory([], {}, (), [node_pool]).pools
    assert [pool.gpus_per_node for pool in (one, four, eight)] == [1, 4, 8]
    assert one.requirements == (LabelRequirement(key=f"{AWS}instance-gpu-name", values=("l4",)),)
    assert one.taints == (Taint(key="nvidia.com/gpu", value="", effect="NoSchedule"),)
    assert (eight.usable_bytes, eight.link, eight.device.compute_capability) == (int(21.96 * GIB), "pcie", (8, 9))
    assert four.memory_bytes_per_node == int(192 * GIB * 0.9)


def test_a_name_that_stands_for_several_gpus_is_selected_by_machine() -> None:
    node_pool = karpenter_node_pool(("node.kubernetes.io/instance-type", "In", ["p4de.24xlarge"]))
    (pool,) = inventory([], {}, (), [node_pool]).pools
    assert pool.product == "NVIDIA-A100-SXM4-80GB"
    assert pool.requirements == (LabelRequirement(key="node.kubernetes.io/instance-type", values=("p4de.24xlarge",)),)


@pytest.mark.parametrize(
    ("requirements", "want"),
    [
        ([("instance-gpu-name", "In", ["h100"]), ("instance-gpu-count", "Gt", ["1"])], {"8x H100"}),
        ([("instance-category", "In", ["c", "m", "r"])], set()),
        (
            [("instance-category", "In", ["p"]), ("instance-generation", "Lt", ["4"])],
            {"1x V100 16", "4x V100 16", "8x V100 16", "8x V100 32"},
        ),
        ([("instance-gpu-manufacturer", "DoesNotExist", [])], {"8x Gaudi"}),
        (
            [("instance-gpu-name", "Exists", []), ("instance-size", "NotIn", ["48xlarge", "24xlarge"]), G6E],
            {"1x L40S", "4x L40S"},
        ),
        ([("instance-gpu-count", "Gt", ["x"])], set()),
        ([("instance-gpu-unheard-of", "In", ["x"])], set()),
        ([("instance-local-nvme", "Gt", ["100"]), G6E, ("instance-size", "In", ["48xlarge"])], {"8x L40S"}),
    ],
)
def test_requirements(requirements: list[tuple[str, str, list[str]]], want: set[str]) -> None:
    node_pool = karpenter_node_pool(*((f"{AWS}{key}", operator, values) for key, operator, values in requirements))
    assert {f"{gpus}x {SHORT[product]}" for product, gpus in pools(node_pool)} == want


def test_machines_of_another_architecture() -> None:
    assert pools(karpenter_node_pool(("kubernetes.io/arch", "In", ["arm64"]))) == set()


def test_eks_auto_mode_has_names_of_its_own() -> None:
    node_pool = karpenter_node_pool(
        ("eks.amazonaws.com/instance-gpu-name", "In", ["l40s"]),
        nodeClassRef={"group": "eks.amazonaws.com", "kind": "NodeClass", "name": "default"},
    )
    found = inventory([], {}, (), [node_pool]).pools
    assert {pool.requirements[0] for pool in found} == {
        LabelRequirement(key="eks.amazonaws.com/instance-gpu-name", values=("l40s",))
    }


def test_azure() -> None:
    node_pool = karpenter_node_pool(
        ("karpenter.azure.com/sku-gpu-name", "In", ["H200", "A100"]),
        ("karpenter.azure.com/sku-gpu-count", "In", ["8"]),
        nodeClassRef={"group": "karpenter.azure.com", "kind": "AKSNodeClass", "name": "default"},
    )
    found = {pool.product: pool.requirements for pool in inventory([], {}, (), [node_pool]).pools}
    assert found == {
        "NVIDIA-A100-SXM4-40GB": (
            LabelRequirement(key="node.kubernetes.io/instance-type", values=("Standard_ND96asr_v4",)),
        ),
        "NVIDIA-A100-SXM4-80GB": (
            LabelRequirement(key="node.kubernetes.io/instance-type", values=("Standard_ND96amsr_A100_v4",)),
        ),
        "NVIDIA-H200": (LabelRequirement(key="karpenter.azure.com/sku-gpu-name", values=("H200",)),),
    }


def test_limits_of_a_node_pool() -> None:
    node_pool = karpenter_node_pool((f"{AWS}instance-family", "In", ["g6"]))
    node_pool["spec"]["limits"] = {"nvidia.com/gpu": "4"}
    assert pools(node_pool) == {("NVIDIA-L4", 1), ("NVIDIA-L4", 4)}


def test_nodes_that_exist_take_the_place_of_those_to_come() -> None:
    node_pool = karpenter_node_pool((f"{AWS}instance-family", "In", ["g6"]), (f"{AWS}instance-gpu-count", "In", ["4"]))
    (pool,) = inventory([labelled(KARPENTER_L4, 4)], {}, (), [node_pool]).pools
    assert pool.nodes == 1


@pytest.mark.parametrize(
    "node_pool",
    [
        {},
        {"spec": None},
        {"spec": {"template": {"spec": {"nodeClassRef": {"group": "example.com"}}}}},
        {**karpenter_node_pool(), "metadata": {"name": "x", "deletionTimestamp": "2026-01-01T00:00:00Z"}},
    ],
)
def test_node_pools_that_say_nothing(node_pool: dict[str, Any]) -> None:
    assert pools(node_pool) == set()
