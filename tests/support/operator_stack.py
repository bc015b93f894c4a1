"""The whole operator against a real API server and a real nats-server, with a kubelet that only pretends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support.builders import facts_message, make_facts
from tests.support.helm import NAMESPACE, render
from tests.support.kubectl import Kubectl

from localk8s.api import MERGE_PATCH, ApiError
from localk8s.children import free_ports
from localk8s.control_plane import ControlPlane

REPOSITORY = Path(__file__).resolve().parents[2]
RELEASE_NAMESPACE = NAMESPACE
GPU_NODE_LABELS = {
    "nvidia.com/gpu.present": "true",
    "nvidia.com/gpu.product": "NVIDIA-L4",
    "nvidia.com/gpu.memory": "23034",
    "nvidia.com/gpu.count": "8",
    "nvidia.com/gpu.family": "ada-lovelace",
    "nvidia.com/gpu.compute.major": "8",
    "nvidia.com/gpu.compute.minor": "9",
}
LLAMA_8B_FACTS: dict[str, Any] = json.loads(facts_message(make_facts(max_position_embeddings=8192)))["facts"]


INSTALLED_KINDS = frozenset(
    {"CustomResourceDefinition", "ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"}
)


def install(kubectl: Kubectl) -> None:
    """The chart's definitions and rights, without its workloads, and wait until both kinds are served."""
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": RELEASE_NAMESPACE}}
    manifests = [namespace, *(manifest for manifest in render() if manifest["kind"] in INSTALLED_KINDS)]
    listed = {"apiVersion": "v1", "kind": "List", "items": manifests}
    kubectl("apply", "--server-side", "-f", "-", stdin=json.dumps(listed))
    kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")


