"""The middleware's counts are exact in every way a request can end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import MutableMapping
from typing import Any

import pytest

from vllm_runtime.middleware import ACTIVITY_PATH, DRAIN_PATH, Receive, RuntimeMiddleware, Send

Scope = MutableMapping[str, Any]
TOKEN = "correct"


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class Client:
    """Collects what an ASGI application sends."""

    def __init__(self) -> None:
        self.messages: list[MutableMapping[str, Any]] = []

    async def receive(self) -> MutableMapping[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(self, message: MutableMapping[str, Any]) -> None:
        self.messages.append(message)

    @property
    def status(self) -> int:
        return int(self.messages[0]["status"])

    @property
    def headers(self) -> dict[bytes, bytes]:
        return dict(self.messages[0]["headers"])

    @property
    def body(self) -> Any:
        return json.loads(b"".join(message.get("body", b"") for message in self.messages))


def scope(method: str, path: str, token: str | None = None) -> Scope:
    headers = [(b"x-runtime-token", token.encode())] if token is not None else []
    return {"type": "http", "method": method, "path": path, "headers": headers}


async def ok(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"connection", b"keep-alive")]})
    await send({"type": "http.response.body", "body": b"{}"})


async def call(middleware: RuntimeMiddleware, method: str, path: str, token: str | None = None) -> Client:
    client = Client()
    await middleware(scope(method, path, token), client.receive, client.send)
    return client


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/embeddings", "/score", "/tokenize"])
async def test_inference_is_counted(method: str, path: str) -> None:
    middleware = RuntimeMiddleware(ok, TOKEN)
    assert (await call(middleware, method, path)).status == 200
    assert (middleware.report()["requests_total"], middleware.report()["in_flight"]) == (1, 0)


@pytest.mark.parametrize("path", ["/health", "/metrics", "/v1/models", "/version", "/ping", "/load"])
async def test_probes_are_not_counted_and_do_not_reset_the_idle_time(path: str) -> None:
    clock = Clock()
    middleware = RuntimeMiddleware(ok, TOKEN, clock)
    clock.now += 10
    for method in ("GET", "HEAD"):
        assert (await call(middleware, method, path)).status == 200
    assert middleware.report() == {"ready": True, "in_flight": 0, "idle_seconds": 10.0, "requests_total": 0}


@pytest.mark.parametrize(
    "path",
    [
        "/docs",
        "/invocations",
        "/scale_elastic_ep",
        "/collective_rpc",
        "/v1/chat/completions/",
        "//v1/models",
        "/V1/models",
        "/v1/chat/completions/batch",
        "/openapi.json",
        "/v1/load_lora_adapter",
        "/",
        "",
    ],
)
async def test_other_routes_are_404_in_openai_shape(path: str) -> None:
    called = False

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal called
        called = True

    middleware = RuntimeMiddleware(app, TOKEN)
    for method in ("GET", "POST", "DELETE"):
        client = await call(middleware, method, path)
        assert client.status == 404
        assert client.body["error"]["type"] == "not_found"
    assert not called
    assert middleware.report()["requests_total"] == 0


async def test_only_reading_what_is_for_reading() -> None:
    middleware = RuntimeMiddleware(ok, TOKEN)
    assert (await call(middleware, "POST", "/v1/models")).status == 404
    assert (await call(middleware, "POST", "/ping")).status == 200


@pytest.mark.parametrize("token", [None, "", "wrong", "correct "])
async def test_control_routes_need_the_token(token: str | None) -> None:
    middleware = RuntimeMiddleware(ok, TOKEN)
    assert (await call(middleware, "GET", ACTIVITY_PATH, token)).status == 404
    assert (await call(middleware, "POST", DRAIN_PATH, token)).status == 404
    assert middleware.report()["ready"]


async def test_without_a_token_of_its_own_nobody_controls_it() -> None:
    middleware = RuntimeMiddleware(ok, "")
    assert (await call(middleware, "GET", ACTIVITY_PATH, "")).status == 404


async def test_activity_and_drain() -> None:
    middleware = RuntimeMiddleware(ok, TOKEN)
    assert (await call(middleware, "GET", ACTIVITY_PATH, TOKEN)).body["ready"] is True
    assert (await call(middleware, "POST", DRAIN_PATH, TOKEN)).status == 200
    refused = await call(middleware, "POST", "/v1/chat/completions")
    assert refused.status == 503
    assert refused.headers[b"retry-after"] == b"2"
    assert refused.headers[b"connection"] == b"close"
    assert refused.body["error"]["type"] == "service_unavailable"
    assert (await call(middleware, "GET", "/health")).status == 200
    assert (await call(middleware, "GET", ACTIVITY_PATH, TOKEN)).body == {
        "ready": False,
        "in_flight": 0,
        "idle_seconds": pytest.approx(0, abs=1),
        "requests_total": 0,
    }


async def test_streaming_is_in_flight_until_its_last_part() -> None:
    gate = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True})
        await gate.wait()
        await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})

    clock = Clock()
    middleware = RuntimeMiddleware(app, TOKEN, clock)
    request = asyncio.create_task(call(middleware, "POST", "/v1/completions"))
    await asyncio.sleep(0)
    clock.now += 50
    assert middleware.report() == {"ready": True, "in_flight": 1, "idle_seconds": 0.0, "requests_total": 1}
    gate.set()
    await request
    clock.now += 3
    assert middleware.report() == {"ready": True, "in_flight": 0, "idle_seconds": 3.0, "requests_total": 1}


async def test_cancelled_failed_and_disconnected_requests_end_too() -> None:
    async def hangs(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.Event().wait()

    async def fails(scope: Scope, receive: Receive, send: Send) -> None:
        raise RuntimeError("handler")

    async def writes_to_nobody(scope: Scope, receive: Receive, send: Send) -> None:
        raise OSError("client disconnected")

    middleware = RuntimeMiddleware(hangs, TOKEN)
    request = asyncio.create_task(call(middleware, "POST", "/v1/completions"))
    await asyncio.sleep(0)
    assert middleware.report()["in_flight"] == 1
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request
    assert middleware.report()["in_flight"] == 0
    for app, error in ((fails, RuntimeError), (writes_to_nobody, OSError)):
        middleware = RuntimeMiddleware(app, TOKEN)
        with pytest.raises(error):
            await call(middleware, "POST", "/v1/completions")
        assert (middleware.report()["in_flight"], middleware.report()["requests_total"]) == (0, 1)


async def test_answers_while_draining_close_their_connection() -> None:
    started, gate = asyncio.Event(), asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        started.set()
        await gate.wait()
        await ok(scope, receive, send)

    middleware = RuntimeMiddleware(app, TOKEN)
    request = asyncio.create_task(call(middleware, "POST", "/v1/completions"))
    await started.wait()
    await call(middleware, "POST", DRAIN_PATH, TOKEN)
    gate.set()
    client = await request
    assert client.status == 200
    assert client.messages[0]["headers"] == [(b"connection", b"close")]


async def test_web_sockets_are_refused() -> None:
    """VLLM's realtime route: not on the list, and nobody would count what goes on in it."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise AssertionError("reached")

    client = Client()
    await RuntimeMiddleware(app, TOKEN)({"type": "websocket", "path": "/v1/realtime"}, client.receive, client.send)
    assert client.messages == [{"type": "websocket.close", "code": 1008}]


async def test_the_lifespan_passes_through() -> None:
    kind = "lifespan"
    seen: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope)

    middleware = RuntimeMiddleware(app, TOKEN)
    client = Client()
    await middleware({"type": kind}, client.receive, client.send)
    assert seen == [{"type": kind}]
