"""The chart on a real cluster: its own test, and an upgrade that changes nothing."""

from __future__ import annotations

import json

import pytest

from demo import stack
from demo.kubectl import Kubectl

pytestmark = pytest.mark.timeout(300)


def test_helm_test_passes(tools: stack.Tools) -> None:
    output = stack.helm(tools, "test", stack.RELEASE, "--namespace", stack.RELEASE_NAMESPACE, "--timeout", "120s")
    assert "Phase:          Succeeded" in output


def test_upgrade_with_the_same_values_restarts_nothing(tools: stack.Tools, system: Kubectl) -> None:
    def pods() -> set[str]:
        return {pod["metadata"]["uid"] for pod in system.items("pods", "app.kubernetes.io/instance=vllm-operator")}

    before = pods()
    values = stack.helm(tools, "get", "values", stack.RELEASE, "--namespace", stack.RELEASE_NAMESPACE, "-o", "json")
    assert json.loads(values)["image"]["operator"]["tag"] == stack.IMAGE_TAG
    stack.helm(
        tools, "upgrade", stack.RELEASE, str(stack.CHART), "--namespace", stack.RELEASE_NAMESPACE,
        "--reuse-values", "--wait", "--timeout", "120s",
    )  # fmt: skip
    assert pods() == before
