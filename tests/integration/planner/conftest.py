"""A control plane with a real scheduler, the operator, and nodes labelled as real ones; no kubelet, so no pod runs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.support.jobs import secured_server, write_credentials
from tests.support.kubectl import Kubectl
from tests.support.operator_stack import RELEASE_NAMESPACE, OperatorProcess, install, wait_for

from localk8s.api import MERGE_PATCH
from localk8s.control_plane import ControlPlane

NO_NODE_LIFECYCLE = "--controllers=*,-node-lifecycle-controller"
"""Nodes without a kubelet are not taken for dead."""


@dataclass
class Cluster:
    """What a test talks to. Everything that a test makes is of its own names."""

    control_plane: ControlPlane
    kubectl: Kubectl
    operator: OperatorProcess

    def restart_operator(self) -> None:
        """End it and start it again, as its Deployment would."""
        self.operator.stop()
        self.operator.start(status_interval_seconds="1")

    def add_node(
        self,
        name: str,
        labels: Mapping[str, str],
        resources: Mapping[str, str],
        *,
        taints: list[dict[str, str]] | None = None,
        unschedulable: bool = False,
    ) -> None:
        """A ready node with these labels and extended resources."""
        api = self.control_plane.api
        node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": dict(labels)}}
        api.request("POST", "/api/v1/nodes", node)
        offered = {"cpu": "64", "memory": "1000Gi", "pods": "100", "ephemeral-storage": "4000Gi", **resources}
        ready = {"type": "Ready", "status": "True", "reason": "Pretending", "message": ""}
        status = {"capacity": offered, "allocatable": offered, "conditions": [ready]}
        api.request("PATCH", f"/api/v1/nodes/{name}/status", {"status": status}, content_type=MERGE_PATCH)
        # A new node is tainted as not ready until the node-lifecycle controller, which does not run here, knows better.
        spec = {"taints": taints, "unschedulable": unschedulable or None}
        api.request("PATCH", f"/api/v1/nodes/{name}", {"spec": spec}, content_type=MERGE_PATCH)

    def remove_nodes(self) -> None:
        """All nodes."""
        self.kubectl("delete", "nodes", "--all", "--wait=true")

    def apply_service(self, name: str, config: Mapping[str, Any] | None = None, **spec: Any) -> None:
        """An LLMService of a hub model (no volume to bind) whose facts are given, so that nothing has to be read."""
        model: dict[str, Any] = {"id": "acme/any", **spec.pop("model", {})}
        if config is not None:
            model["facts"] = {"config": json.dumps(config)}
        body = {
            "apiVersion": "inference.vllm-operator.io/v1alpha1",
            "kind": "LLMService",
            "metadata": {"name": name, "namespace": "default"},
            "spec": {"model": model, **spec},
        }
        self.kubectl("apply", "-f", "-", stdin=json.dumps(body))

    def service(self, name: str) -> dict[str, Any]:
        """The LLMService as it is."""
        path = f"/apis/inference.vllm-operator.io/v1alpha1/namespaces/default/llmservices/{name}"
        return self.control_plane.api.request("GET", path)

    def condition(self, name: str, kind: str = "Planned") -> dict[str, Any]:
        """One of its conditions, empty when it has none of that type."""
        conditions = (self.service(name).get("status") or {}).get("conditions") or []
        return next((entry for entry in conditions if entry["type"] == kind), {})

    def until_planned(self, name: str, reason: str = "Planned") -> dict[str, Any]:
        """Wait for condition Planned with this reason; returns the service."""
        try:
            wait_for(lambda: self.condition(name).get("reason") == reason, what=f"{name}: {reason}", timeout_seconds=60)
        except AssertionError as error:
            raise AssertionError(f"{error}; it is {self.condition(name)}") from None
        return self.service(name)

    def pods(self, name: str) -> list[dict[str, Any]]:
        """The service's engine pods."""
        selector = f"inference.vllm-operator.io/owner-name={name},app.kubernetes.io/component=engine"
        path = f"/api/v1/namespaces/default/pods?labelSelector={selector}"
        items: list[dict[str, Any]] = self.control_plane.api.request("GET", path)["items"]
        return items

    def remove_service(self, name: str) -> None:
        """Delete it, and its pods at once: those that have a node wait for a kubelet that is not there."""
        self.kubectl("delete", "llm", name, "-n", "default", "--wait=true")

        def gone() -> bool:
            selector = f"inference.vllm-operator.io/owner-name={name}"
            self.kubectl("delete", "pods", "-n", "default", "-l", selector, "--force", "--grace-period=0")
            return not self.pods(name)

        wait_for(gone, what=f"no pod of {name}", timeout_seconds=90)

    def bound_pod(self, name: str) -> dict[str, Any]:
        """The service's engine pod, when the scheduler has found a node for it."""

        def bound() -> dict[str, Any] | None:
            return next((pod for pod in self.pods(name) if pod["spec"].get("nodeName")), None)

        pod: dict[str, Any] = wait_for(bound, what=f"a node for the pod of {name}")
        return pod


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Shared by the tests of a module."""
    directory = tmp_path_factory.mktemp("planner")
    credentials = write_credentials(directory / "credentials")
    control_plane = ControlPlane(extra_controller_manager_args=[NO_NODE_LIFECYCLE])
    with control_plane, secured_server(credentials) as nats:
        control_plane.start_scheduler()
        kubectl = Kubectl(control_plane.kubeconfig)
        install(kubectl)
        account = control_plane.kubeconfig_for(RELEASE_NAMESPACE, "vllm-operator")
        operator = OperatorProcess(account, nats.url, credentials / "operator", log=Path(directory / "operator.log"))
        operator.start(status_interval_seconds="1")
        try:
            yield Cluster(control_plane, kubectl, operator)
        finally:
            operator.stop()
            print((directory / "operator.log").read_text()[-6000:])
