"""One control plane, queue and operator for the tests of this directory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from tests.support.heartbeats import Workers
from tests.support.jobs import connect_as, secured_server, write_credentials
from tests.support.kubectl import Kubectl
from tests.support.operator_stack import RELEASE_NAMESPACE, OperatorProcess, PretendingKubelet, install

from localk8s.control_plane import ControlPlane
from localk8s.nats_server import NatsServer


@dataclass
class Stack:
    """What a test talks to."""

    control_plane: ControlPlane
    nats: NatsServer
    credentials: Path
    kubelet: PretendingKubelet
    operator: OperatorProcess
    kubectl: Kubectl

    def get(self, plural: str, name: str) -> dict[str, Any]:
        """A custom resource of namespace ``default``."""
        path = f"/apis/inference.vllm-operator.io/v1alpha1/namespaces/default/{plural}/{name}"
        return self.control_plane.api.request("GET", path)

    def condition(self, plural: str, name: str, condition_type: str) -> dict[str, Any]:
        """One of its conditions, empty when it has none of that type."""
        conditions = (self.get(plural, name).get("status") or {}).get("conditions") or []
        return next((entry for entry in conditions if entry["type"] == condition_type), {})

    def list(self, path: str, selector: str = "") -> list[dict[str, Any]]:
        """Objects of namespace ``default``, such as ``apis/apps/v1:deployments``."""
        group, plural = path.split(":")
        query = f"?labelSelector={selector}" if selector else ""
        answer = self.control_plane.api.request("GET", f"/{group}/namespaces/default/{plural}{query}")
        items: list[dict[str, Any]] = answer["items"]
        return items


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A running operator with fast settings. The tests of a module share it, each with names of its own."""
    directory = tmp_path_factory.mktemp("operator")
    credentials = write_credentials(directory / "credentials")
    with ControlPlane() as control_plane, secured_server(credentials) as nats:
        kubectl = Kubectl(control_plane.kubeconfig)
        install(kubectl)
        kubelet = PretendingKubelet(control_plane)
        kubelet.start()
        account = control_plane.kubeconfig_for(RELEASE_NAMESPACE, "vllm-operator")
        operator = OperatorProcess(account, nats.url, credentials / "operator", log=directory / "operator.log")
        operator.start(drain_quiet_seconds="1.5", status_interval_seconds="1")
        try:
            yield Stack(control_plane, nats, credentials, kubelet, operator, kubectl)
        finally:
            operator.stop()
            kubelet.stop()
            print((directory / "operator.log").read_text()[-6000:])


@pytest_asyncio.fixture
async def workers(stack: Stack) -> AsyncIterator[Workers]:
    """Heartbeats of a busy engine, unless the test says otherwise."""
    client = await connect_as(stack.nats, stack.credentials, "agent")
    workers = Workers(client, lambda: stack.list("api/v1:pods", "app.kubernetes.io/component=engine"))
    task = asyncio.create_task(workers.run())
    try:
        yield workers
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await client.close()
