"""The real nats-server with JetStream as a child process on loopback, for integration tests."""

from __future__ import annotations

import re
import shutil
import socket
from pathlib import Path
from types import TracebackType
from typing import Self

from localk8s import binaries
from localk8s.api import wait_until
from localk8s.children import Children, free_ports
from localk8s.errors import ClusterError
from localk8s.paths import Layout

_NAME = "nats-server"
_READY_SECONDS = 20.0
# Top-level settings begin a line; the same words inside a block (websocket, cluster) are the caller's.
_OWN_SETTINGS = re.compile(r"^(listen|port|host)\s*[:= ]|\b(store_dir)\s*[:=]", re.MULTILINE)


class NatsServer:
    """One server with file storage; a context manager, or ``start()`` and ``stop()``.

    ``config_text`` is nats-server configuration (accounts, limits, and so on)
    added to what this class writes itself: listen address and JetStream's store
    directory, which it therefore must not set. A ``jetstream`` block in it
    replaces the default one and gets the store directory put in. With
    ``store_dir`` the data outlives the object; without, it is removed by ``stop()``.
    """

    def __init__(
        self,
        config_text: str = "",
        *,
        port: int = 0,
        store_dir: Path | None = None,
        layout: Layout | None = None,
    ) -> None:
        self._layout = layout or Layout.default()
        self._config_text = config_text
        self._store_dir = store_dir
        self._port = port
        self._children: Children | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start the server; returns when it accepts connections with JetStream on."""
        if self._children is not None:
            raise ClusterError("this server was started already")
        binaries.ensure(self._layout, _NAME)
        self._children = Children("nats")
        self._port = self._port or free_ports(1)[0]
        try:
            self._launch()
        except ClusterError:
            self.stop()
            raise

    def stop(self) -> None:
        """Kill the server and remove its files (not a ``store_dir`` that was given)."""
        if self._children is not None:
            self._children.close()
            self._children = None

    def kill(self) -> None:
        """SIGKILL the server; its store stays for ``restart()``."""
        self._running.kill(_NAME)

    def restart(self) -> None:
        """Start it again on the same port and store (after killing it, if it runs)."""
        self.kill()
        self._launch()

    def wipe(self) -> None:
        """Kill the server, lose all its data and start it again: a volume that was lost."""
        self.kill()
        shutil.rmtree(self.store_dir, ignore_errors=True)
        self._launch()

    @property
    def url(self) -> str:
        """``nats://127.0.0.1:PORT``; stays the same over restarts."""
        return f"nats://127.0.0.1:{self._port}"

    @property
    def port(self) -> int:
        """The port of client connections."""
        return self._port

    @property
    def store_dir(self) -> Path:
        """JetStream's directory."""
        return self._store_dir or self._running.directory / "store"

    @property
    def log_file(self) -> Path:
        """The server's log, until ``stop()``."""
        return self._running.log_of(_NAME)

    @property
    def _running(self) -> Children:
        if self._children is None:
            raise ClusterError("this server is not running")
        return self._children

    def _launch(self) -> None:
        children = self._running
        self.store_dir.mkdir(parents=True, exist_ok=True)
        children.own(self.store_dir)
        config = children.directory / "nats.conf"
        config.write_text(render_config(self._config_text, self._port, self.store_dir))
        children.own(config)
        children.start(_NAME, binaries.ensure(self._layout, _NAME), ["--config", str(config)])

        def accepting() -> bool:
            children.require_running(_NAME)
            return _greets(self._port)

        wait_until(accepting, _READY_SECONDS, "nats-server", interval=0.02)


def render_config(config_text: str, port: int, store_dir: Path) -> str:
    """The whole configuration: the caller's text with listen address and store directory added."""
    clash = _OWN_SETTINGS.search(config_text)
    if clash is not None:
        raise ClusterError(f"the NATS configuration must not set {clash[1] or clash[2]}: the harness does", exit_code=2)
    store = f'store_dir: "{store_dir}"'
    text, blocks = re.subn(r"^(\s*jetstream\s*[:=]?\s*\{)", rf"\1\n  {store}\n", config_text, flags=re.MULTILINE)
    own = f'listen: "127.0.0.1:{port}"\n'
    if blocks == 0:
        own += f"jetstream {{\n  {store}\n}}\n"
    return own + text


def _greets(port: int) -> bool:
    """Whether the server on ``port`` sends its INFO line, which says that JetStream is on."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            return b'"jetstream":true' in connection.recv(8192)
    except OSError:
        return False
