"""Labels of the vendors' own components: what each says of one node."""

from __future__ import annotations

import pytest
from tests.unit.planner.inventory.label_sets import (
    A100_OLD,
    AMD_TWO_KINDS,
    GAUDI3,
    H100,
    INTEL_FLEX,
    L4,
    MI300X,
    MIG_MIXED,
    MIG_SINGLE,
    MPS,
    TIME_SLICED,
    Labels,
    gfd,
    labelled,
)

from vllm_operator.planner.inventory.pool import GpuPool, LabelRequirement
from vllm_operator.planner.inventory.pools import inventory

GIB = 1 << 30


def the_pool(labels: Labels, gpus: int, resource: str = "nvidia.com/gpu") -> GpuPool:
    found = inventory([labelled(labels, gpus, resource=resource)], {}, ())
    assert found.left_out == ()
    (pool,) = found.pools
    return pool


def why(labels: Labels, gpus: int, resource: str = "nvidia.com/gpu") -> tuple[str, bool]:
    found = inventory([labelled(labels, gpus, resource=resource)], {}, ())
    assert found.pools == ()
    (node,) = found.left_out
    return node.why, node.unlabelled


@pytest.mark.parametrize(
    ("labels", "gpus", "product", "usable_gib", "capability", "link"),
    [
        (H100, 8, "NVIDIA-H100-80GB-HBM3", 79.18, (9, 0), "nvlink"),
        (L4, 4, "NVIDIA-L4", 21.96, (8, 9), "pcie"),
        (A100_OLD, 8, "A100-SXM4-40GB", 38.95, (8, 0), "nvlink"),
        (gfd("NVIDIA-X1-SXM9-500GB", 512000, 8, "13.1"), 8, "NVIDIA-X1-SXM9-500GB", 494.5, (13, 1), "nvlink"),
        (gfd("NVIDIA-Unheard-Of", 20480, 8, ""), 8, "NVIDIA-Unheard-Of", 19.4, None, "unknown"),
    ],
    ids=["H100", "L4", "A100 of an old driver", "unknown product", "no capability"],
)  # fmt: skip
def test_whole_nvidia_gpus(
    labels: Labels, gpus: int, product: str, usable_gib: float, capability: tuple[int, int] | None, link: str
) -> None:
    pool = the_pool(labels, gpus)
    assert (pool.product, pool.device.compute_capability, pool.link, pool.single) == (product, capability, link, False)
    assert pool.usable_bytes / GIB == pytest.approx(usable_gib, abs=0.01)
    assert pool.largest_replica == gpus


def test_slices_that_are_called_gpus() -> None:
    pool = the_pool(MIG_SINGLE, 56)
    assert (pool.single, pool.largest_replica, pool.device.compute_capability) == (True, 1, (8, 0))
    assert pool.usable_bytes == int(9728 * 2**20 * 0.95)
    assert pool.requirements[0].values == ("NVIDIA-A100-SXM4-80GB-MIG-1g.10gb",)


def test_slices_with_a_resource_of_their_own_beside_whole_gpus() -> None:
    node = labelled(MIG_MIXED, 4)
    node["status"]["allocatable"]["nvidia.com/mig-3g.40gb"] = "8"
    requests = {"node": {"nvidia.com/mig-3g.40gb": 5, "nvidia.com/gpu": 1}}
    found = inventory([node], requests, ())
    whole, part = found.pools
    assert found.resources_seen == ("nvidia.com/gpu", "nvidia.com/mig-3g.40gb")
    assert (whole.product, whole.single, whole.free_gpus_by_node) == ("NVIDIA-H100-80GB-HBM3", False, (3,))
    assert (part.product, part.single, part.free_gpus_by_node) == ("NVIDIA-H100-80GB-HBM3-MIG-3g.40gb", True, (3,))
    assert part.usable_bytes == int(40448 * 2**20 * 0.95)
    assert part.requirements[0].key == "nvidia.com/mig-3g.40gb.product"