class OperatorProcess:
    """``vllm-operator run`` as a child process with the rights that the chart gives its ServiceAccount."""

    def __init__(
        self, kubeconfig: Path, queue_url: str, credentials: Path, *, log: Path, identity: str = "operator-0"
    ) -> None:
        self._kubeconfig = kubeconfig
        self._queue_url = queue_url
        self._credentials = credentials
        self._log = log
        self._identity = identity
        (self.http_port,) = free_ports(1)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, **settings: str) -> None:
        """Start it; ``settings`` are further ``VLLM_OPERATOR_*`` variables in lower case without the prefix."""
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": os.environ.get("HOME", "/"),
            "PYTHONPATH": os.pathsep.join(str(REPOSITORY / part) for part in ("crds", "operator", "runtime")),
            "KUBECONFIG": str(self._kubeconfig),
            "VLLM_OPERATOR_NAMESPACE": RELEASE_NAMESPACE,
            "VLLM_OPERATOR_POD_NAME": self._identity,
            "VLLM_OPERATOR_QUEUE_URL": self._queue_url,
            "VLLM_OPERATOR_QUEUE_CREDENTIALS_DIRECTORY": str(self._credentials),
            "VLLM_OPERATOR_HTTP_PORT": str(self.http_port),
            **{f"VLLM_OPERATOR_{name.upper()}": value for name, value in settings.items()},
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "vllm_operator", "run"],
            env=environment, stdout=self._log.open("ab"), stderr=subprocess.STDOUT,
        )  # fmt: skip

    @property
    def pid(self) -> int:
        """Process id of the running operator."""
        assert self._process is not None
        return self._process.pid

    def metric(self, name: str) -> float:
        """Sum of all series of a metric."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}/metrics", timeout=5) as answer:
            lines = answer.read().decode().splitlines()
        values = [float(line.rsplit(" ", 1)[1]) for line in lines if line.split("{")[0].split(" ")[0] == name]
        return sum(values)

    def ready(self) -> bool:
        """Whether ``/readyz`` says so."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}/readyz", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def stop(self, signal_number: int = signal.SIGTERM, timeout_seconds: float = 20) -> None:
        """Send a signal and wait for the end."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal_number)
            try:
                self._process.wait(timeout_seconds)
            finally:
                self._process.kill()
                self._process.wait()
        self._process = None


class PretendingKubelet:
    """Binds pods to one GPU node and writes the statuses that a kubelet would; it runs nothing.

    A model-facts pod ends with ``facts``; every other pod runs and is ready. Pods that are being deleted go at once.
    """

    NODE = "gpu-node"
    LEASE_RENEWAL_SECONDS = 10.0
    """As a kubelet does it: the node-lifecycle controller takes a node that is silent for 50 s for dead."""

    def __init__(self, control_plane: ControlPlane, facts: dict[str, Any] | None = None) -> None:
        self._api = control_plane.api
        self.facts: dict[str, Any] = {"facts": facts or LLAMA_8B_FACTS}
        self.poll_seconds = 0.1
        self._lease_renewed_at = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Make the node and begin."""
        node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": self.NODE, "labels": GPU_NODE_LABELS}}
        self._api.request("POST", "/api/v1/nodes", node)
        resources = {"nvidia.com/gpu": "8", "cpu": "64", "memory": "256Gi", "pods": "500"}
        status = {
            "capacity": resources,
            "allocatable": resources,
            "conditions": [{"type": "Ready", "status": "True", "reason": "Pretending", "message": ""}],
        }
        self._merge(f"/api/v1/nodes/{self.NODE}/status", {"status": status})
        # The node-lifecycle controller taints a node whose kubelet it never heard of.
        self._merge(f"/api/v1/nodes/{self.NODE}", {"spec": {"taints": None}})
        self._thread.start()

    def stop(self) -> None:
        """End; the node and its pods stay as they are."""
        self._stop.set()
        self._thread.join(10)

    def _merge(self, path: str, body: dict[str, Any]) -> None:
        self._api.request("PATCH", path, body, content_type=MERGE_PATCH)

    def _run(self) -> None:
        while not self._stop.wait(self.poll_seconds):
            try:
                self._renew_node_lease()
                for pod in self._api.request("GET", "/api/v1/pods")["items"]:
                    self._advance(pod)
            except (OSError, ApiError):
                continue  # the API server may be down for a while: that is what some tests are about

    def _renew_node_lease(self) -> None:
        if time.monotonic() - self._lease_renewed_at < self.LEASE_RENEWAL_SECONDS:
            return
        leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
        now = time.strftime("%Y-%m-%dT%H:%M:%S.000000Z", time.gmtime())
        spec = {"holderIdentity": self.NODE, "leaseDurationSeconds": 40, "renewTime": now}
        try:
            self._merge(f"{leases}/{self.NODE}", {"spec": spec})
        except ApiError as error:
            if error.status != 404:
                raise
            self._api.request("POST", leases, {"metadata": {"name": self.NODE}, "spec": spec})
        self._lease_renewed_at = time.monotonic()

    def _advance(self, pod: dict[str, Any]) -> None:
        metadata = pod["metadata"]
        path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}"
        try:
            if metadata.get("deletionTimestamp"):
                self._api.request("DELETE", path, {"gracePeriodSeconds": 0})
            elif not pod["spec"].get("nodeName"):
                target = {"apiVersion": "v1", "kind": "Node", "name": self.NODE}
                binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": metadata["name"]}}
                self._api.request("POST", f"{path}/binding", {**binding, "target": target})
            elif pod["status"].get("phase") == "Pending":
                self._merge(f"{path}/status", {"status": self._status(pod)})
        except ApiError as error:
            if error.status not in {404, 409}:
                raise

    def _status(self, pod: dict[str, Any]) -> dict[str, Any]:
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        name = pod["spec"]["containers"][0]["name"]
        base = {"name": name, "image": "pretended", "imageID": "", "restartCount": 0}
        if pod["metadata"]["labels"].get("app.kubernetes.io/component") == "model-facts":
            ended = {"exitCode": 0, "reason": "Completed", "startedAt": now, "finishedAt": now}
            state = {"terminated": {**ended, "message": json.dumps(self.facts)}}
            return {"phase": "Succeeded", "containerStatuses": [{**base, "ready": False, "state": state}]}
        conditions = [
            {"type": kind, "status": "True", "lastTransitionTime": now}
            for kind in ("PodScheduled", "Initialized", "ContainersReady", "Ready")
        ]
        running = {**base, "ready": True, "started": True, "state": {"running": {"startedAt": now}}}
        return {
            "phase": "Running", "conditions": conditions, "containerStatuses": [running], "startTime": now,
            "podIP": "10.0.0.1",
        }  # fmt: skip


def wait_for(probe: Callable[[], Any], *, what: str, timeout_seconds: float = 30) -> Any:
    """Call ``probe`` until it returns something true, and return that.

    Raises:
        AssertionError: it did not in time.
    """
    deadline = time.monotonic() + timeout_seconds
    while True:
        found = probe()
        if found:
            return found
        assert time.monotonic() < deadline, f"waited {timeout_seconds:.0f} s for {what}"
        time.sleep(0.05)
