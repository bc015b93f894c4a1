"""Pools from ``--accelerator``."""

from __future__ import annotations

import pytest

from vllm_operator.cli.accelerators import parse_accelerator
from vllm_operator_api.quantities import BYTES_PER_GIB


@pytest.mark.parametrize(
    ("text", "usable_gib", "per_node", "nodes"),
    [
        ("NVIDIA-H100-80GB-HBM3:8", 79.18, 8, 1),
        ("h100:8x2", 79.18, 8, 2),
        ("NVIDIA H200:4", 139.8, 4, 1),
        ("Tesla-T4:1", 14.56, 1, 1),
        ("A100-SXM4-40GB:8", 39.39, 8, 1),
        ("mi300x:8", 191.5, 8, 1),
        ("NVIDIA-H100-80GB-HBM3=70.25:8", 70.25, 8, 1),
        ("my-gpu=47.5:4x12", 47.5, 4, 12),
        ("a100=79.15:8", 79.15, 8, 1),
        ("max-x1=24:2", 24, 2, 1),
    ],
)
def test_memory_and_numbers(text: str, usable_gib: float, per_node: int, nodes: int) -> None:
    pool = parse_accelerator(text)
    assert pool.usable_bytes == int(usable_gib * BYTES_PER_GIB)
    assert (pool.gpus_per_node, pool.nodes, pool.free_gpus_by_node) == (per_node, nodes, (per_node,) * nodes)
    assert pool.product == text.partition(":")[0].partition("=")[0]


@pytest.mark.parametrize(
    ("text", "vendor", "capability", "link"),
    [
        ("NVIDIA-B200:8", "nvidia", (10, 0), "nvlink"),
        ("NVIDIA-L4:8", "nvidia", (8, 9), "pcie"),
        ("a100=79.15:8", "nvidia", (8, 0), "nvlink"),
        ("AMD_Instinct_MI300X_OAM:8", "amd", None, "nvlink"),
        ("Gaudi3:8", "habana", None, "nvlink"),
        ("my-gpu=47.5:4", "nvidia", None, "unknown"),
    ],
)
def test_what_is_known_of_a_product(text: str, vendor: str, capability: tuple[int, int] | None, link: str) -> None:
    pool = parse_accelerator(text)
    assert (pool.device.vendor, pool.device.compute_capability, pool.link) == (vendor, capability, link)


@pytest.mark.parametrize("text", ["NVIDIA-A100-SXM4-40GB-MIG-1g.5gb:7", "NVIDIA-L4-SHARED:8", "x-MIG-huge=9.5:7"])
def test_slices_and_shares_do_not_reach_each_other(text: str) -> None:
    assert parse_accelerator(text).largest_replica == 1


def test_a_slice_has_less_than_its_name_says() -> None:
    assert 0.9 * 10 < parse_accelerator("NVIDIA-H100-80GB-HBM3-MIG-1g.10gb:7").usable_bytes / BYTES_PER_GIB < 10
