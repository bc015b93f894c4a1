"""Grouping nodes into pools: what is one pool, what is free, which labels select it, and in which order."""

from __future__ import annotations

from dataclasses import replace

from tests.support.builders import make_node
from tests.unit.planner.inventory.label_sets import (
    H100,
    KARPENTER_L4,
    L4,
    MI300X,
    TIME_SLICED,
    gfd,
    labelled,
)

from vllm_operator.planner.inventory.pool import LabelRequirement, Taint
from vllm_operator.planner.inventory.pools import for_resource, inventory, left_out_of

PRODUCT_LABEL = "nvidia.com/gpu.product"


def test_equal_nodes_are_one_pool_and_the_smaller_gpu_comes_first() -> None:
    nodes = [labelled(H100, 8, name="h100"), make_node("cpu").build()]
    nodes += [labelled(L4, 4, name=f"l4-{index}") for index in range(3)]
    found = inventory(nodes, {}, ())
    assert [(pool.product, pool.gpus_per_node, pool.nodes) for pool in found.pools] == [
        ("NVIDIA-L4", 4, 3),
        ("NVIDIA-H100-80GB-HBM3", 8, 1),
    ]
    assert (found.left_out, found.resources_seen) == ((), ("nvidia.com/gpu",))


def test_all_resources_are_in_one_inventory() -> None:
    nodes = [labelled(L4, 4, name="l4"), labelled(MI300X, 8, name="amd", resource="amd.com/gpu")]
    nodes.append(make_node("tpu").gpus(4, resource="google.com/tpu").build())
    found = inventory(nodes, {}, ())
    assert found.resources_seen == ("amd.com/gpu", "google.com/tpu", "nvidia.com/gpu")
    assert [pool.device.vendor for pool in for_resource(found, "amd.com/gpu")] == ["amd"]
    assert [pool.product for pool in for_resource(found, "nvidia.com/gpu")] == ["NVIDIA-L4"]
    assert for_resource(found, "google.com/tpu") == ()


def test_left_out_nodes_are_those_of_the_resource() -> None:
    nodes = [make_node("a").gpus(8).build(), make_node("b").gpus(8, resource="amd.com/gpu").build()]
    found = inventory(nodes, {}, ())
    assert [node.name for node in left_out_of(found, "nvidia.com/gpu")] == ["a"]
    assert [node.name for node in left_out_of(found, "amd.com/gpu")] == ["b"]


def test_free_gpus_are_those_that_no_pod_asks_for() -> None:
    nodes = [labelled(H100, 8, name=name) for name in ("busy", "free", "half", "over", "unknown")]
    requests = {
        "busy": {"nvidia.com/gpu": 8},
        "free": {},
        "half": {"nvidia.com/gpu": 4, "other.com/nic": 8},
        "over": {"nvidia.com/gpu": 9},
    }
    (pool,) = inventory(nodes, requests, ()).pools
    assert pool.free_gpus_by_node == (8, 4, 0, 0)
    assert pool.nodes == 5


def test_nothing_is_known_to_be_free_without_requests() -> None:
    (pool,) = inventory([labelled(H100, 8)], {}, ()).pools
    assert pool.free_gpus_by_node == ()


def test_host_memory_and_cpu_are_those_of_the_smallest_node() -> None:
    small = labelled(L4, 4, name="small")
    small["status"]["allocatable"] |= {"cpu": "31850m", "memory": "131072Mi"}
    (pool,) = inventory([labelled(L4, 4, name="large"), small], {}, ()).pools
    assert (pool.cpu_millis_per_node, pool.memory_bytes_per_node) == (31850, 128 << 30)


def test_a_node_that_does_not_state_its_memory_makes_it_unknown() -> None:
    odd = labelled(L4, 4, name="odd")
    odd["status"]["allocatable"]["memory"] = "1e9"
    for nodes in ([labelled(L4, 4), odd], [odd, labelled(L4, 4)]):
        (pool,) = inventory(nodes, {}, ()).pools
        assert pool.memory_bytes_per_node == 0


