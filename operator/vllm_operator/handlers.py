"""kopf as the source of watch events, and nothing else: no decisions, no I/O, no state on the objects."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import kopf

from vllm_operator.kube.connection import Connection, TokenSource
from vllm_operator.kube.kinds import Kind, Manifest

Observe = Callable[[str | None, Manifest], None]

_LOGIN_SECONDS: Final = 1800
"""kopf reads the token once and then keeps it: a bound token lives an hour and is renewed at 80 % of it."""
_ERROR_BACKOFFS: Final = (1, 1, 2, 3, 5, 8, 13, 21, *(30,) * 10)
"""Seconds between attempts while the API server answers with 5xx: about six minutes, then the process ends and its
pod is started again. Lost connections are retried for ever."""


def build_registry(
    watched: tuple[tuple[Kind, str], ...], observe: Observe, connection: Connection
) -> kopf.OperatorRegistry:
    """A registry of this operator alone: login with our connection, and one event handler for each watched kind."""
    registry = kopf.OperatorRegistry()
    tokens = TokenSource(connection)

    @kopf.on.login(registry=registry, id="connection")
    async def login(**_: Any) -> kopf.ConnectionInfo:
        tokens.invalidate()
        return kopf.ConnectionInfo(
            server=connection.server,
            ca_data=connection.ca,
            insecure=connection.insecure,
            token=tokens.token(),
            certificate_data=connection.client_certificate,
            private_key_data=connection.client_key,
            expiration=datetime.now(UTC) + timedelta(seconds=_LOGIN_SECONDS) if connection.token_file else None,
        )

    for kind, _ in watched:
        _add_handler(registry, kind, observe)
    return registry


def build_settings(watched: tuple[tuple[Kind, str], ...]) -> kopf.OperatorSettings:
    """Settings for an operator that only listens (the reasons for each are in docs/adr/0011)."""
    settings = kopf.OperatorSettings()
    settings.scanning.disabled = True
    settings.posting.enabled = False
    settings.peering.standalone = True
    settings.watching.server_timeout = 600
    settings.watching.client_timeout = 660
    settings.watching.connect_timeout = 10
    settings.watching.chunk_size = 500
    settings.networking.request_timeout = 30
    settings.networking.connect_timeout = 5
    settings.networking.error_backoffs = _ERROR_BACKOFFS
    settings.queueing.error_delays = (1, 2, 5, 10, 30)
    settings.process.ultimate_exiting_timeout = 60
    for kind, label_selector in watched:
        if label_selector:
            settings.watching.label_selectors[resource_of(kind)] = label_selector
    return settings


def resource_of(kind: Kind) -> tuple[str, str, str]:
    """Group, version and plural, as kopf selects resources."""
    group, _, version = kind.api_version.rpartition("/")
    return group, version, kind.plural


def _add_handler(registry: kopf.OperatorRegistry, kind: Kind, observe: Observe) -> None:
    @kopf.on.event(*resource_of(kind), id=f"observe-{kind.plural}", registry=registry)
    async def on_event(event: kopf.RawEvent, **_: Any) -> None:
        observe(event["type"], {**event["object"], "apiVersion": kind.api_version, "kind": kind.kind})