def test_a_slice_without_labels_of_its_own_is_known_by_its_name() -> None:
    pool = the_pool(H100, 7, "nvidia.com/mig-1g.10gb")
    assert pool.product == "NVIDIA-H100-80GB-HBM3-MIG-1g.10gb"
    assert 8 * GIB < pool.usable_bytes < 9.5 * GIB


def test_time_slicing_shares_compute_and_not_memory() -> None:
    pool = the_pool(TIME_SLICED, 16)
    assert (pool.single, pool.gpus_per_node) == (True, 16)
    assert pool.usable_bytes == the_pool(L4, 4).usable_bytes


def test_a_shared_resource_with_a_name_of_its_own() -> None:
    labels = L4 | {"nvidia.com/gpu.replicas": "4", "nvidia.com/gpu.sharing-strategy": "time-slicing"}
    pool = the_pool(labels, 16, "nvidia.com/gpu.shared")
    assert (pool.product, pool.single) == ("NVIDIA-L4", True)


def test_mps_divides_memory() -> None:
    pool = the_pool(MPS, 4)
    assert pool.single
    assert pool.usable_bytes == the_pool(L4, 4).usable_bytes // 4


def test_mps_memory_that_is_divided_already() -> None:
    assert the_pool(MPS | {"nvidia.com/gpu.memory": "5758"}, 4).usable_bytes == int(5758 * 2**20 * 0.97)


def test_a_virtual_gpu_has_no_known_link() -> None:
    assert the_pool(H100 | {"nvidia.com/vgpu.present": "true"}, 8).link == "unknown"


@pytest.mark.parametrize("state", ["pending", "rebooting"])
def test_a_node_that_is_being_cut_is_left_out(state: str) -> None:
    assert why(MIG_SINGLE | {"nvidia.com/mig.config.state": state}, 8) == (
        f"is being cut into MIG slices (nvidia.com/mig.config.state={state})",
        False,
    )


def test_an_invalid_mig_configuration() -> None:
    text, unlabelled = why(gfd("NVIDIA-A100-SXM4-80GB-MIG-INVALID", 0, 0, mig_strategy="single"), 8)
    assert "invalid MIG configuration" in text
    assert not unlabelled


def test_gpus_of_different_kinds_behind_one_resource() -> None:
    """GFD labels and counts one of the products only."""
    text, unlabelled = why(gfd("NVIDIA-A40", 46068, 2, "8.6"), 6)
    assert text.startswith("offers 6 nvidia.com/gpu, but its labels describe 2 of them (NVIDIA-A40)")
    assert unlabelled


def test_fewer_gpus_than_labelled_are_unhealthy_ones() -> None:
    assert the_pool(H100, 7).gpus_per_node == 7


def test_memory_that_is_not_the_products() -> None:
    text, unlabelled = why(gfd("NVIDIA-H100-80GB-HBM3", 23034, 8), 8)
    assert "contradict each other" in text
    assert "23034" in text
    assert "NVIDIA-H100-80GB-HBM3" in text
    assert unlabelled


@pytest.mark.parametrize("memory", ["80GB", "-1", "81559.5", "1e5", "0", "99999999999999999999", "８１５５９", ""])
def test_memory_that_is_no_number(memory: str) -> None:
    text, unlabelled = why(H100 | {"nvidia.com/gpu.memory": memory}, 8)
    assert text == (f"has the label nvidia.com/gpu.memory={memory!r}, which is no memory size in MiB")
    assert unlabelled


def test_a_known_product_needs_no_memory_label() -> None:
    labels = {key: value for key, value in H100.items() if key != "nvidia.com/gpu.memory"}
    assert the_pool(labels, 8) == the_pool(H100, 8)


def test_an_unknown_product_does() -> None:
    text, unlabelled = why({"nvidia.com/gpu.product": "NVIDIA-X"}, 8)
    assert "'NVIDIA-X'" in text
    assert unlabelled


def test_no_labels_at_all() -> None:
    assert why({}, 8) == ("has no label that says which product its nvidia.com/gpu is", True)


