"""Nodes that take no pods now, whatever their labels say."""

from __future__ import annotations

import pytest
from tests.unit.planner.inventory.label_sets import H100, labelled

from vllm_operator.kube.kinds import Manifest
from vllm_operator.planner.inventory.pools import inventory


def cordoned(node: Manifest) -> None:
    node["spec"]["unschedulable"] = True


def not_ready(node: Manifest) -> None:
    node["status"]["conditions"] = [{"type": "Ready", "status": "Unknown"}]


def without_conditions(node: Manifest) -> None:
    del node["status"]["conditions"]


def deleting(node: Manifest) -> None:
    node["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"


def disrupted(node: Manifest) -> None:
    node["spec"]["taints"] = [{"key": "karpenter.sh/disrupted", "effect": "NoSchedule"}]


def under_pressure(node: Manifest) -> None:
    node["spec"]["taints"] = [{"key": "node.kubernetes.io/disk-pressure", "effect": "NoSchedule"}]


def windows(node: Manifest) -> None:
    node["metadata"]["labels"]["kubernetes.io/os"] = "windows"


def all_broken(node: Manifest) -> None:
    node["status"]["allocatable"]["nvidia.com/gpu"] = "0"
    node["status"]["capacity"] = {"nvidia.com/gpu": "8"}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (cordoned, "is cordoned"),
        (not_ready, "is not Ready"),
        (without_conditions, "is not Ready"),
        (deleting, "is being deleted"),
        (disrupted, "takes no pods while it has the taint karpenter.sh/disrupted"),
        (under_pressure, "takes no pods while it has the taint node.kubernetes.io/disk-pressure"),
        (windows, "runs windows"),
        (all_broken, "has nvidia.com/gpu, but none that is healthy (allocatable is 0)"),
    ],
)
def test_why_a_node_is_left_out(change: object, why: str) -> None:
    node = labelled(H100, 8, name="n1")
    assert callable(change)
    change(node)
    found = inventory([node], {}, ())
    assert found.pools == ()
    assert [(each.name, each.why, each.unlabelled, each.resource_name) for each in found.left_out] == [
        ("n1", why, False, "nvidia.com/gpu")
    ]


@pytest.mark.parametrize("gpus", ["0", "-1", "many", ""])
def test_a_node_that_has_none_and_never_had_is_not_mentioned(gpus: str) -> None:
    node = labelled(H100, 8)
    node["status"]["allocatable"]["nvidia.com/gpu"] = gpus
    found = inventory([node], {}, ())
    assert (found.pools, found.left_out, found.resources_seen) == ((), (), ())
