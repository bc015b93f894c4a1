"""ResourceSlices as a better source of memory and compute capability."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.planner.inventory.label_sets import H100, MIG_SINGLE, gfd, labelled, resource_slice

from vllm_operator.planner.inventory.dra import NodeGpus, SlicedGpu, gpus_by_node
from vllm_operator.planner.inventory.pools import inventory

DEVICE = ("NVIDIA H100 80GB HBM3", "81559Mi", "9.0.0")


def test_the_devices_of_a_node() -> None:
    assert gpus_by_node([resource_slice("n", DEVICE, DEVICE)]) == {
        "n": NodeGpus((SlicedGpu("NVIDIA-H100-80GB-HBM3", 81559, (9, 0)),))
    }


def test_the_form_of_older_api_servers() -> None:
    new = resource_slice("n", DEVICE)
    old = resource_slice("n", DEVICE)
    old["spec"]["devices"] = [
        {"name": device["name"], "basic": {key: device[key] for key in ("attributes", "capacity")}}
        for device in new["spec"]["devices"]
    ]
    assert gpus_by_node([old]) == gpus_by_node([new])


def test_slices_of_an_older_generation_are_gone() -> None:
    slices = [resource_slice("n", ("Old", "1Gi", "7.0.0"), generation=1), resource_slice("n", DEVICE, generation=2)]
    for ordered in (slices, slices[::-1]):
        assert [gpu.product for gpu in gpus_by_node(ordered)["n"].kinds] == ["NVIDIA-H100-80GB-HBM3"]


def test_memory_and_capability_are_the_drivers() -> None:
    node = labelled(gfd("NVIDIA-Unheard-Of", 20480, 8, "1.0"), 8, name="n")
    (pool,) = inventory([node], {}, (), (), [resource_slice("n", ("Unheard Of", "40960Mi", "12.1.0"))]).pools
    assert pool.device.compute_capability == (12, 1)
    assert pool.usable_bytes == int(40960 * 2**20 * 0.984)


def test_devices_of_different_kinds_leave_the_node_out() -> None:
    slices = [resource_slice("n", DEVICE, ("NVIDIA L4", "23034Mi", "8.9.0"))]
    found = inventory([labelled(H100, 8, name="n")], {}, (), (), slices)
    assert found.pools == ()
    assert "NVIDIA-H100-80GB-HBM3, NVIDIA-L4" in found.left_out[0].why


def test_slices_of_whole_gpus_say_nothing_of_mig() -> None:
    node = labelled(MIG_SINGLE, 56, name="n")
    assert inventory([node], {}, (), (), [resource_slice("n", DEVICE)]) == inventory([node], {}, ())


@pytest.mark.parametrize(
    "change",
    [
        {"driver": "other.com"},
        {"nodeName": None},
        {"devices": None},
        {"devices": [None, 1, {}]},
        {"devices": [{"attributes": {"type": {"string": "mig"}}}]},
        {"devices": [{"attributes": {"type": {"string": "gpu"}, "productName": {"string": "X"}}}]},
        {
            "devices": [
                {
                    "attributes": {"type": {"string": "gpu"}, "productName": {"string": "X"}},
                    "capacity": {"memory": {"value": "9" * 40}},
                }
            ]
        },
    ],
)
def test_slices_that_say_nothing(change: dict[str, Any]) -> None:
    resource_slice_ = resource_slice("n", DEVICE)
    resource_slice_["spec"] |= change
    assert gpus_by_node([resource_slice_]) == {}
