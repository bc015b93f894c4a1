"""Nodes labelled as real ones: the pods ask for the right accelerators, and a real scheduler finds the right nodes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from tests.integration.planner.conftest import Cluster
from tests.support.models import CONFIGS
from tests.unit.planner.inventory import label_sets

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

NVIDIA = "nvidia.com/gpu"
LLAMA_8B, LLAMA_70B = CONFIGS["llama-8b"], CONFIGS["llama-70b"]


@pytest.fixture(scope="module", autouse=True)
def nodes(cluster: Cluster) -> Iterator[None]:
    """A mixed cluster: every kind of node at once."""
    add = cluster.add_node
    add("h100", label_sets.H100, {NVIDIA: "8"})
    add("l4", label_sets.L4, {NVIDIA: "4"})
    add("mig", label_sets.MIG_MIXED, {NVIDIA: "4", "nvidia.com/mig-3g.40gb": "8"})
    add("shared", label_sets.TIME_SLICED, {NVIDIA: "16"})
    add("mi300x", label_sets.MI300X, {"amd.com/gpu": "8"})
    gke_taint = [{"key": NVIDIA, "value": "present", "effect": "NoSchedule"}]
    add("gke", label_sets.GKE_L4, {NVIDIA: "2"}, taints=gke_taint)
    add("cordoned", label_sets.H100, {NVIDIA: "8"}, unschedulable=True)
    add("plain", {}, {})
    yield
    cluster.kubectl("delete", "llm", "--all", "-n", "default", "--wait=true")
    cluster.remove_nodes()


def gpus(pod: dict[str, Any], resource: str = NVIDIA) -> str:
    (container,) = pod["spec"]["containers"]
    limits: dict[str, str] = container["resources"]["limits"]
    assert container["resources"]["requests"][resource] == limits[resource]
    return limits[resource]


@pytest.mark.parametrize(
    ("name", "config", "spec", "resource", "count", "node"),
    [
        ("on-h100", LLAMA_70B, {"accelerator": {"products": ["NVIDIA-H100-80GB-HBM3"]}}, NVIDIA, "2", "h100 mig"),
        ("on-l4", LLAMA_8B, {"accelerator": {"products": ["NVIDIA-L4"]}}, NVIDIA, "1", "l4 gke"),
        ("on-mig", LLAMA_8B, {"accelerator": {"resourceName": "nvidia.com/mig-3g.40gb"}}, "nvidia.com/mig-3g.40gb", "1",
         "mig"),
        ("on-shared", LLAMA_8B, {"accelerator": {"products": ["NVIDIA-L4-SHARED"]}}, NVIDIA, "1", "shared"),
        ("on-amd", LLAMA_70B, {"accelerator": {"resourceName": "amd.com/gpu"}}, "amd.com/gpu", "1", "mi300x"),
        ("two-l4", LLAMA_8B,
         {"accelerator": {"products": ["NVIDIA-L4"]}, "parallelism": {"tensor": 2}}, NVIDIA, "2", "l4 gke"),
    ],
)  # fmt: skip
def test_pods_ask_for_the_right_accelerators_on_the_right_nodes(
    cluster: Cluster, name: str, config: dict[str, Any], spec: dict[str, Any], resource: str, count: str, node: str
) -> None:
    cluster.apply_service(name, config, model={"maxLength": 8192}, **spec)
    status = cluster.until_planned(name)["status"]
    assert str(status["plan"]["gpus"]) == count
    pod = cluster.bound_pod(name)
    assert gpus(pod, resource) == count
    assert pod["spec"]["nodeName"] in node.split()
    cluster.remove_service(name)


def test_without_a_wish_the_fewest_gpus_of_any_product(cluster: Cluster) -> None:
    cluster.apply_service("anywhere", LLAMA_70B, model={"maxLength": 8192})
    plan = cluster.until_planned("anywhere")["status"]["plan"]
    assert (plan["product"], plan["tensor"]) == ("NVIDIA-H100-80GB-HBM3", 2)
    products = {candidate["product"] for candidate in plan["candidates"]}
    assert "NVIDIA-L4" in products
    assert "NVIDIA-L4-SHARED" in products
    assert cluster.bound_pod("anywhere")["spec"]["nodeName"] in ("h100", "mig")


def test_arguments_say_the_plan(cluster: Cluster) -> None:
    pod = cluster.bound_pod("anywhere")
    (container,) = pod["spec"]["containers"]
    config = next(entry["value"] for entry in container["env"] if entry["name"] == "VLLM_RUNTIME_CONFIG")
    for option in ("tensor-parallel-size=2", "max-num-seqs=64", "max-num-batched-tokens=", "max-model-len=8192"):
        assert f"--{option}" in config
    shm = next(volume for volume in pod["spec"]["volumes"] if volume["name"] == "shm")
    assert shm["emptyDir"] == {"medium": "Memory", "sizeLimit": "2Gi"}


def test_a_second_replica_of_all_gpus_waits_for_capacity(cluster: Cluster) -> None:
    """Eight GPUs, four of them taken: what needs all eight is planned and waits."""
    spec = {"accelerator": {"products": ["NVIDIA-H100-80GB-HBM3"]}, "parallelism": {"tensor": 8}}
    cluster.apply_service("waits", LLAMA_70B, model={"maxLength": 8192}, **spec)
    cluster.until_planned("waits", "WaitingForCapacity")
    condition = cluster.condition("waits")
    assert condition["status"] == "True"
    assert "8 GPUs on one node of NVIDIA-H100-80GB-HBM3 are taken" in condition["message"]
