"""Configuration of the chart's nats-server: durable JetStream, and one user per role with the least that works.

A user is an nkey: the server knows public keys only. Permissions are per role, not per tenant (tenants share the
agent's and the driver's user until pods authenticate with their own tokens): what no role needs is denied to all.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from vllm_operator.queue.credentials import public_key, read_seed
from vllm_operator_api.queue import (
    AGENT_INBOX_PREFIX,
    DRIVER_INBOX_PREFIX,
    MAX_PAYLOAD_BYTES,
    OPERATOR_INBOX_PREFIX,
    OUTPUT_SUBJECTS,
)

ROLES: Final = ("operator", "agent", "driver")
CLIENT_PORT: Final = 4222
MONITOR_PORT: Final = 8222
STORE_DIRECTORY: Final = "/data"


@dataclass(frozen=True, slots=True)
class Permissions:
    """Subjects a user may publish to and subscribe to; everything else is denied."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]


PERMISSIONS: Final[Mapping[str, Permissions]] = {
    "operator": Permissions(
        publish=(
            "$JS.API.INFO",
            "$JS.API.STREAM.CREATE.*",
            "$JS.API.STREAM.UPDATE.*",
            "$JS.API.STREAM.DELETE.*",
            "$JS.API.STREAM.INFO.*",
            "$JS.API.STREAM.LIST",
            "$JS.API.STREAM.NAMES",
            "$JS.API.STREAM.PURGE.*",
            "$JS.API.STREAM.MSG.GET.*",
            "$JS.API.CONSUMER.CREATE.>",
            "$JS.API.CONSUMER.DURABLE.CREATE.*.*",
            "$JS.API.CONSUMER.DELETE.*.*",
            "$JS.API.CONSUMER.INFO.*.*",
            "$JS.API.CONSUMER.LIST.*",
            "$JS.API.CONSUMER.NAMES.*",
            "ctl.*.wake",
        ),
        subscribe=(f"{OPERATOR_INBOX_PREFIX}.>", "hb.*.*", "jp.*"),
    ),
    # Leases what there is and answers it: no publishing of work, no purge, no change of a stream or a consumer.
    "agent": Permissions(
        publish=(
            "$JS.API.CONSUMER.NAMES.*",
            "$JS.API.CONSUMER.LIST.*",
            "$JS.API.CONSUMER.INFO.*.*",
            "$JS.API.CONSUMER.MSG.NEXT.*.*",
            "$JS.ACK.>",
            "r.*.*.*",
            "hb.*.*",
        ),
        subscribe=(f"{AGENT_INBOX_PREFIX}.>", "ctl.*.wake"),
    ),
    # Publishes batch work, takes results out again, reports: no lease, no acknowledgement, no stream, no consumer.
    "driver": Permissions(
        publish=(
            "$JS.API.STREAM.INFO.*",
            "$JS.API.DIRECT.GET.*.>",
            "$JS.API.STREAM.MSG.DELETE.*",
            "q.*.b.*.*",
            "jp.*",
            OUTPUT_SUBJECTS,
            "ctl.*.wake",
        ),
        subscribe=(f"{DRIVER_INBOX_PREFIX}.>", "rn.*.*.*"),
    ),
}


def server_config(
    public_keys: Mapping[str, str],
    *,
    listen: str | None = f"0.0.0.0:{CLIENT_PORT}",
    monitor: str | None = f"0.0.0.0:{MONITOR_PORT}",
    store_directory: str | None = STORE_DIRECTORY,
) -> str:
    """The text of ``nats-server.conf``.

    ``public_keys`` holds an nkey public key for each of ``ROLES``. ``sync_interval: always`` because an acknowledged
    publish must survive a power loss; ping settings find dead peers in 20 to 30 s.

    Raises:
        ValueError: a role has no key, or two roles have the same.
    """
    missing = [role for role in ROLES if role not in public_keys]
    if missing or len(set(public_keys.values())) < len(ROLES):
        raise ValueError(f"each of {', '.join(ROLES)} needs a key of its own; got {', '.join(sorted(public_keys))}")
    jetstream = ["jetstream {"]
    if store_directory is not None:
        jetstream.append(f"  store_dir: {json.dumps(store_directory)}")
    jetstream += ["  sync_interval: always", "}"]
    lines = [
        *([f"listen: {json.dumps(listen)}"] if listen else []),
        *([f"http: {json.dumps(monitor)}"] if monitor else []),
        *jetstream,
        f"max_payload: {MAX_PAYLOAD_BYTES}",
        'ping_interval: "10s"',
        "ping_max: 2",
        'write_deadline: "10s"',
        "authorization {",
        "  users: [",
    ]
    for role in ROLES:
        permissions = PERMISSIONS[role]
        lines += [
            f"    # {role}",
            "    {",
            f"      nkey: {json.dumps(public_keys[role])}",
            "      permissions {",
            f"        publish {{ allow: {json.dumps(list(permissions.publish))} }}",
            f"        subscribe {{ allow: {json.dumps(list(permissions.subscribe))} }}",
            "      }",
            "    }",
        ]
    lines += ["  ]", "}", ""]
    return "\n".join(lines)


def read_public_keys(credentials: Path) -> dict[str, str]:
    """The public key of each role from ``<credentials>/<role>/{seed,entropy}``.

    Raises:
        FileNotFoundError: a role's directory holds neither.
        ValueError: an entropy is too short, or a seed is not one of a user.
    """
    return {role: public_key(read_seed(credentials / role)) for role in ROLES}
