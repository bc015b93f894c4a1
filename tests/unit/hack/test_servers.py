"""Pure parts of the servers for integration tests: ports, kubeconfig, NATS configuration."""

import base64
import json
from pathlib import Path

import pytest

from localk8s import kubeconfig
from localk8s.children import free_ports
from localk8s.errors import ClusterError
from localk8s.nats_server import render_config


def test_free_ports_differ() -> None:
    assert len(set(free_ports(20))) == 20


def test_kubeconfig_has_one_context_and_the_authority_inside() -> None:
    config = json.loads(kubeconfig.render("https://127.0.0.1:1", b"PEM", "secret"))
    assert config["current-context"] == "vllm-operator"
    assert base64.b64decode(config["clusters"][0]["cluster"]["certificate-authority-data"]) == b"PEM"
    assert config["users"][0]["user"] == {"token": "secret"}


def test_kubeconfig_file_is_private(tmp_path: Path) -> None:
    kubeconfig.write(tmp_path / "config", "{}")
    assert (tmp_path / "config").stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["config"]


def test_nats_gets_address_and_jetstream() -> None:
    text = render_config("", 4222, Path("/store"))
    assert 'listen: "127.0.0.1:4222"' in text
    assert 'jetstream {\n  store_dir: "/store"\n}' in text


def test_nats_keeps_the_callers_jetstream_block() -> None:
    text = render_config("max_payload: 2MB\njetstream {\n  sync_interval: always\n}\n", 4222, Path("/store"))
    assert text.count("jetstream") == 1
    assert "sync_interval: always" in text
    assert 'store_dir: "/store"' in text


@pytest.mark.parametrize("clash", ["port: 4222", "listen: 0.0.0.0:1", "jetstream { store_dir: /x }", "host = a"])
def test_nats_settings_of_the_harness_are_refused(clash: str) -> None:
    with pytest.raises(ClusterError, match="must not set"):
        render_config(clash, 4222, Path("/store"))


def test_nats_words_inside_blocks_are_the_callers() -> None:
    assert "port: 8080" in render_config("websocket {\n  port: 8080\n}\nhttp_port: 8222\n", 4222, Path("/store"))
