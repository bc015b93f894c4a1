"""The text of nats-server.conf and the keys in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from vllm_operator.queue.credentials import public_key, read_seed
from vllm_operator.queue.server_config import PERMISSIONS, read_public_keys, server_config
from vllm_operator_api.nkey import user_seed_from_entropy

KEYS = {"operator": "UA", "agent": "UB", "driver": "UC"}


def test_the_text() -> None:
    text = server_config(KEYS)
    for line in (
        'listen: "0.0.0.0:4222"',
        'http: "0.0.0.0:8222"',
        '  store_dir: "/data"',
        "  sync_interval: always",
        "max_payload: 8388608",
        'ping_interval: "10s"',
        "ping_max: 2",
        '      nkey: "UB"',
    ):
        assert line in text.splitlines()
    assert text.count("nkey:") == 3


@pytest.mark.parametrize("keys", [{"operator": "UA"}, {**KEYS, "driver": "UA"}])
def test_each_role_has_a_key_of_its_own(keys: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="needs a key of its own"):
        server_config(keys)


def test_no_role_may_do_everything() -> None:
    for permissions in PERMISSIONS.values():
        assert not {">", "*", "$JS.>", "$JS.API.>", "$SYS.>", "_INBOX.>"} & {
            *permissions.publish,
            *permissions.subscribe,
        }


def test_keys_from_secrets(tmp_path: Path) -> None:
    for role in ("operator", "agent", "driver"):
        (tmp_path / role).mkdir()
        (tmp_path / role / "entropy").write_text(role * 10)
    keys = read_public_keys(tmp_path)
    assert keys["agent"] == public_key(user_seed_from_entropy("agent" * 10))
    assert all(key.startswith("U") and len(key) == 56 for key in keys.values())


@pytest.mark.parametrize("seed", ["", "SUAAAA", "SAAPN4W3EG6KCJGUQTKTJ5GSB5NHK5CHAJL4DBGFUM3HHROI4XUEP4OBK4", "x" * 58])
def test_seeds_that_are_none(tmp_path: Path, seed: str) -> None:
    (tmp_path / "seed").write_text(seed)
    with pytest.raises(ValueError, match="the seed is"):
        read_seed(tmp_path)
