"""The whole stack on a real cluster: native or kind, real pods, the real vLLM on CPU."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo import stack
from demo.kubectl import Kubectl

NAMESPACE = "e2e"
RESTRICTED_NAMESPACE = {
    "apiVersion": "v1",
    "kind": "Namespace",
    "metadata": {"name": NAMESPACE, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}},
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.e2e)


@pytest.fixture(scope="session")
def tools() -> Iterator[stack.Tools]:
    """A running cluster with the chart installed; it goes down again unless it was up before."""
    was_up = subprocess.run([str(stack.HACK / "cluster"), "status"], capture_output=True, check=False).returncode == 0
    images = stack.ImageBuild()
    stack.cluster_up()
    images.load()
    paths = stack.tools()
    Kubectl(str(paths.kubectl), paths.kubeconfig).apply(RESTRICTED_NAMESPACE)
    stack.install_chart(paths, "--set", f"queue.namespaces={{default,{NAMESPACE}}}")
    yield paths
    if not was_up:
        stack.cluster_down()


@pytest.fixture(scope="session")
def kubectl(tools: stack.Tools) -> Kubectl:
    """Kubectl in the tests' namespace, whose Pod Security level is restricted, with the demo's volume."""
    run = Kubectl(str(tools.kubectl), tools.kubeconfig, NAMESPACE)
    run("delete", "llm,ij", "--all", "--wait=true")
    run("delete", "job/seed-demo", "configmap/e2e-answers", "--ignore-not-found")
    stack.seed_volume(run)
    run("exec", "client", "--", "rm", "-rf", "/mnt/demo/out")
    return run


@pytest.fixture(scope="session")
def system(tools: stack.Tools) -> Kubectl:
    """Kubectl in the release's namespace."""
    return Kubectl(str(tools.kubectl), tools.kubeconfig, stack.RELEASE_NAMESPACE)
