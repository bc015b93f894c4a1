"""An API server that answers lists, and remembers what was asked of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

import yaml

NODES = "/api/v1/nodes"


class FakeApiServer:
    """``lists`` by path; a path that is missing is answered with 404, one whose value is a number with that status."""

    def __init__(self) -> None:
        self.lists: dict[str, list[dict[str, Any]] | int] = {NODES: []}
        self.requests: list[str] = []
        self.port = 0

    def kubeconfig(self, directory: Path) -> Path:
        """A kubeconfig whose context ``here`` leads to this server, and whose current one leads nowhere."""
        path = directory / "kubeconfig"
        clusters = {"here": f"http://127.0.0.1:{self.port}", "nowhere": "http://127.0.0.1:1"}
        path.write_text(
            yaml.safe_dump(
                {
                    "current-context": "nowhere",
                    "contexts": [{"name": name, "context": {"cluster": name, "user": "u"}} for name in clusters],
                    "clusters": [{"name": name, "cluster": {"server": server}} for name, server in clusters.items()],
                    "users": [{"name": "u", "user": {"token": "t"}}],
                }
            )
        )
        return path


@contextmanager
def fake_api_server() -> Iterator[FakeApiServer]:
    """It listens on a port of its own until the end of the block."""
    fake = FakeApiServer()

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            path = urlsplit(self.path).path
            fake.requests.append(f"{self.command} {path}")
            found = fake.lists.get(path, 404)
            if isinstance(found, int):
                status, body = found, {"kind": "Status", "code": found, "message": f"status {found}"}
            else:
                status, body = 200, {"kind": "List", "metadata": {"resourceVersion": "1"}, "items": found}
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _answer  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    fake.port = server.server_address[1]
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield fake
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
