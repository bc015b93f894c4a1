"""A real control plane with our definitions, shared by the tests of this directory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.kubectl import Kubectl

from localk8s.api import ApiError, wait_until
from localk8s.control_plane import ControlPlane

REPOSITORY = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="session")
def control_plane() -> Iterator[ControlPlane]:
    """Control plane in which both kinds are served."""
    with ControlPlane() as running:
        kubectl = Kubectl(running.kubeconfig)
        kubectl("apply", "--server-side", "-f", str(REPOSITORY / "crds"))
        kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")

        def served() -> bool:
            try:
                running.api.request("GET", "/apis/inference.vllm-operator.io/v1alpha1/inferencejobs")
                running.api.request("GET", "/apis/inference.vllm-operator.io/v1alpha1/llmservices")
            except ApiError:
                return False
            return True

        wait_until(served, 30, "both kinds to be served")
        yield running


@pytest.fixture(scope="session")
def kubectl(control_plane: ControlPlane) -> Kubectl:
    return Kubectl(control_plane.kubeconfig)
