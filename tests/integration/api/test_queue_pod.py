"""What the chart's queue pod runs, as processes: its init container's command, nats-server, and the probes."""

from __future__ import annotations

import base64
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support import helm

from localk8s import binaries
from localk8s.api import wait_until
from localk8s.children import Children, free_ports
from localk8s.paths import Layout
from vllm_operator.queue.server_config import ROLES

pytestmark = pytest.mark.integration


def queue_pod() -> dict[str, Any]:
    spec: dict[str, Any] = helm.one(helm.render(), "StatefulSet", "vllm-operator-queue")["spec"]["template"]["spec"]
    return spec


@pytest.fixture(scope="module")
def monitoring_url() -> Iterator[str]:
    """The monitoring port of a nats-server with the configuration that the init container makes."""
    children = Children("queue-pod")
    try:
        yield start_queue(children)
    finally:
        children.close()


def start_queue(children: Children) -> str:
    root = children.directory
    for secret in (manifest for manifest in helm.render() if manifest["kind"] == "Secret"):
        role = secret["metadata"]["name"].rsplit("-", 1)[1]
        folder = root / "credentials" / role
        folder.mkdir(parents=True, exist_ok=True)
        for key, value in secret["data"].items():
            (folder / key).write_bytes(base64.b64decode(value))
    pod = queue_pod()
    (config,), (nats,) = pod["initContainers"], pod["containers"]
    program, *arguments = [
        argument.replace("/credentials", str(root / "credentials")).replace("/etc/nats-config", str(root))
        if argument.startswith("/")
        else argument
        for argument in config["command"]
    ]
    assert program == "vllm-operator"
    subprocess.run([sys.executable, "-m", "vllm_operator", *arguments], check=True, timeout=60)
    flag, path = nats["command"][1:]
    ports = {port["name"]: port["containerPort"] for port in nats["ports"]}
    (data,) = (mount["mountPath"] for mount in nats["volumeMounts"] if mount["name"] == "data")
    client_port, monitoring_port = free_ports(2)
    file = root / Path(path).name
    text = file.read_text()
    for pod_value, own_value in (
        (f"0.0.0.0:{ports['nats']}", f"127.0.0.1:{client_port}"),
        (f"0.0.0.0:{ports['monitoring']}", f"127.0.0.1:{monitoring_port}"),
        (data, str(children.subdirectory("data"))),
    ):
        assert text.count(f'"{pod_value}"') == 1
        text = text.replace(f'"{pod_value}"', f'"{own_value}"')
    file.write_text(text)
    children.own(file)
    children.start("nats-server", binaries.ensure(Layout.default(), "nats-server"), [flag, str(file)])

    def listening() -> bool:
        children.require_running("nats-server")
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", monitoring_port)) == 0

    wait_until(listening, 20, "nats-server")
    return f"http://127.0.0.1:{monitoring_port}"


@pytest.mark.parametrize("probe", ["startupProbe", "livenessProbe", "readinessProbe"])
def test_probes_answer(monitoring_url: str, probe: str) -> None:
    path = queue_pod()["containers"][0][probe]["httpGet"]["path"]

    def healthy() -> bool:
        try:
            with urllib.request.urlopen(f"{monitoring_url}{path}", timeout=5) as answer:
                return bool(answer.status == 200)
        except urllib.error.HTTPError:
            return False

    wait_until(healthy, 20, f"{path} to answer 200")


def test_each_role_has_a_user(monitoring_url: str) -> None:
    assert len(ROLES) == 3
    with urllib.request.urlopen(f"{monitoring_url}/varz", timeout=5) as answer:
        text = answer.read().decode()
    assert '"auth_required": true' in text
    assert '"jetstream"' in text
