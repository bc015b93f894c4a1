"""ASGI middleware inside vLLM's server: counts requests exactly, lets only listed routes through, and drains.

vLLM loads it by ``--middleware vllm_runtime.middleware.RuntimeMiddleware``, as the outermost layer. It is stdlib only
and touches a request with a few look-ups; responses pass through unchanged unless the engine drains.

Two private routes answer to whoever has the token of this start (header ``x-runtime-token``), everyone else gets 404:
``GET /-/vllm-runtime/activity`` (an ``EngineReport`` as JSON) and ``POST /-/vllm-runtime/drain``.
"""

from __future__ import annotations

import hmac
import json
import os
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

CONTROL_TOKEN_ENV: Final = "RUNTIME_CONTROL_TOKEN"  # noqa: S105  a variable's name
TOKEN_HEADER: Final = b"x-runtime-token"
ACTIVITY_PATH: Final = "/-/vllm-runtime/activity"
DRAIN_PATH: Final = "/-/vllm-runtime/drain"
_CONTROL: Final = {("GET", ACTIVITY_PATH), ("POST", DRAIN_PATH)}

OBSERVING_PATHS: Final = frozenset({"/health", "/metrics", "/v1/models", "/version", "/ping", "/load"})
"""GET and HEAD of these is not work: probes and dashboards never keep a service awake."""
INFERENCE_PATHS: Final = frozenset({
    "/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses", "/v1/score", "/v1/rerank", "/score",
    "/rerank", "/pooling", "/classify", "/tokenize", "/detokenize",
})  # fmt: skip
"""Everything that is on neither list is 404: vLLM has open routes that run or reconfigure things."""

RETRY_AFTER_SECONDS: Final = 2
_POLICY_VIOLATION: Final = 1008
"""Of a WebSocket's end (RFC 6455 section 7.4.1)."""


class RuntimeMiddleware:
    """Pure ASGI middleware; one object per server process."""

    def __init__(
        self, app: Application, token: str | None = None, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._app = app
        self._token = (os.environ.get(CONTROL_TOKEN_ENV, "") if token is None else token).encode()
        self._monotonic = monotonic
        self._in_flight = 0
        self._requests_total = 0
        self._last_activity = monotonic()
        self._draining = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Count, answer or pass on one connection's scope."""
        if scope["type"] == "websocket":  # before it was accepted the server answers 403
            await send({"type": "websocket.close", "code": _POLICY_VIOLATION})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path: str = scope["path"]
        method: str = scope["method"]
        if path in OBSERVING_PATHS and method in {"GET", "HEAD"}:
            await self._app(scope, receive, send)
        elif path in INFERENCE_PATHS or path == "/ping":
            await self._infer(scope, receive, send)
        elif (method, path) in _CONTROL and self._authorised(scope):
            await self._control(path, send)
        else:
            await _answer(send, 404, _error("not_found", f"{method} {path} is not served here", 404))

    async def _infer(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._draining:
            error = _error("service_unavailable", "this engine is shutting down; send the request again", 503)
            await _answer(
                send, 503, error, (b"retry-after", str(RETRY_AFTER_SECONDS).encode()), (b"connection", b"close")
            )
            return
        self._in_flight += 1
        self._requests_total += 1
        self._last_activity = self._monotonic()
        try:
            # The application returns only after the response's last part was sent or the client is gone.
            await self._app(scope, receive, self._closing(send))
        finally:
            self._in_flight -= 1
            self._last_activity = self._monotonic()

    def _closing(self, send: Send) -> Send:
        """``send`` that adds ``Connection: close`` once the engine drains, so that clients leave this connection."""

        async def closing(message: Message) -> None:
            if self._draining and message["type"] == "http.response.start":
                headers = [pair for pair in message.get("headers", ()) if pair[0].lower() != b"connection"]
                message = {**message, "headers": [*headers, (b"connection", b"close")]}
            await send(message)

        return closing

    def _authorised(self, scope: Scope) -> bool:
        given = next((value for name, value in scope["headers"] if name == TOKEN_HEADER), b"")
        return bool(self._token) and hmac.compare_digest(given, self._token)

    async def _control(self, path: str, send: Send) -> None:
        if path == DRAIN_PATH:
            self._draining = True
        await _answer(send, 200, self.report())

    def report(self) -> dict[str, Any]:
        """The counts, in the shape of ``vllm_operator_api.queue.EngineReport``."""
        idle = 0.0 if self._in_flight else max(0.0, self._monotonic() - self._last_activity)
        return {
            "ready": not self._draining,
            "in_flight": self._in_flight,
            "idle_seconds": round(idle, 3),
            "requests_total": self._requests_total,
        }


def _error(kind: str, message: str, status: int) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": None, "code": status}}


async def _answer(send: Send, status: int, body: dict[str, Any], *headers: tuple[bytes, bytes]) -> None:
    content = json.dumps(body).encode()
    own = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": [*own, *headers]})
    await send({"type": "http.response.body", "body": content})
