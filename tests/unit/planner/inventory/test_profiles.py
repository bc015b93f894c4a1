"""Accelerator profiles: nodes to come, nodes without labels, and a configuration that is wrong."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError
from tests.support.builders import make_node
from tests.unit.planner.inventory.label_sets import H100, L4, MIG_SINGLE, gfd, karpenter_node_pool, labelled

from vllm_operator.planner.inventory.pool import LabelRequirement, Taint
from vllm_operator.planner.inventory.pools import inventory
from vllm_operator.planner.inventory.profiles import AcceleratorProfile, parse_profiles
from vllm_operator.settings import Settings

GIB = 1 << 30
H100_POOL = {
    "name": "h100-spot",
    "selector": {"pool": "h100", "zone": "a"},
    "product": "NVIDIA-H100-80GB-HBM3",
    "count": 8,
    "price": 2.5,
    "taints": [{"key": "nvidia.com/gpu", "effect": "NoSchedule"}],
}


def profiles(*entries: dict[str, Any]) -> tuple[AcceleratorProfile, ...]:
    return parse_profiles(json.dumps(entries))


def test_a_pool_that_an_autoscaler_would_make() -> None:
    (pool,) = inventory([], {}, profiles(H100_POOL)).pools
    assert (pool.nodes, pool.exists, pool.gpus_per_node, pool.price) == (0, False, 8, 2.5)
    assert (pool.usable_bytes, pool.link, pool.device.compute_capability) == (int(79.18 * GIB), "nvlink", (9, 0))
    assert pool.requirements == (
        LabelRequirement(key="pool", values=("h100",)),
        LabelRequirement(key="zone", values=("a",)),
    )
    assert pool.taints == (Taint(key="nvidia.com/gpu", value="", effect="NoSchedule"),)


def test_a_profile_without_count_expects_no_nodes() -> None:
    assert inventory([], {}, profiles({**H100_POOL, "count": 0})).pools == ()


def test_nodes_that_exist_take_the_place_of_those_to_come() -> None:
    node = labelled(H100 | {"pool": "h100", "zone": "a"}, 8)
    (pool,) = inventory([node], {}, profiles(H100_POOL)).pools
    assert (pool.nodes, pool.price) == (1, 2.5)


def test_a_cordoned_node_does_not_keep_the_autoscaler_from_making_others() -> None:
    node = labelled(H100 | {"pool": "h100", "zone": "a"}, 8)
    node["spec"]["unschedulable"] = True
    found = inventory([node], {}, profiles(H100_POOL))
    assert [pool.nodes for pool in found.pools] == [0]
    assert [each.why for each in found.left_out] == ["is cordoned"]


def test_a_profile_stands_in_for_missing_labels() -> None:
    node = make_node().gpus(8).label("pool", "h100").label("zone", "a").build()
    (pool,) = inventory([node], {}, profiles(H100_POOL)).pools
    assert (pool.product, pool.nodes, pool.usable_bytes) == ("NVIDIA-H100-80GB-HBM3", 1, int(79.18 * GIB))
    assert [each.key for each in pool.requirements] == ["pool", "zone"]


@pytest.mark.parametrize(
    "labels",
    [
        gfd("NVIDIA-H100-80GB-HBM3", "eighty", 8),
        gfd("NVIDIA-H100-80GB-HBM3", 23034, 8),
        gfd("NVIDIA-A40", 46068, 2),
    ],
    ids=["no number", "contradiction", "different kinds"],
)
def test_a_profile_mends_wrong_labels(labels: dict[str, str]) -> None:
    node = labelled(labels | {"pool": "h100", "zone": "a"}, 8)
    (pool,) = inventory([node], {}, profiles(H100_POOL)).pools
    assert pool.product == "NVIDIA-H100-80GB-HBM3"


def test_a_profile_does_not_mend_a_node_that_is_being_cut() -> None:
    node = labelled(MIG_SINGLE | {"nvidia.com/mig.config.state": "pending", "pool": "h100", "zone": "a"}, 8)
    assert [pool.nodes for pool in inventory([node], {}, profiles(H100_POOL)).pools] == [0]


def test_memory_link_and_capability_of_a_profile_win_over_labels() -> None:
    (profile,) = profiles(
        {
            "name": "mine",
            "selector": {"nvidia.com/gpu.product": "NVIDIA-L4"},
            "product": "NVIDIA-L4",
            "usableGiB": 20.5,
            "link": "nvlink",
            "computeCapability": "8.9",
        }
    )
    (pool,) = inventory([labelled(L4, 4)], {}, [profile]).pools
    assert (pool.usable_bytes, pool.link) == (int(20.5 * GIB), "nvlink")


def test_the_first_profile_that_describes_a_node_does() -> None:
    entries = profiles({**H100_POOL, "selector": {"zone": "a"}}, {**H100_POOL, "name": "dear", "price": 9})
    node = labelled(H100 | {"pool": "h100", "zone": "a"}, 8)
    assert [(pool.nodes, pool.price) for pool in inventory([node], {}, entries).pools] == [(1, 2.5), (0, 9.0)]


def test_a_resource_that_no_plugin_here_is_known_for() -> None:
    (profile,) = profiles(
        {
            "name": "own",
            "selector": {"pool": "own"},
            "product": "Own-1",
            "memoryMiB": 65536,
            "resourceName": "example.com/accelerator",
        }
    )
    node = make_node().gpus(4, resource="example.com/accelerator").label("pool", "own").build()
    found = inventory([node], {}, [profile])
    assert [(pool.resource_name, pool.product) for pool in found.pools] == [("example.com/accelerator", "Own-1")]
    assert found.resources_seen == ("example.com/accelerator",)


def test_a_profile_takes_the_place_of_a_node_pool_with_the_same_gpus() -> None:
    node_pool = karpenter_node_pool(("karpenter.k8s.aws/instance-family", "In", ["p5"]))
    entries = profiles({**H100_POOL, "count": 8})
    found = inventory([], {}, entries, [node_pool]).pools
    assert [(pool.gpus_per_node, pool.price) for pool in found] == [(1, 0.0), (8, 2.5)]


@pytest.mark.parametrize(
    "change",
    [
        {"product": "NVIDIA-A100-SXM4-80GB-MIG-3g.40gb"},
        {"product": "NVIDIA-L4-SHARED"},
        {"resourceName": "nvidia.com/mig-3g.40gb"},
    ],
)
def test_slices_and_shared_gpus_to_come(change: dict[str, Any]) -> None:
    (pool,) = inventory([], {}, profiles({**H100_POOL, "memoryMiB": 20000, **change})).pools
    assert (pool.single, pool.largest_replica, pool.link) == (True, 1, "unknown")


def test_a_known_product_has_one_name() -> None:
    (pool,) = inventory([], {}, profiles({**H100_POOL, "product": "H100"})).pools
    assert pool.product == "NVIDIA-H100-80GB-HBM3"


@pytest.mark.parametrize("text", ["", "[]"])
def test_no_profiles(text: str) -> None:
    assert parse_profiles(text) == ()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "no JSON"),
        ("[" * 100_000, "no JSON"),
        ("{}", "no list"),
        (json.dumps([H100_POOL] * 65), "at most 64"),
        ("[1]", r"acceleratorProfiles\[0\] is no object"),
        (json.dumps([H100_POOL, H100_POOL]), "two profiles with the name 'h100-spot'"),
    ],
)
def test_a_configuration_that_is_no_list_of_profiles(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        parse_profiles(text)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"nmae": "x"}, "unknown field 'nmae'"),
        ({"name": ""}, "name='' is no text"),
        ({"name": None}, "name='None' is no text"),
        ({"selector": {}}, "selector='{}' is no map"),
        ({"selector": {"a": 1}}, "selector"),
        ({"product": "Own-1"}, "product='Own-1' has no memory that is known here; set memoryMiB or usableGiB, too"),
        ({"product": "NVIDIA-L4-MIG-1g.5gb"}, "has no memory that is known here"),
        ({"product": "a100"}, "has no memory that is known here"),
        ({"memoryMiB": "80GB"}, "memoryMiB='80GB' is no whole number"),
        ({"memoryMiB": -1}, "memoryMiB='-1'"),
        ({"usableGiB": float("nan")}, "usableGiB='nan' is no number"),
        ({"count": True}, "count='True' is no whole number"),
        ({"count": 257}, "from 0 to 256"),
        ({"link": "wire"}, "link='wire' is none of nvlink, pcie, unknown"),
        ({"price": -1}, "price='-1'"),
        ({"resourceName": "gpu"}, "resourceName='gpu' is no name"),
        ({"computeCapability": "9"}, "computeCapability='9'"),
        ({"computeCapability": 9.0}, "computeCapability='9.0'"),
        ({"taints": [{"key": "a", "effect": "PreferNoSchedule"}]}, "taints="),
        ({"taints": "a"}, "taints='a'"),
    ],
)
def test_a_field_that_is_wrong_is_named_with_its_value(change: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=r"acceleratorProfiles\[0\]") as caught:
        profiles({**H100_POOL, **change})
    assert says in str(caught.value)


def test_the_operator_does_not_start_with_a_wrong_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_OPERATOR_ACCELERATOR_PROFILES", json.dumps([{**H100_POOL, "count": 257}]))
    with pytest.raises(ValidationError, match=r"acceleratorProfiles\[0\].count='257' is no whole number"):
        Settings()
