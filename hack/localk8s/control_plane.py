"""A real Kubernetes control plane as plain child processes on loopback, for integration tests.

etcd, kube-apiserver and kube-controller-manager, without root, capabilities or
containers, ready in about three seconds. There is no kubelet, no Service network
and, unless a test starts it, no scheduler: objects are stored, validated (schemas,
CEL, admission policies, Pod Security), authorised (RBAC) and garbage-collected as
in any cluster, and pods stay Pending unless a test writes their status.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from localk8s import binaries, kubeconfig
from localk8s.api import ApiClient, ApiError, wait_until
from localk8s.children import Children, free_ports
from localk8s.commands import run
from localk8s.errors import ClusterError
from localk8s.paths import Layout

_START_ATTEMPTS = 3
_READY_SECONDS = 60.0
SERVICE_CIDR = "10.96.0.0/16"


class ControlPlane:
    """One control plane; a context manager, or ``start()`` and ``stop()``.

    Several can run side by side: every port is a free one. Nothing is left when
    the process that made it ends, even by SIGKILL.
    """

    def __init__(
        self,
        *,
        layout: Layout | None = None,
        extra_apiserver_args: Sequence[str] = (),
        extra_controller_manager_args: Sequence[str] = (),
    ) -> None:
        self._layout = layout or Layout.default()
        self._extra_apiserver_args = list(extra_apiserver_args)
        self._extra_controller_manager_args = list(extra_controller_manager_args)
        self._admin_token = secrets.token_urlsafe(24)
        self._children: Children | None = None
        self._etcd_port = self._peer_port = self._secure_port = 0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start everything; returns when the API server is ready and namespace ``default`` has its ServiceAccount."""
        if self._children is not None:
            raise ClusterError("this control plane was started already")
        for name in ("etcd", "kube-apiserver", "kube-controller-manager"):
            binaries.ensure(self._layout, name)
        for attempt in range(1, _START_ATTEMPTS + 1):
            try:
                self._start_once()
                return
            except ClusterError:
                # Somebody else may have taken one of the ports in between.
                self.stop()
                if attempt == _START_ATTEMPTS:
                    raise

    def stop(self) -> None:
        """Kill all processes and remove every file; may be called at any time."""
        if self._children is not None:
            self._children.close()
            self._children = None

    @property
    def server_url(self) -> str:
        """``https://127.0.0.1:PORT``; stays the same over ``restart_apiserver``."""
        return f"https://127.0.0.1:{self._secure_port}"

    @property
    def kubeconfig(self) -> Path:
        """A kubeconfig of a cluster administrator."""
        return self._running.directory / "admin.kubeconfig"

    @property
    def ca_file(self) -> Path:
        """The certificate authority of the API server, PEM."""
        return self._running.directory / "pki" / "apiserver.crt"

    @property
    def admin_token(self) -> str:
        """Bearer token of a member of ``system:masters``."""
        return self._admin_token

    @property
    def api(self) -> ApiClient:
        """A small blocking client with the administrator's rights."""
        return ApiClient(self.server_url, self.ca_file, self._admin_token)

    @property
    def log_directory(self) -> Path:
        """Where ``etcd.log``, ``kube-apiserver.log`` and ``kube-controller-manager.log`` lie until ``stop()``."""
        return self._running.directory

    def token(self, namespace: str, service_account: str, *, seconds: int = 3600) -> str:
        """A bearer token of a ServiceAccount, which is made (with its namespace) when it is not there."""
        api = self.api
        _create(api, "/api/v1/namespaces", {"metadata": {"name": namespace}})
        accounts = f"/api/v1/namespaces/{namespace}/serviceaccounts"
        _create(api, accounts, {"metadata": {"name": service_account}})
        request = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"expirationSeconds": max(seconds, 600)},
        }
        answer = api.request("POST", f"{accounts}/{service_account}/token", request)
        return str(answer["status"]["token"])

    def kubeconfig_for(self, namespace: str, service_account: str) -> Path:
        """A kubeconfig that acts as a ServiceAccount, with whatever RBAC grants it and nothing more."""
        path = self._running.directory / f"{namespace}.{service_account}.kubeconfig"
        token = self.token(namespace, service_account, seconds=24 * 3600)
        kubeconfig.write(
            path, kubeconfig.render(self.server_url, self.ca_file.read_bytes(), token, user=service_account)
        )
        return path

    def kill_apiserver(self) -> None:
        """SIGKILL the API server; etcd and what it holds stay."""
        self._running.kill("kube-apiserver")

    def restart_apiserver(self) -> None:
        """Start the API server again on its port (after killing it, if it runs) and wait until it is ready."""
        self.kill_apiserver()
        self._start_apiserver()
        self._wait_ready()

    def start_scheduler(self) -> None:
        """Start a scheduler as well: pods are bound to nodes that tests make, and stay Pending there."""
        children = self._running
        own_copy = children.directory / "scheduler.kubeconfig"
        own_copy.write_text(self.kubeconfig.read_text())
        own_copy.chmod(0o600)
        children.own(own_copy)
        children.start(
            "kube-scheduler",
            binaries.ensure(self._layout, "kube-scheduler"),
            [f"--kubeconfig={own_copy}", "--leader-elect=false", "--secure-port=0"],
        )

    @property
    def _running(self) -> Children:
        if self._children is None:
            raise ClusterError("this control plane is not running")
        return self._children

    def _start_once(self) -> None:
        children = self._children = Children("control-plane")
        self._etcd_port, self._peer_port, self._secure_port = free_ports(3)
        key = children.directory / "service-account.key"
        run(["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", key])
        tokens = children.directory / "tokens.csv"
        tokens.write_text(f"{self._admin_token},admin,1,system:masters\n")
        for secret in (key, tokens):
            secret.chmod(0o600)
            children.own(secret)
        children.start(
            "etcd",
            binaries.ensure(self._layout, "etcd"),
            [
                f"--data-dir={children.subdirectory('etcd')}",
                "--unsafe-no-fsync",
                f"--listen-client-urls=http://127.0.0.1:{self._etcd_port}",
                f"--advertise-client-urls=http://127.0.0.1:{self._etcd_port}",
                f"--listen-peer-urls=http://127.0.0.1:{self._peer_port}",
                f"--initial-advertise-peer-urls=http://127.0.0.1:{self._peer_port}",
                f"--initial-cluster=default=http://127.0.0.1:{self._peer_port}",
                "--log-level=warn",
            ],
        )
        children.subdirectory("pki")
        self._start_apiserver()
        self._wait_ready()
        kubeconfig.write(
            self.kubeconfig, kubeconfig.render(self.server_url, self.ca_file.read_bytes(), self._admin_token)
        )
        self._start_controller_manager()
        account = "/api/v1/namespaces/default/serviceaccounts/default"

        def default_account_exists() -> bool:
            children.require_running("kube-controller-manager")
            return self.api.exists(account)

        wait_until(default_account_exists, _READY_SECONDS, "the default ServiceAccount")

    def _start_apiserver(self) -> None:
        children = self._running
        key = children.directory / "service-account.key"
        children.start(
            "kube-apiserver",
            binaries.ensure(self._layout, "kube-apiserver"),
            [
                f"--etcd-servers=http://127.0.0.1:{self._etcd_port}",
                f"--cert-dir={children.directory / 'pki'}",
                "--bind-address=127.0.0.1",
                "--advertise-address=127.0.0.1",
                f"--secure-port={self._secure_port}",
                "--endpoint-reconciler-type=none",
                f"--service-cluster-ip-range={SERVICE_CIDR}",
                f"--token-auth-file={children.directory / 'tokens.csv'}",
                "--authorization-mode=RBAC",
                "--service-account-issuer=https://kubernetes.default.svc",
                f"--service-account-key-file={key}",
                f"--service-account-signing-key-file={key}",
                "--enable-priority-and-fairness=false",
                *self._extra_apiserver_args,
            ],
        )

    def _start_controller_manager(self) -> None:
        children = self._running
        own_copy = children.directory / "controller-manager.kubeconfig"
        own_copy.write_text(self.kubeconfig.read_text())
        own_copy.chmod(0o600)
        children.own(own_copy)
        children.start(
            "kube-controller-manager",
            binaries.ensure(self._layout, "kube-controller-manager"),
            [
                f"--kubeconfig={own_copy}",
                "--leader-elect=false",
                "--secure-port=0",
                f"--service-account-private-key-file={children.directory / 'service-account.key'}",
                f"--root-ca-file={self.ca_file}",
                "--use-service-account-credentials=false",
                "--kube-api-qps=500",
                "--kube-api-burst=500",
                *self._extra_controller_manager_args,
            ],
        )

    def _wait_ready(self) -> None:
        children = self._running

        def ready() -> bool:
            children.require_running("etcd")
            children.require_running("kube-apiserver")
            return self.ca_file.exists() and self.api.ready()

        wait_until(ready, _READY_SECONDS, "the API server")


def _create(api: ApiClient, path: str, manifest: dict[str, object]) -> None:
    try:
        api.request("POST", path, manifest)
    except ApiError as error:
        if error.status != 409:
            raise
