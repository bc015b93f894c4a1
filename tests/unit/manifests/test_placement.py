"""On which nodes an engine's pods may run, and what they ask for."""

from __future__ import annotations

from typing import Any

import pytest

from vllm_operator.manifests.placement import (
    PodResources,
    check_resources,
    node_affinity,
    pod_resources,
    tolerations,
)
from vllm_operator.planner.inventory.pool import LabelRequirement, Taint
from vllm_operator_api.v1alpha1.llmservice import EngineResources

H100 = LabelRequirement(key="nvidia.com/gpu.product", values=("NVIDIA-H100-80GB-HBM3",))
GKE = LabelRequirement(key="cloud.google.com/gke-accelerator", values=("nvidia-h100-80gb",))
SIZE = LabelRequirement(key="cloud.google.com/gke-accelerator-count", values=("4", "8"))
GIB = 2**30


def expression(requirement: LabelRequirement) -> dict[str, Any]:
    return {"key": requirement.key, "operator": "In", "values": list(requirement.values)}


def terms(affinity: dict[str, Any]) -> list[Any]:
    required = affinity["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    return [term["matchExpressions"] for term in required["nodeSelectorTerms"]]


def test_labels_of_one_pool_are_all_asked_for_and_pools_are_alternatives() -> None:
    assert terms(node_affinity([(H100,), (GKE, SIZE), (H100,)])) == [
        [expression(H100)],
        [expression(GKE), expression(SIZE)],
    ]


def test_a_pool_without_labels_takes_any_node() -> None:
    """An empty term would match no node at all."""
    assert node_affinity([(H100,), ()]) == {}
    assert node_affinity([]) == {}


@pytest.mark.parametrize(
    ("resource_name", "key"),
    [
        ("nvidia.com/gpu", "nvidia.com/gpu"),
        ("nvidia.com/mig-1g.10gb", "nvidia.com/gpu"),
        ("amd.com/gpu", "amd.com/gpu"),
        ("habana.ai/gaudi", "habana.ai/gaudi"),
    ],
)
def test_the_vendors_own_taint_is_always_tolerated(resource_name: str, key: str) -> None:
    assert tolerations(resource_name, []) == [{"key": key, "operator": "Exists", "effect": "NoSchedule"}]


def test_taints_are_tolerated_by_value_and_once() -> None:
    dedicated = Taint(key="dedicated", value="inference", effect="NoExecute")
    vendor = Taint(key="nvidia.com/gpu", value="present", effect="NoSchedule")
    assert tolerations("nvidia.com/gpu", [dedicated, vendor, dedicated])[1:] == [
        {"key": "dedicated", "operator": "Equal", "value": "inference", "effect": "NoExecute"}
    ]


@pytest.mark.parametrize(
    ("asked", "gpus", "weights_gib", "resources"),
    [
        ({}, 1, 0.5, PodResources(cpu="1", memory="5Gi", shm="1Gi")),
        ({}, 8, 640, PodResources(cpu="8", memory="37Gi", shm="8Gi")),
        ({"shm": "16Gi"}, 8, 640, PodResources(cpu="8", memory="45Gi", shm="16Gi")),
        ({"shm": "64Mi"}, 2, 1, PodResources(cpu="2", memory="9Gi", shm="2Gi")),
        ({"shm": "64Mi"}, 1, 1, PodResources(cpu="1", memory="5Gi", shm="64Mi")),
        ({"cpu": "500m", "memory": "200G", "shm": "9Gi"}, 8, 640, PodResources(cpu="500m", memory="200G", shm="9Gi")),
    ],
)
def test_resources(asked: dict[str, str], gpus: int, weights_gib: float, resources: PodResources) -> None:
    assert pod_resources(EngineResources.model_validate(asked), gpus, int(weights_gib * GIB)) == resources


@pytest.mark.parametrize(
    ("asked", "gpus", "says"),
    [
        ({}, 8, None),
        ({"memory": "4Gi"}, 2, None),
        ({"memory": "4Gi"}, 8, "spec.resources.shm=8Gi (1Gi for each of 8 GPUs) is memory of the container"),
        ({"memory": "4Gi", "shm": "4Gi"}, 1, "spec.resources.shm=4Gi is memory of the container and must be less"),
    ],
)
def test_sizes_that_contradict_each_other(asked: dict[str, str], gpus: int, says: str | None) -> None:
    problem = check_resources(EngineResources.model_validate(asked), gpus)
    assert problem is None if says is None else problem is not None and problem.startswith(says)
