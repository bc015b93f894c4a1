"""Names of products, and the memory that an engine sees on them."""

from __future__ import annotations

import pytest

from vllm_operator.planner.inventory.instance_types import INSTANCE_TYPES
from vllm_operator.planner.inventory.products import PRODUCTS, link_of, product_named, products_named
from vllm_operator.planner.inventory.usable import usable_bytes

GIB = 1 << 30


@pytest.mark.parametrize(
    ("name", "memory_mib", "product"),
    [
        ("NVIDIA-A100-SXM4-40GB", 0, "NVIDIA-A100-SXM4-40GB"),
        ("A100-SXM4-40GB", 40536, "NVIDIA-A100-SXM4-40GB"),
        ("NVIDIA A100-SXM4-40GB", 0, "NVIDIA-A100-SXM4-40GB"),
        ("NVIDIA-L4-SHARED", 0, "NVIDIA-L4"),
        ("NVIDIA-H100-80GB-HBM3-MIG-1g.10gb", 0, "NVIDIA-H100-80GB-HBM3"),
        ("NVIDIA-H100-80GB-HBM3-MIG-1g.10gb-SHARED", 0, "NVIDIA-H100-80GB-HBM3"),
        ("a100", 81920, "NVIDIA-A100-SXM4-80GB"),
        ("a100", 40960, "NVIDIA-A100-SXM4-40GB"),
        ("a100", 0, None),
        ("AMD_Instinct_MI300X_OAM", 0, "AMD_Instinct_MI300X_OAM"),
        ("AMD_Instinct_MI300X", 0, "AMD_Instinct_MI300X_OAM"),
        ("MI325X", 0, "AMD_Instinct_MI325X_OAM"),
        ("HL-325", 0, "Gaudi3"),
        ("NVIDIA-X1", 0, None),
        ("", 0, None),
    ],
)
def test_names(name: str, memory_mib: int, product: str | None) -> None:
    found = product_named(name, memory_mib)
    assert (None if found is None else found.name) == product


def test_every_product_is_found_by_its_own_name_alone() -> None:
    for product in PRODUCTS:
        assert products_named(product.name) == (product,)


def test_every_machine_has_a_product_of_the_table() -> None:
    assert [name for name, each in INSTANCE_TYPES.items() if product_named(each.product) is None] == []


@pytest.mark.parametrize(
    ("name", "label_mib", "usable_gib"),
    [
        ("Tesla-T4", 15360, 14.56),
        ("NVIDIA-L4", 23034, 21.96),
        ("NVIDIA-A10G", 23028, 22.07),
        ("NVIDIA-A100-SXM4-40GB", 40960, 39.39),
        ("NVIDIA-L40S", 46068, 44.4),
        ("NVIDIA-A100-SXM4-80GB", 81920, 79.15),
        ("NVIDIA-H100-80GB-HBM3", 81559, 79.18),
        ("NVIDIA-H200", 143771, 139.8),
        ("NVIDIA-B200", 183359, 178.36),
        ("NVIDIA-GeForce-RTX-5090", 32607, 31.36),
        ("AMD_Instinct_MI300X_OAM", 196608, 191.5),
    ],
)
def test_measured_memory(name: str, label_mib: int, usable_gib: float) -> None:
    assert usable_bytes(name, label_mib) == usable_bytes(name) == int(usable_gib * GIB)


def test_usable_memory_is_below_the_label_for_every_product() -> None:
    for product in PRODUCTS:
        assert 0.95 * product.label_mib < usable_bytes(product.name) / 2**20 < product.label_mib, product.name


def test_a_smaller_label_than_the_products_is_believed() -> None:
    assert usable_bytes("NVIDIA-A100-SXM4-40GB", 39538) < 39538 * 2**20


def test_nothing_known_is_nothing() -> None:
    assert usable_bytes("NVIDIA-X1") == 0
    assert usable_bytes("NVIDIA-L4-MIG-x") == 0


@pytest.mark.parametrize(
    ("name", "link"),
    [
        ("NVIDIA-H100-80GB-HBM3", "nvlink"),
        ("NVIDIA-H100-PCIe", "pcie"),
        ("NVIDIA-H100-NVL", "nvlink"),
        ("NVIDIA-L40S", "pcie"),
        ("NVIDIA-X9-SXM7-1TB", "nvlink"),
        ("NVIDIA-GeForce-RTX-9090", "pcie"),
        ("NVIDIA-X9", "unknown"),
    ],
)
def test_links(name: str, link: str) -> None:
    assert link_of(name) == link
