"""Full lists: they start the cache, prune it, and a failed one prunes nothing."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest
from tests.support.kube import FakeKube

from vllm_operator.engine.cache import ObjectCache
from vllm_operator.engine.watches import Lister, Watch
from vllm_operator.kube.errors import RetryableError
from vllm_operator.kube.kinds import NODE, POD, Manifest, ObjectRef

pytestmark = [pytest.mark.looptime]


def pod(name: str, namespace: str = "ns") -> Manifest:
    metadata = {"name": name, "namespace": namespace, "labels": {"mine": "yes"}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata}


class Bench:
    def __init__(self, namespaces: tuple[str, ...] = ()) -> None:
        self.kube = FakeKube()
        self.cache = ObjectCache(["Pod", "Node"], "owner")
        self.seen: list[tuple[str, str]] = []
        self.lister = Lister(self.kube, self.cache, [Watch(NODE), Watch(POD, "mine=yes")], namespaces, self._on_change)

    def _on_change(self, event: str, manifest: Manifest) -> None:
        self.seen.append((event, manifest["metadata"]["name"]))

    async def run_for(self, seconds: float, interval_seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.lister.run(interval_seconds)


async def test_start_fills_the_cache_through_failures() -> None:
    bench = Bench()
    bench.kube.seed(pod("a"))
    bench.kube.seed({**pod("foreign"), "metadata": {"name": "foreign", "namespace": "ns"}})
    bench.kube.fail(RetryableError("no answer"), verb="list", times=5)
    await bench.lister.start()
    assert bench.cache.synced
    assert [m["metadata"]["name"] for m in bench.cache.list("Pod")] == ["a"]


async def test_what_vanished_unseen_is_pruned_by_the_next_list() -> None:
    bench = Bench()
    bench.kube.seed(pod("a"))
    bench.kube.seed(pod("b"))
    await bench.lister.start()
    bench.seen.clear()
    bench.kube.remove(ObjectRef("Pod", "ns", "a"))
    await bench.run_for(700, 600)
    assert bench.seen == [("DELETED", "a")]


async def test_a_failed_list_prunes_nothing() -> None:
    bench = Bench()
    bench.kube.seed(pod("a"))
    await bench.lister.start()
    bench.kube.remove(ObjectRef("Pod", "ns", "a"))
    bench.kube.fail(RetryableError("no answer"), verb="list", times=100)
    await bench.run_for(2000, 600)
    assert bench.cache.count("Pod") == 1


async def test_a_requested_list_comes_soon_and_once() -> None:
    bench = Bench()
    await bench.lister.start()
    bench.kube.reset_calls()
    for _ in range(50):
        bench.lister.request()
    await bench.run_for(30, 600)
    assert [call.kind for call in bench.kube.calls] == ["Node", "Pod"]


async def test_only_the_watched_namespaces_are_listed() -> None:
    bench = Bench(namespaces=("one", "two"))
    for namespace in ("one", "two", "three"):
        bench.kube.seed(pod("p", namespace))
    await bench.lister.start()
    assert [m["metadata"]["namespace"] for m in bench.cache.list("Pod")] == ["one", "two"]
    assert [(call.kind, call.namespace) for call in bench.kube.calls] == [("Node", ""), ("Pod", "one"), ("Pod", "two")]
