"""GPU pools from nodes."""

from __future__ import annotations

from tests.support.builders import make_node

from vllm_operator.planner.inventory import gpu_inventory

RESOURCE = "nvidia.com/gpu"


def test_groups_equal_nodes() -> None:
    nodes = [make_node(f"l4-{i}").gpus(4).product("NVIDIA-L4", 23034).build() for i in range(3)]
    nodes.append(make_node("h100").gpus(8).product("NVIDIA-H100-80GB-HBM3", 81559).build())
    nodes.append(make_node("cpu").build())
    inventory = gpu_inventory(nodes, RESOURCE)
    assert [(pool.product, pool.gpus_per_node, pool.nodes) for pool in inventory.pools] == [
        ("NVIDIA-L4", 4, 3),
        ("NVIDIA-H100-80GB-HBM3", 8, 1),
    ]


def test_what_cannot_be_used_is_named() -> None:
    nodes = [
        make_node("down").gpus(8).product("NVIDIA-L4", 23034).not_ready().build(),
        make_node("cordoned").gpus(8).product("NVIDIA-L4", 23034).cordoned().build(),
        make_node("plain").gpus(8).build(),
        make_node("odd").gpus(8).product("NVIDIA-L4").label("nvidia.com/gpu.memory", "-1").build(),
    ]
    inventory = gpu_inventory(nodes, RESOURCE)
    assert inventory.pools == ()
    assert inventory.unusable_nodes == ("cordoned", "down")
    assert inventory.unlabelled_nodes == ("odd", "plain")


def test_slices_and_shared_gpus_have_no_peers() -> None:
    nodes = [
        make_node("a").gpus(7).product("NVIDIA-A100-SXM4-80GB-MIG-1g.10gb", 9728).build(),
        make_node("b").gpus(4).product("NVIDIA-L4-SHARED", 23034).build(),
        make_node("c").gpus(4).product("NVIDIA-L4", 23034).label("nvidia.com/gpu.sharing-strategy", "mps").build(),
        make_node("d").gpus(4).product("NVIDIA-L4", 23034).label("nvidia.com/gpu.sharing-strategy", "none").build(),
    ]
    assert [pool.largest_replica for pool in gpu_inventory(nodes, RESOURCE).pools] == [1, 1, 4, 1]


def test_another_resource() -> None:
    node = make_node().gpus(8, resource="amd.com/gpu").product("MI300X", 196608).build()
    assert gpu_inventory([node], RESOURCE).pools == ()
    assert len(gpu_inventory([node], "amd.com/gpu").pools) == 1
