"""Whatever the labels hold, the inventory is made, and it is a function of the set of nodes."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.builders import make_node
from tests.unit.planner.inventory import label_sets
from tests.unit.planner.inventory.label_sets import karpenter_node_pool, resource_slice

from vllm_operator.kube.kinds import Manifest
from vllm_operator.planner.inventory.pools import inventory
from vllm_operator.planner.inventory.profiles import parse_profiles

KNOWN = [value for name, value in vars(label_sets).items() if name.isupper() and isinstance(value, dict)]
KEYS = sorted({key for labels in KNOWN for key in labels} | {"beta.amd.com/gpu.vram.", "nvidia.com/mig-1g.10gb.memory"})
VALUES = sorted({value for labels in KNOWN for value in labels.values()})
RESOURCES = ("nvidia.com/gpu", "nvidia.com/gpu.shared", "nvidia.com/mig-1g.10gb", "amd.com/gpu", "amd.com/cpx_nps4",
             "gpu.intel.com/xe", "habana.ai/gaudi", "google.com/tpu", "cpu")  # fmt: skip
PROFILES = parse_profiles(
    '[{"name": "a", "selector": {"nvidia.com/gpu.product": "NVIDIA-L4"}, "product": "NVIDIA-L4", "count": 2},'
    ' {"name": "b", "selector": {"pool": "b"}, "product": "x", "memoryMiB": 1, "resourceName": "google.com/tpu"}]'
)

label_values = st.one_of(st.sampled_from(VALUES), st.text(max_size=12), st.integers().map(str))
any_labels = st.one_of(
    st.sampled_from(KNOWN),
    st.dictionaries(st.one_of(st.sampled_from(KEYS), st.text(max_size=12)), label_values, max_size=12),
)


@st.composite
def labelled_nodes(draw: st.DrawFn) -> list[Manifest]:
    nodes = []
    for index in range(draw(st.integers(0, 6))):
        node = make_node(f"node-{index}").build()
        node["metadata"]["labels"] = {**draw(any_labels), **draw(any_labels)}
        for resource in draw(st.lists(st.sampled_from(RESOURCES), max_size=3)):
            node["status"]["allocatable"][resource] = draw(st.one_of(st.integers(0, 16).map(str), st.text(max_size=5)))
        node["status"]["allocatable"]["memory"] = draw(st.one_of(st.just("512Gi"), st.text(max_size=8)))
        node["status"]["allocatable"]["cpu"] = draw(st.one_of(st.just("64"), st.text(max_size=8)))
        nodes.append(node)
    return nodes


@given(nodes=labelled_nodes(), shuffled=st.randoms(use_true_random=False))
@settings(max_examples=150, deadline=None)
def test_odd_labels_never_raise_and_order_does_not_matter(nodes: list[Manifest], shuffled: Any) -> None:
    node_pools = [karpenter_node_pool(("karpenter.k8s.aws/instance-family", "In", ["g6"]))]
    slices = [resource_slice("node-0", ("NVIDIA L4", "23034Mi", "8.9.0"))]
    requests = {node["metadata"]["name"]: {"nvidia.com/gpu": 1} for node in nodes[::2]}
    found = inventory(nodes, requests, PROFILES, node_pools, slices)
    again = list(nodes)
    shuffled.shuffle(again)
    assert inventory(again, requests, PROFILES, node_pools, slices) == found
    for pool in found.pools:
        assert pool.usable_bytes > 0
        assert pool.gpus_per_node > 0
        assert pool.requirements
        assert all(0 <= free <= pool.gpus_per_node for free in pool.free_gpus_by_node)
        assert len(pool.free_gpus_by_node) <= max(pool.nodes, 0)
    offering = {node["metadata"]["name"] for node in nodes}
    assert {node.name for node in found.left_out} <= offering


@given(nodes=labelled_nodes())
@settings(max_examples=60, deadline=None)
def test_each_offered_resource_is_in_a_pool_or_left_out(nodes: list[Manifest]) -> None:
    found = inventory(nodes, {}, ())
    known = ("nvidia.com/gpu", "nvidia.com/mig-1g.10gb", "amd.com/gpu", "gpu.intel.com/xe", "habana.ai/gaudi")
    for resource in known:
        offering = sum(
            1
            for node in nodes
            if (text := node["status"]["allocatable"].get(resource, "0")).isascii() and text.isdigit() and int(text) > 0
        )
        pooled = sum(pool.nodes for pool in found.pools if pool.resource_name == resource)
        assert pooled + sum(node.resource_name == resource for node in found.left_out) == offering


@given(labels=any_labels, gpus=st.integers(1, 16))
@settings(max_examples=60, deadline=None)
def test_a_pod_of_a_pool_can_land_on_its_nodes(labels: dict[str, str], gpus: int) -> None:
    """Requirements name labels that the nodes have."""
    node = make_node().gpus(gpus).build()
    node["metadata"]["labels"] = labels
    for pool in inventory([node], {}, ()).pools:
        for requirement in pool.requirements:
            assert labels.get(requirement.key) in requirement.values
