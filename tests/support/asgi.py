"""What a small ASGI application sends and receives."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


async def lifespan(receive: Receive, send: Send) -> None:
    """Say that start and shutdown are done, until the shutdown."""
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


async def read_body(receive: Receive) -> bytes:
    """The whole body of a request."""
    parts = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)


async def disconnected(receive: Receive) -> None:
    """Return when the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def respond(send: Send, status: int, body: bytes, content_type: bytes = b"application/json") -> None:
    """A whole response."""
    headers = [(b"content-type", content_type), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def respond_json(send: Send, status: int, body: object) -> None:
    """A whole response of JSON."""
    await respond(send, status, json.dumps(body).encode())


async def stream(send: Send, head: dict[str, Any], text: str, reason: str) -> None:
    """A chat completion as server-sent events, a word at a time."""
    await send({
        "type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")],
    })  # fmt: skip

    async def event(data: str) -> None:
        await send({"type": "http.response.body", "body": f"data: {data}\n\n".encode(), "more_body": True})

    for word in text.split(" "):
        choice = {"index": 0, "delta": {"content": f"{word} "}, "finish_reason": None}
        await event(json.dumps({**head, "object": "chat.completion.chunk", "choices": [choice]}))
        await asyncio.sleep(0)
    last = {"index": 0, "delta": {}, "finish_reason": reason}
    await event(json.dumps({**head, "object": "chat.completion.chunk", "choices": [last]}))
    await event("[DONE]")
    await send({"type": "http.response.body", "body": b""})
