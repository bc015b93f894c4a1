"""How to reach the API server: as a pod of the cluster, or by a kubeconfig."""

from __future__ import annotations

import base64
import binascii
import os
import ssl
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from vllm_operator.kube.exec_login import ExecCredential, run_exec_plugin

SERVICE_ACCOUNT_DIRECTORY: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
TOKEN_REREAD_SECONDS: Final = 60.0
"""The kubelet renews a bound token at 80 % of its life (at least 10 minutes): a minute old is never too old."""


class ConnectionSettingsError(Exception):
    """There is no usable way to the API server; the message says what was looked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """Address and credentials of an API server. Certificates and keys are PEM text."""

    server: str
    ca: str | None = None
    insecure: bool = False
    token: str | None = None
    token_file: Path | None = None
    """Read again every minute; goes before ``token``."""
    client_certificate: str | None = None
    client_key: str | None = None

    def ssl_context(self) -> ssl.SSLContext:
        """The TLS settings of this connection."""
        context = ssl.create_default_context(cadata=self.ca)
        # Many clusters' authorities lack the key identifiers that RFC 5280 asks for; Python 3.13 is strict by default.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        if self.insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if self.client_certificate is not None:
            # The ssl module loads certificates from files only.
            with tempfile.TemporaryDirectory() as directory:
                certificate, key = Path(directory) / "certificate.pem", Path(directory) / "key.pem"
                certificate.write_text(self.client_certificate)
                key.touch(mode=0o600)
                key.write_text(self.client_key or "")
                context.load_cert_chain(certificate, key)
        return context


class TokenSource:
    """The bearer token of a connection, from its file where it has one."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._token = connection.token
        self._read_at: float | None = None

    def token(self) -> str | None:
        """The token to send now.

        Raises:
            OSError: its file cannot be read, and never could.
        """
        path = self._connection.token_file
        if path is None:
            return self._token
        now = time.monotonic()
        if self._read_at is None or now - self._read_at > TOKEN_REREAD_SECONDS:
            try:
                self._token = path.read_text().strip()
            except OSError:
                if self._token is None:
                    raise
            self._read_at = now
        return self._token

    def invalidate(self) -> None:
        """The server refused the token: read the file again at the next call."""
        self._read_at = None


def discover(
    environment: Mapping[str, str] = os.environ, *, context: str | None = None, login_plugins: bool = False
) -> Connection:
    """The connection of this process: ``KUBECONFIG`` if set, else the pod's ServiceAccount, else ``~/.kube/config``.

    ``context`` names one of a kubeconfig, instead of its current one. ``login_plugins``: its ``exec`` plugin may be
    run, once, for a command of a minute; what a plugin gives is not renewed.

    Raises:
        ConnectionSettingsError: none of them is there, or it cannot be used.
    """
    if environment.get("KUBECONFIG"):
        return from_kubeconfig(
            Path(environment["KUBECONFIG"].split(os.pathsep)[0]), context, login_plugins=login_plugins
        )
    in_pod = environment.get("KUBERNETES_SERVICE_HOST") and (SERVICE_ACCOUNT_DIRECTORY / "token").exists()
    if in_pod and context is None:
        return in_cluster(environment)
    default = Path("~/.kube/config").expanduser()
    if default.exists():
        return from_kubeconfig(default, context, login_plugins=login_plugins)
    raise ConnectionSettingsError(
        "no way to the Kubernetes API: KUBECONFIG is not set, there is no ~/.kube/config, and this is no pod with a "
        "ServiceAccount token"
    )


def in_cluster(environment: Mapping[str, str], directory: Path = SERVICE_ACCOUNT_DIRECTORY) -> Connection:
    """The connection of a pod."""
    host = environment["KUBERNETES_SERVICE_HOST"]
    port = environment.get("KUBERNETES_SERVICE_PORT", "443")
    return Connection(
        server=f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}",
        ca=(directory / "ca.crt").read_text(),
        token_file=directory / "token",
    )


def from_kubeconfig(path: Path, context_name: str | None = None, *, login_plugins: bool = False) -> Connection:
    """The connection of a context of a kubeconfig, the current one by default: with a token or a client certificate.

    Raises:
        ConnectionSettingsError: not readable, or with a kind of login that is not supported (plugins, passwords).
    """
    try:
        config = yaml.safe_load(path.read_text()) or {}
        context = _named(config, "contexts", context_name or str(config.get("current-context") or ""))["context"]
        cluster = _named(config, "clusters", context["cluster"])["cluster"]
        user = _named(config, "users", context["user"])["user"] or {}
        if login_plugins and "exec" in user:
            found = run_exec_plugin(user["exec"], path.parent)
            user = {"token": found.token, **_certificate(found)}
        if not user.keys().isdisjoint({"exec", "auth-provider", "username"}):
            raise ConnectionSettingsError(
                f"{path}: login by a plugin or a password is not supported; use a token or a client certificate, "
                "or run kubectl proxy and point a kubeconfig to it"
            )
        token_file = user.get("tokenFile")
        return Connection(
            server=str(cluster["server"]).rstrip("/"),
            ca=_pem(cluster, "certificate-authority", path),
            insecure=bool(cluster.get("insecure-skip-tls-verify")),
            token=user.get("token"),
            token_file=path.parent / token_file if token_file else None,
            client_certificate=_pem(user, "client-certificate", path),
            client_key=_pem(user, "client-key", path),
        )
    except (OSError, KeyError, TypeError, AttributeError, ValueError, yaml.YAMLError) as error:
        raise ConnectionSettingsError(f"kubeconfig {path} cannot be used: {error!r}") from error


def _certificate(credential: ExecCredential) -> dict[str, str]:
    """As a kubeconfig has it."""
    pairs = {"client-certificate-data": credential.client_certificate, "client-key-data": credential.client_key}
    return {field: base64.b64encode(pem.encode()).decode() for field, pem in pairs.items() if pem is not None}


def _named(config: dict[str, Any], section: str, name: str) -> dict[str, Any]:
    for entry in config.get(section) or ():
        if entry.get("name") == name:
            found: dict[str, Any] = entry
            return found
    raise ValueError(f"{section} has no {name!r}")


def _pem(section: dict[str, Any], field: str, path: Path) -> str | None:
    if data := section.get(f"{field}-data"):
        try:
            return base64.b64decode(str(data), validate=True).decode()
        except binascii.Error as error:
            raise ValueError(f"{field}-data is not base64") from error
    if file := section.get(field):
        return (path.parent / str(file)).read_text()
    return None
