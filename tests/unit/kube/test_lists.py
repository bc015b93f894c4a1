"""The query of a list, and the pages of its answer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from vllm_operator.kube.aiohttp_client import AiohttpKubeClient
from vllm_operator.kube.connection import Connection
from vllm_operator.kube.kinds import NODE, POD

Answer = tuple[int, dict[str, Any]]


@asynccontextmanager
async def answering(
    *answers: Answer, namespaces: tuple[str, ...] = ()
) -> AsyncIterator[tuple[AiohttpKubeClient, list[str]]]:
    """A client of a server that gives these answers, and the requests that it saw."""
    seen: list[str] = []

    async def handle(request: web.Request) -> web.Response:
        status, document = answers[len(seen)]
        seen.append(request.path_qs)
        return web.json_response(document, status=status)

    app = web.Application()
    app.router.add_get("/{path:.*}", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    client = AiohttpKubeClient(Connection(server=f"http://127.0.0.1:{port}"), user_agent="test", namespaces=namespaces)
    await client.start()
    try:
        yield client, seen
    finally:
        await client.stop()
        await runner.cleanup()


def page(*names: str, more: str = "", version: str = "7") -> Answer:
    items = [{"metadata": {"name": name}} for name in names]
    return 200, {"metadata": {"resourceVersion": version, "continue": more}, "items": items}


async def test_a_list_is_in_pages() -> None:
    async with answering(page("a", more="x"), page("b")) as (client, seen):
        listed = await client.list(NODE, label_selector="k=v")
    assert [item["metadata"]["name"] for item in listed.items] == ["a", "b"]
    assert [item["kind"] for item in listed.items] == ["Node", "Node"]
    assert seen == [
        "/api/v1/nodes?limit=500&labelSelector=k%3Dv",
        "/api/v1/nodes?limit=500&labelSelector=k%3Dv&continue=x",
    ]


async def test_a_list_from_the_servers_memory_has_no_limit() -> None:
    async with answering(page("a")) as (client, seen):
        await client.list(POD, field_selector="spec.nodeName=n1,status.phase!=Failed", from_cache=True)
    assert seen == ["/api/v1/pods?resourceVersion=0&fieldSelector=spec.nodeName%3Dn1%2Cstatus.phase%21%3DFailed"]


async def test_selectors_outlive_a_list_that_expired() -> None:
    gone: Answer = (410, {"reason": "Expired", "message": "too old"})
    async with answering(page("a", more="x"), gone, page("a", "b")) as (client, seen):
        listed = await client.list(POD, label_selector="k=v", field_selector="f=v")
    assert [item["metadata"]["name"] for item in listed.items] == ["a", "b"]
    assert seen[-1] == "/api/v1/pods?labelSelector=k%3Dv&fieldSelector=f%3Dv"


@pytest.mark.parametrize("from_cache", [False, True])
async def test_a_client_of_some_namespaces_lists_each(from_cache: bool) -> None:
    async with answering(page("a", version="9"), page("b", version="8"), namespaces=("one", "two")) as (client, seen):
        listed = await client.list(POD, from_cache=from_cache)
    assert [path.partition("?")[0] for path in seen] == ["/api/v1/namespaces/one/pods", "/api/v1/namespaces/two/pods"]
    assert (len(listed.items), listed.resource_version) == (2, "8")
