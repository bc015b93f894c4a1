"""The few HTTP calls and answers of the supervisor, on asyncio alone: PID 1 stays small.

Calls go to loopback; a follower of an engine that spans nodes also asks its leader.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

LOOPBACK: Final = "127.0.0.1"
MAX_HEAD_BYTES: Final = 16 * 1024
SERVE_TIMEOUT_SECONDS: Final = 5.0

Route = Callable[[], tuple[int, str, bytes]]
"""Gives status, content type and body."""

_PHRASES: Final = {200: "OK", 404: "Not Found", 405: "Method Not Allowed", 503: "Service Unavailable"}


async def request_status(
    method: str,
    port: int,
    path: str,
    timeout_seconds: float,
    headers: Mapping[str, str] | None = None,
    *,
    host: str = LOOPBACK,
) -> int | None:
    """Status of a request; None when there was no answer in time."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", "Connection: close", "Content-Length: 0"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(timeout_seconds):
            reader, writer = await asyncio.open_connection(host, port)
            writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
            await writer.drain()
            status_line = await reader.readline()
        return int(status_line.split()[1])
    except (TimeoutError, OSError, ValueError, IndexError):
        return None
    finally:
        if writer is not None:
            writer.close()


class StatusServer:
    """Serves a few GET routes, one request per connection."""

    def __init__(self, routes: Mapping[str, Route]) -> None:
        self._routes = routes
        self._server: asyncio.Server | None = None

    async def start(self, host: str, port: int) -> None:
        """Listen.

        Raises:
            OSError: the port is taken.
        """
        self._server = await asyncio.start_server(self._serve, host, port, limit=MAX_HEAD_BYTES)

    async def stop(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(SERVE_TIMEOUT_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(self._answer(head))
                await writer.drain()
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # a client that is slow, gone or sends no HTTP gets no answer
        finally:
            writer.close()

    def _answer(self, head: bytes) -> bytes:
        method, path, *_ = [*head.split(b"\r\n", 1)[0].decode("latin-1").split(" "), "", ""]
        route = self._routes.get(path.partition("?")[0])
        if route is None:
            status, content_type, body = 404, "text/plain", b""
        elif method not in {"GET", "HEAD"}:
            status, content_type, body = 405, "text/plain", b""
        else:
            status, content_type, body = route()
        lines = [
            f"HTTP/1.1 {status} {_PHRASES.get(status, '')}",
            f"Content-Type: {content_type}",
            f"Content-Length: {len(body)}",
            "Connection: close",
        ]
        return ("\r\n".join(lines) + "\r\n\r\n").encode() + (b"" if method == "HEAD" else body)
