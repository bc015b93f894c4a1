"""How the operator finds the API server."""

from __future__ import annotations

import base64
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
