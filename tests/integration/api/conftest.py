"""A real control plane with our definitions, shared by the tests of this directory."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from localk8s import binaries
from localk8s.api import ApiError, wait_until
from localk8s.control_plane import ControlPlane
from localk8s.paths import Layout

REPOSITORY = Path(__file__).resolve().parents[3]


class Kubectl:
    """kubectl as a cluster administrator."""

    def __init__(self, kubeconfig: Path) -> None:
        self._command = [str(binaries.ensure(Layout.default(), "kubectl")), f"--kubeconfig={kubeconfig}"]

    def __call__(self, *arguments: str, stdin: str | None = None) -> str:
        """Standard output; an error carries what kubectl wrote.

        Raises:
            KubectlError: kubectl ended with another status than 0.
        """
        done = subprocess.run(
            [*self._command, *arguments], input=stdin, capture_output=True, text=True, timeout=60, check=False
        )
        if done.returncode != 0:
            raise KubectlError(done.stderr)
        return done.stdout


class KubectlError(Exception):
    """What kubectl wrote when it refused."""


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