def test_taints_that_last_are_told_and_divide_pools() -> None:
    gpu = {"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}
    team = {"key": "team", "value": "a", "effect": "NoExecute"}
    soft = {"key": "soft", "value": "", "effect": "PreferNoSchedule"}
    nodes = [labelled(L4, 4, name="plain", taints=(soft,)), labelled(L4, 4, name="tainted", taints=(team, gpu))]
    assert [pool.taints for pool in inventory(nodes, {}, ()).pools] == [
        (),
        (
            Taint(key="nvidia.com/gpu", value="present", effect="NoSchedule"),
            Taint(key="team", value="a", effect="NoExecute"),
        ),
    ]


def test_labels_of_the_vendor_select_where_no_provisioner_is_known() -> None:
    (pool,) = inventory([labelled(L4, 4)], {}, ()).pools
    assert pool.requirements == (LabelRequirement(key=PRODUCT_LABEL, values=("NVIDIA-L4",)),)


def test_labels_of_the_provisioner_select_even_where_the_vendors_are_there() -> None:
    (pool,) = inventory([labelled(KARPENTER_L4 | L4, 4)], {}, ()).pools
    assert pool.requirements == (
        LabelRequirement(key="karpenter.k8s.aws/instance-gpu-name", values=("l4",)),
        LabelRequirement(key="karpenter.k8s.aws/instance-gpu-memory", values=("22888",)),
    )


def test_pools_that_the_provisioners_labels_do_not_tell_apart_are_told_apart_by_the_vendors() -> None:
    nodes = [labelled(KARPENTER_L4 | L4, 4, name="whole"), labelled(KARPENTER_L4 | TIME_SLICED, 16, name="shared")]
    whole, shared = inventory(nodes, {}, ()).pools
    assert (whole.single, shared.single) == (False, True)
    for pool, product in ((whole, "NVIDIA-L4"), (shared, "NVIDIA-L4-SHARED")):
        assert LabelRequirement(key=PRODUCT_LABEL, values=(product,)) in pool.requirements


def test_one_product_in_two_sizes_is_told_apart_by_memory() -> None:
    nodes = [
        labelled(gfd("NVIDIA-New-Thing", 50000, 8), 8, name="small"),
        labelled(gfd("NVIDIA-New-Thing", 99000, 8), 8, name="large-1"),
        labelled(gfd("NVIDIA-New-Thing", 99000, 8), 8, name="large-2"),
    ]
    small, large = inventory(nodes, {}, ()).pools
    assert (small.nodes, large.nodes) == (1, 2)
    assert small.requirements[-1] == LabelRequirement(key="nvidia.com/gpu.memory", values=("50000",))
    assert large.requirements[-1] == LabelRequirement(key="nvidia.com/gpu.memory", values=("99000",))


def test_drivers_that_report_a_little_other_memory_do_not_divide_a_pool() -> None:
    nodes = [
        labelled(gfd("NVIDIA-H100-80GB-HBM3", 81559, 8), 8, name="a"),
        labelled(gfd("NVIDIA-H100-80GB-HBM3", 81920, 8), 8, name="b"),
    ]
    (pool,) = inventory(nodes, {}, ()).pools
    assert (pool.nodes, len(pool.requirements)) == (2, 1)


def test_the_order_of_nodes_does_not_matter() -> None:
    nodes = [labelled(L4, 4, name="a"), labelled(H100, 8, name="b"), make_node("c").gpus(2).build()]
    requests = {"a": {"nvidia.com/gpu": 1}}
    assert inventory(nodes, requests, ()) == inventory(reversed(nodes), requests, ())


def test_nodes_with_fewer_gpus_are_a_pool_of_their_own() -> None:
    nodes = [labelled(L4, 4, name="whole"), labelled(L4, 3, name="one-broken")]
    assert [(pool.gpus_per_node, pool.largest_replica) for pool in inventory(nodes, {}, ()).pools] == [(3, 3), (4, 4)]


def test_a_pool_compares_by_value() -> None:
    (first,) = inventory([labelled(L4, 4, name="a")], {"a": {}}, ()).pools
    (second,) = inventory([labelled(L4, 4, name="b")], {"b": {}}, ()).pools
    assert first == second
    assert replace(first, nodes=2) != second
