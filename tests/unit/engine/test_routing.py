"""From a change to the keys it concerns."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.kube import make_cache

from vllm_operator.engine.cache import ObjectCache
from vllm_operator.kube.kinds import Key, Manifest, ObjectRef
from vllm_operator.routing import WATCHED, Router, concerned, node_facts, slim_node
from vllm_operator_api.names import OWNER_KIND_LABEL, OWNER_NAME_LABEL

CHAT = Key("LLMService", "ns", "chat")
JOB = Key("InferenceJob", "ns", "job")


def made(kind: str, name: str, version: int = 1, **more: Any) -> Manifest:
    metadata = {"name": name, "namespace": "ns", "uid": f"uid-{name}", "resourceVersion": str(version)}
    metadata |= more.pop("metadata", {})
    return {"apiVersion": "v1", "kind": kind, "metadata": metadata, **more}


SERVICE = made("LLMService", "chat")
USER = made("InferenceJob", "job", spec={"serviceRef": {"name": "chat"}})
OTHER = made("InferenceJob", "other", spec={"serviceRef": {"name": "another"}})


def child(kind: str, owner: Key) -> Manifest:
    return made(kind, "child", metadata={"labels": {OWNER_KIND_LABEL: owner.kind, OWNER_NAME_LABEL: owner.name}})


@pytest.mark.parametrize(
    ("changed", "want"),
    [
        (SERVICE, {CHAT, JOB}),
        (USER, {JOB, CHAT}),
        (OTHER, {Key("InferenceJob", "ns", "other")}),
        (child("Pod", CHAT), {CHAT}),
        (child("Job", JOB), {JOB}),
        (child("Pod", Key("Deployment", "ns", "x")), set()),
        (made("Pod", "foreign"), set()),
        (made("Node", "n"), {CHAT}),
    ],
    ids=lambda value: value["kind"] + " " + value["metadata"]["name"] if isinstance(value, dict) else "",
)
def test_whom_a_change_concerns(changed: Manifest, want: set[Key]) -> None:
    assert set(concerned(changed, make_cache([SERVICE, USER, OTHER]))) == want


class Bench:
    def __init__(self, cache: ObjectCache | None = None) -> None:
        self.cache = cache or make_cache()
        self.keys: list[Key] = []
        self.gone: list[str] = []
        self.relisted = 0
        self.router = Router(self.cache, self.keys.append, self._on_gone, self._on_relisted)

    def _on_gone(self, manifest: Manifest) -> None:
        self.gone.append(manifest["metadata"]["uid"])

    def _on_relisted(self) -> None:
        self.relisted += 1


def test_an_event_of_our_own_write_still_concerns_those_who_depend_on_it() -> None:
    bench = Bench()
    bench.router.observe("ADDED", SERVICE)
    bench.router.observe("ADDED", USER)
    bench.keys.clear()
    answer = made("LLMService", "chat", 2, status={"phase": "x"})
    bench.cache.put(answer)  # by the status writer, before the watch says so
    bench.router.observe("MODIFIED", answer)
    assert set(bench.keys) == {CHAT, JOB}


def test_a_watch_that_begins_anew_enqueues_only_what_is_news() -> None:
    bench = Bench()
    bench.router.observe(None, SERVICE)
    bench.keys.clear()
    bench.router.observe(None, SERVICE)
    assert bench.keys == []
    assert bench.relisted == 2


def test_a_deleted_parent_is_told_once_and_no_longer_known_by_its_uid() -> None:
    bench = Bench()
    bench.router.observe("ADDED", SERVICE)
    bench.keys.clear()
    bench.router.parent_changed("uid-chat")
    assert bench.keys == [CHAT]
    bench.router.observe("DELETED", SERVICE)
    bench.keys.clear()
    bench.router.parent_changed("uid-chat")
    assert (bench.keys, bench.gone, bench.cache.get(CHAT)) == ([], ["uid-chat"], None)


def test_what_concerns_everybody() -> None:
    bench = Bench()
    bench.router.observe("ADDED", SERVICE)
    bench.router.observe("ADDED", OTHER)
    bench.keys.clear()
    bench.router.all_parents_changed()
    assert bench.keys == [CHAT, Key("InferenceJob", "ns", "other")]
    bench.keys.clear()
    bench.router.services_changed()
    assert bench.keys == [CHAT]


def test_a_node_is_told_of_before_the_services_that_it_concerns() -> None:
    told: list[str] = []
    cache = make_cache([SERVICE])
    router = Router(
        cache, lambda key: told.append(key.name), lambda manifest: None, lambda: None, on_node_changed=told.append
    )
    router.observe("ADDED", node(1))
    router.observe("MODIFIED", node(2, heartbeat="t2"))
    router.observe("DELETED", node(2))
    assert told == ["gpu", "chat", "gpu", "chat"]


def node(version: int, *, heartbeat: str = "t1", ready: str = "True", gpus: str = "8", **spec: Any) -> Manifest:
    return made(
        "Node",
        "gpu",
        version,
        metadata={"namespace": "", "labels": {"nvidia.com/gpu.product": "H100"}, "annotations": {"a": heartbeat}},
        spec=spec,
        status={
            "allocatable": {"nvidia.com/gpu": gpus},
            "conditions": [{"type": "Ready", "status": ready, "lastHeartbeatTime": heartbeat}, {"type": "X"}],
            "images": [{"names": ["x" * 1000]}],
        },
    )


@pytest.mark.parametrize(
    ("later", "concerns"),
    [
        (node(2, heartbeat="t2"), False),
        (node(2, gpus="4"), True),
        (node(2, ready="False"), True),
        (node(2, unschedulable=True), True),
        (node(2, taints=[{"key": "k", "effect": "NoSchedule"}]), True),
    ],
)
def test_only_what_a_planner_reads_of_a_node_is_news(later: Manifest, concerns: bool) -> None:
    bench = Bench(ObjectCache([kind.kind for kind, _ in WATCHED], "owner", slim={"Node": slim_node}))
    bench.router.observe("ADDED", SERVICE)
    bench.router.observe("ADDED", node(1))
    bench.keys.clear()
    bench.router.observe("MODIFIED", later)
    assert bench.keys == ([CHAT] if concerns else [])


def test_a_slim_node_has_the_same_facts_and_no_images() -> None:
    slim = slim_node(node(1))
    assert node_facts(slim) == node_facts(node(1))
    assert "images" not in slim["status"]
    assert "annotations" not in slim["metadata"]
    assert ObjectRef.of(slim) == ObjectRef.of(node(1))
