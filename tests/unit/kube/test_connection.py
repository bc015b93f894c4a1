"""How the operator finds the API server."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from vllm_operator.kube.connection import (
    Connection,
    ConnectionSettingsError,
    TokenSource,
    discover,
    from_kubeconfig,
    in_cluster,
)


def kubeconfig(directory: Path, user: dict[str, Any], cluster: dict[str, Any] | None = None) -> Path:
    path = directory / "config"
    document = {
        "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": "https://example.org:6443/", **(cluster or {})}}],
        "users": [{"name": "u", "user": user}],
    }
    path.write_text(yaml.safe_dump(document))
    return path


def test_token_and_authority(tmp_path: Path) -> None:
    authority = {"certificate-authority-data": base64.b64encode(b"PEM").decode()}
    found = from_kubeconfig(kubeconfig(tmp_path, {"token": "t"}, authority))
    assert found == Connection(server="https://example.org:6443", ca="PEM", token="t")


def test_client_certificate_from_files_beside_the_kubeconfig(tmp_path: Path) -> None:
    (tmp_path / "c.pem").write_text("C")
    (tmp_path / "k.pem").write_text("K")
    found = from_kubeconfig(kubeconfig(tmp_path, {"client-certificate": "c.pem", "client-key": "k.pem"}))
    assert (found.client_certificate, found.client_key) == ("C", "K")


@pytest.mark.parametrize("user", [{"exec": {}}, {"auth-provider": {}}, {"username": "u", "password": "p"}])
def test_plugins_and_passwords_are_refused_with_advice(tmp_path: Path, user: dict[str, Any]) -> None:
    with pytest.raises(ConnectionSettingsError, match="kubectl proxy"):
        from_kubeconfig(kubeconfig(tmp_path, user))


@pytest.mark.parametrize("text", ["", "]", "current-context: nowhere", "- a"])
def test_unusable_kubeconfigs_are_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config"
    path.write_text(text)
    with pytest.raises(ConnectionSettingsError, match="config cannot be used"):
        from_kubeconfig(path)


def test_nothing_found_says_what_was_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(ConnectionSettingsError, match="KUBECONFIG is not set"):
        discover({})


def test_pod(tmp_path: Path) -> None:
    (tmp_path / "ca.crt").write_text("PEM")
    found = in_cluster({"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "443"}, tmp_path)
    assert found == Connection(server="https://[fd00::1]:443", ca="PEM", token_file=tmp_path / "token")


def test_token_file_is_read_again_when_asked(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("one\n")
    source = TokenSource(Connection(server="x", token_file=path))
    assert source.token() == "one"
    path.write_text("two\n")
    assert source.token() == "one"
    source.invalidate()
    assert source.token() == "two"
    path.unlink()
    source.invalidate()
    assert source.token() == "two"


def plugin_config(tmp_path: Path, script: str) -> Path:
    """A kubeconfig whose user logs in by a plugin that this script is."""
    plugin = tmp_path / "login"
    plugin.write_text(f"#!/bin/sh\n{script}\n")
    plugin.chmod(0o755)
    config = tmp_path / "config"
    config.write_text(
        json.dumps(
            {
                "current-context": "c",
                "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
                "clusters": [{"name": "k", "cluster": {"server": "https://k:6443"}}],
                "users": [
                    {
                        "name": "u",
                        "user": {
                            "exec": {
                                "apiVersion": "client.authentication.k8s.io/v1",
                                "command": "./login",
                                "args": ["get-token"],
                                "env": [{"name": "WHO", "value": "me"}],
                            }
                        },
                    }
                ],
            }
        )
    )
    return config


def test_login_by_a_plugin(tmp_path: Path) -> None:
    answer = '{"kind":"ExecCredential","status":{"token":"\'$WHO-$1\'"}}'
    config = plugin_config(tmp_path, f"echo '{answer}'")
    assert discover({"KUBECONFIG": str(config)}, login_plugins=True).token == "me-get-token"


@pytest.mark.parametrize(
    ("script", "why"),
    [("echo no account >&2; exit 3", "exit code 3: no account"), ("echo hello", "prints no ExecCredential"),
     ("echo '{\"status\":{}}'", "neither a token nor a certificate")],
)  # fmt: skip
def test_a_plugin_that_fails(tmp_path: Path, script: str, why: str) -> None:
    with pytest.raises(ConnectionSettingsError, match=why):
        discover({"KUBECONFIG": str(plugin_config(tmp_path, script))}, login_plugins=True)


def test_the_operator_runs_no_plugin(tmp_path: Path) -> None:
    config = plugin_config(tmp_path, f"touch {tmp_path / 'ran'}")
    with pytest.raises(ConnectionSettingsError, match="not supported"):
        discover({"KUBECONFIG": str(config)})
    assert not (tmp_path / "ran").exists()
