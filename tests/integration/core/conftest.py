"""One real control plane for the tests of this folder, with the CRDs in place."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import yaml
from tests.support.waiting import eventually

from localk8s.control_plane import ControlPlane
from vllm_operator.kube.aiohttp_client import AiohttpKubeClient
from vllm_operator.kube.connection import from_kubeconfig
from vllm_operator.kube.errors import KubeError
from vllm_operator.kube.kinds import INFERENCE_JOB, LLM_SERVICE

CRDS = Path(__file__).parents[3] / "crds"


def install_crds(control_plane: ControlPlane) -> None:
    """Create the CRDs of the repository."""
    for path in sorted(CRDS.glob("*.yaml")):
        control_plane.api.request(
            "POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", yaml.safe_load(path.read_text())
        )


@pytest.fixture(scope="session")
def control_plane() -> Iterator[ControlPlane]:
    with ControlPlane() as running:
        install_crds(running)
        yield running


@pytest.fixture
async def client(control_plane: ControlPlane) -> AsyncIterator[AiohttpKubeClient]:
    made = AiohttpKubeClient(from_kubeconfig(control_plane.kubeconfig), user_agent="test")
    await made.start()

    async def served() -> bool:
        try:
            await made.list(LLM_SERVICE)
            await made.list(INFERENCE_JOB)
        except KubeError:
            return False
        return True

    await eventually(served, message="the CRDs are served")
    yield made
    await made.stop()
