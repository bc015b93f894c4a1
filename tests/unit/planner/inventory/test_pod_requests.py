"""What pods ask for."""

from __future__ import annotations

from typing import Any

import pytest

from vllm_operator.planner.inventory.pod_requests import requested, requested_by

GPU = "nvidia.com/gpu"


def container(gpus: int, **more: Any) -> dict[str, Any]:
    return {"resources": {"requests": {GPU: str(gpus), "cpu": "1"}, "limits": {GPU: str(gpus)}}, **more}


def pod(*containers: dict[str, Any], init: tuple[dict[str, Any], ...] = (), phase: str = "Running") -> dict[str, Any]:
    return {"spec": {"containers": list(containers), "initContainers": list(init)}, "status": {"phase": phase}}


@pytest.mark.parametrize(
    ("one", "gpus"),
    [
        (pod(container(1), container(2)), 3),
        (pod(container(1), init=(container(4), container(2))), 4),
        (pod(container(4), init=(container(1),)), 4),
        (pod(container(1), init=(container(2, restartPolicy="Always"),)), 3),
        (pod(container(1), init=(container(2, restartPolicy="Always"), container(3))), 5),
        (pod({"resources": {"limits": {GPU: "2"}}}), 2),
    ],
    ids=["sum", "init is more", "init is less", "sidecar", "sidecar and init", "limits only"],
)
def test_as_the_scheduler_counts(one: dict[str, Any], gpus: int) -> None:
    assert requested_by(one) == {GPU: gpus}


def test_nothing_but_extended_resources() -> None:
    assert requested_by(
        pod({"resources": {"requests": {"cpu": "1", "memory": "1Gi", "example.com/nic": "1"}}}, {})
    ) == {"example.com/nic": 1}


def test_pods_that_have_ended_hold_nothing() -> None:
    pods = [pod(container(1)), pod(container(2), phase="Pending"), pod(container(4), phase="Succeeded")]
    pods.append(pod(container(8), phase="Failed"))
    assert requested(pods) == {GPU: 3}


def test_pods_without_anything() -> None:
    assert requested([{}, {"spec": None, "status": None}]) == {}