def test_mi300x() -> None:
    pool = the_pool(MI300X, 8, "amd.com/gpu")
    assert (pool.product, pool.device.vendor, pool.link) == ("AMD_Instinct_MI300X_OAM", "amd", "nvlink")
    assert pool.usable_bytes == int(191.5 * GIB)
    assert pool.requirements == (LabelRequirement(key="amd.com/gpu.product-name", values=("AMD_Instinct_MI300X_OAM",)),)


def test_amd_labels_of_an_older_labeller() -> None:
    pool = the_pool({"beta.amd.com/gpu.device-id": "740f", "beta.amd.com/gpu.vram": "64G"}, 4, "amd.com/gpu")
    assert pool.product == "AMD_Instinct_MI210"
    assert pool.requirements == (LabelRequirement(key="beta.amd.com/gpu.device-id", values=("740f",)),)


@pytest.mark.parametrize(
    ("resource", "labels"),
    [
        ("amd.com/gpu", MI300X | {"amd.com/compute-memory-partition": "cpx_nps4"}),
        ("amd.com/cpx_nps4", MI300X),
        ("amd.com/gpu", MI300X | {"amd.com/compute-memory-partition": "cpx_nps4", "amd.com/gpu.vram": "24G"}),
    ],
    ids=["homogeneous", "own resource", "memory of the partition"],
)
def test_partitions_of_an_amd_gpu(resource: str, labels: Labels) -> None:
    pool = the_pool(labels, 64, resource)
    assert pool.product == "AMD_Instinct_MI300X_OAM-CPX"
    assert 23.6 * GIB < pool.usable_bytes <= 24 * GIB


def test_amd_gpus_of_two_kinds() -> None:
    text, unlabelled = why(AMD_TWO_KINDS, 8, "amd.com/gpu")
    assert "AMD_Instinct_MI210, AMD_Instinct_MI300X_OAM" in text
    assert unlabelled


@pytest.mark.parametrize(("vram", "says"), [("lots", "'lots'"), ("64G", "contradict")])
def test_amd_memory_that_cannot_be(vram: str, says: str) -> None:
    assert says in why(MI300X | {"amd.com/gpu.vram": vram}, 8, "amd.com/gpu")[0]


def test_intel_memory_is_the_sum_over_the_node() -> None:
    pool = the_pool(INTEL_FLEX, 2, "gpu.intel.com/i915")
    assert (pool.product, pool.device.vendor, pool.single) == ("Flex_170", "intel", False)
    assert pool.usable_bytes == int(16 * GIB * 0.985)


def test_intel_gpus_given_to_several_pods() -> None:
    assert the_pool(INTEL_FLEX, 20, "gpu.intel.com/i915").single


@pytest.mark.parametrize(("memory", "says"), [("x", "'x'"), (str(2 << 30), "contradict")])
def test_intel_memory_that_cannot_be(memory: str, says: str) -> None:
    assert says in why(INTEL_FLEX | {"gpu.intel.com/memory.max": memory}, 2, "gpu.intel.com/i915")[0]


def test_monitoring_resources_of_intel_are_no_accelerators() -> None:
    node = labelled(INTEL_FLEX, 1, resource="gpu.intel.com/i915_monitoring")
    assert inventory([node], {}, ()).resources_seen == ()


def test_gaudi_memory_is_from_the_generation() -> None:
    pool = the_pool(GAUDI3, 8, "habana.ai/gaudi")
    assert (pool.product, pool.device.vendor, pool.usable_bytes) == ("Gaudi3", "habana", int(128 * GIB * 0.985))
    assert pool.requirements[0].key == "feature.node.kubernetes.io/pci-1200_1da3_1060.present"


def test_gaudi_of_two_generations() -> None:
    labels = GAUDI3 | {"feature.node.kubernetes.io/pci-1da3_1020.present": "true"}
    assert "Gaudi2, Gaudi3" in why(labels, 8, "habana.ai/gaudi")[0]
