"""Last: what is left after everything is deleted. (Named so that it runs after the other modules.)"""

from __future__ import annotations

import json

import pytest

from demo import stack
from demo.kubectl import Kubectl, eventually

pytestmark = pytest.mark.timeout(300)
MANAGED = "app.kubernetes.io/managed-by=vllm-operator"


def streams(system: Kubectl) -> list[str]:
    """Names of all streams that the queue holds, from the server's own monitoring endpoint."""
    (pod,) = system.items("pods", "app.kubernetes.io/component=queue")
    path = f"/api/v1/namespaces/{stack.RELEASE_NAMESPACE}/pods/{pod['metadata']['name']}:8222/proxy/jsz?streams=true"
    accounts = json.loads(system("get", "--raw", path)).get("account_details") or []
    return [entry["name"] for account in accounts for entry in account.get("stream_detail") or []]


def test_deleting_everything_leaves_nothing_behind(kubectl: Kubectl, system: Kubectl, tools: stack.Tools) -> None:
    for namespace in ("default", kubectl.namespace):
        Kubectl(kubectl.binary, kubectl.kubeconfig, namespace)("delete", "llm,ij", "--all", "--wait=true")
    eventually(
        lambda: not kubectl.items("deployments,services,jobs,configmaps,pods", MANAGED),
        what="the children to be gone", timeout_seconds=120,
    )  # fmt: skip
    eventually(
        lambda: not [name for name in streams(system) if name.startswith(("Q_", "R_"))],
        what="the streams to be gone", timeout_seconds=120,
    )  # fmt: skip

    stack.uninstall_chart(tools)
    eventually(
        lambda: not system.items("pods,deployments,statefulsets,persistentvolumeclaims,secrets,services"),
        what="the release's objects to be gone", timeout_seconds=120,
    )  # fmt: skip
