"""The client against a real API server."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from tests.support.clock import FakeClock
from tests.support.kube import make_cache

from localk8s.control_plane import ControlPlane
from vllm_operator.engine.containment import contains
from vllm_operator.engine.executor import Executor, manifest_hash
from vllm_operator.engine.plan import Plan
from vllm_operator.engine.status_writer import StatusWriter
from vllm_operator.kube import aiohttp_client
from vllm_operator.kube.aiohttp_client import AiohttpKubeClient
from vllm_operator.kube.connection import from_kubeconfig
from vllm_operator.kube.errors import (
    AlreadyExistsError,
    ConflictError,
    NotFoundError,
    RetryableError,
    TerminalError,
)
from vllm_operator.kube.kinds import CONFIG_MAP, LLM_SERVICE, Manifest, ObjectRef

pytestmark = pytest.mark.integration


def name() -> str:
    return f"t-{uuid4().hex[:8]}"


def config_map(data: dict[str, str], called: str | None = None, **labels: str) -> Manifest:
    metadata = {"name": called or name(), "namespace": "default", "labels": labels}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def deployment(called: str, owner_uid: str = "u", **container: Any) -> Manifest:
    owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner_uid, "controller": True}
    labels = {"app": called}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": called, "namespace": "default", "ownerReferences": [owner]},
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "enableServiceLinks": False,
                    "automountServiceAccountToken": False,
                    "securityContext": {"runAsNonRoot": True, "runAsUser": 1000, "fsGroup": 0},
                    "volumes": [
                        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "1024Mi"}},
                        {"name": "tmp", "emptyDir": {}},
                        {"name": "keys", "secret": {"secretName": "k", "optional": True, "defaultMode": 288}},
                    ],
                    "containers": [
                        {
                            "name": "engine",
                            "image": "x",
                            "args": ["--port", "8000"],
                            "env": [{"name": "EMPTY", "value": ""}, {"name": "A", "value": "1"}],
                            "ports": [{"name": "http", "containerPort": 8000}],
                            "resources": {
                                "limits": {"cpu": "1000m", "memory": "2048Mi", "nvidia.com/gpu": 2},
                                "requests": {"cpu": 0.5},
                            },
                            "readinessProbe": {"httpGet": {"path": "/health", "port": "http"}, "periodSeconds": 2},
                            **container,
                        }
                    ],
                },
            },
        },
    }


async def test_apply_creates_updates_and_removes_dropped_fields(client: AiohttpKubeClient) -> None:
    wanted = config_map({"a": "1", "b": "2"})
    first = await client.apply(wanted, field_manager="m")
    assert first["data"] == {"a": "1", "b": "2"}
    again = await client.apply(wanted, field_manager="m")
    assert again["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
    third = await client.apply({**wanted, "data": {"a": "3"}}, field_manager="m")
    assert third["data"] == {"a": "3"}


async def test_create_refuses_what_exists(client: AiohttpKubeClient) -> None:
    wanted = config_map({})
    await client.create(wanted, dry_run=True)
    await client.create(wanted)
    with pytest.raises(AlreadyExistsError, match="already exists"):
        await client.create(wanted)


async def test_replace_and_patch_are_conditional(client: AiohttpKubeClient) -> None:
    stale = await client.create(config_map({"a": "1"}))
    await client.merge_patch(ObjectRef.of(stale), {"data": {"a": "2"}})
    with pytest.raises(ConflictError, match="modified"):
        await client.replace(stale)
    body = {"metadata": {"resourceVersion": stale["metadata"]["resourceVersion"]}, "data": {"a": "3"}}
    with pytest.raises(ConflictError):
        await client.merge_patch(ObjectRef.of(stale), body)


async def test_empty_merge_patch_reads_without_writing(client: AiohttpKubeClient) -> None:
    made = await client.create(config_map({"a": "1"}))
    assert (await client.merge_patch(ObjectRef.of(made), {}))["metadata"] == made["metadata"]
    with pytest.raises(NotFoundError):
        await client.merge_patch(ObjectRef("ConfigMap", "default", name()), {})


async def test_absent_objects(client: AiohttpKubeClient) -> None:
    ref = ObjectRef("ConfigMap", "default", name())
    with pytest.raises(NotFoundError, match="not found"):
        await client.get(ref)
    await client.delete(ref)


async def test_delete_takes_only_the_object_that_is_meant(client: AiohttpKubeClient) -> None:
    made = await client.create(config_map({}))
    with pytest.raises(ConflictError, match="UID"):
        await client.delete(ObjectRef.of(made), uid=str(uuid4()))
    await client.delete(ObjectRef.of(made), uid=made["metadata"]["uid"], grace_period_seconds=0)
    with pytest.raises(NotFoundError):
        await client.get(ObjectRef.of(made))


async def test_refusals_carry_the_servers_words(client: AiohttpKubeClient) -> None:
    broken = deployment(name())
    broken["spec"]["template"]["metadata"]["labels"] = {"app": "other"}
    with pytest.raises(TerminalError, match=r"selector.*does not match") as caught:
        await client.apply(broken, field_manager="m")
    assert (caught.value.status, caught.value.reason) == (422, "Invalid")


async def test_lists_are_paged_and_filled_in(client: AiohttpKubeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aiohttp_client, "_PAGE_SIZE", 2)
    mark = name()
    for number in range(5):
        await client.create(config_map({"n": str(number)}, mark=mark))
    listed = await client.list(CONFIG_MAP, namespace="default", label_selector=f"mark={mark}")
    assert sorted(item["data"]["n"] for item in listed.items) == list("01234")
    assert {(item["apiVersion"], item["kind"]) for item in listed.items} == {("v1", "ConfigMap")}
    assert int(listed.resource_version) > 0


async def test_a_client_of_some_namespaces_lists_no_others(control_plane: ControlPlane) -> None:
    connection = from_kubeconfig(control_plane.kubeconfig)
    client = AiohttpKubeClient(connection, user_agent="test", namespaces=("kube-system", "kube-public"))
    await client.start()
    try:
        listed = await client.list(CONFIG_MAP)
        assert {item["metadata"]["namespace"] for item in listed.items} == {"kube-system", "kube-public"}
        assert int(listed.resource_version) > 0
    finally:
        await client.stop()


async def test_no_answer_is_retryable(control_plane: ControlPlane) -> None:
    unreachable = dataclasses.replace(from_kubeconfig(control_plane.kubeconfig), server="https://127.0.0.1:1")
    client = AiohttpKubeClient(unreachable, user_agent="test")
    await client.start()
    try:
        with pytest.raises(RetryableError, match="no answer"):
            await client.list(CONFIG_MAP)
    finally:
        await client.stop()


async def test_token_file_is_read_again_after_a_refusal(control_plane: ControlPlane, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("expired")
    connection = dataclasses.replace(from_kubeconfig(control_plane.kubeconfig), token=None, token_file=token)
    client = AiohttpKubeClient(connection, user_agent="test")
    await client.start()
    try:
        with pytest.raises(TerminalError) as caught:
            await client.list(CONFIG_MAP)
        assert caught.value.status == 401
        token.write_text(control_plane.admin_token)
        await client.list(CONFIG_MAP)
    finally:
        await client.stop()


async def test_what_the_server_makes_of_an_intent_still_contains_it(client: AiohttpKubeClient) -> None:
    intent = deployment(name(), owner_uid=str(uuid4()))
    assert contains(await client.apply(intent, field_manager="m"), intent)


async def test_executor_writes_once_and_repairs_drift(client: AiohttpKubeClient) -> None:
    # The owner must exist: the garbage collector removes children of owners that it cannot find.
    owner = await client.create(config_map({}))
    uid = owner["metadata"]["uid"]
    intent = deployment(name(), owner_uid=uid)
    intent["metadata"]["ownerReferences"][0]["name"] = owner["metadata"]["name"]
    cache = make_cache()
    executor = Executor(client, cache, "vllm-operator", "example.org/hash")
    ref = ObjectRef.of(intent)
    assert (await executor.execute(Plan(apply=(intent,)), uid)).writes == 1
    assert (await executor.execute(Plan(apply=(intent,)), uid)).writes == 0
    annotations = (await client.get(ref))["metadata"]["annotations"]
    assert annotations["example.org/hash"] == manifest_hash(intent)
    cache.put(await client.merge_patch(ref, {"spec": {"paused": True, "replicas": 2}}))
    assert (await executor.execute(Plan(apply=(intent,)), uid)).writes == 1
    assert (await client.get(ref))["spec"]["replicas"] == 0


async def test_status_is_applied_whole(client: AiohttpKubeClient) -> None:
    service = await client.create(
        {
            "apiVersion": LLM_SERVICE.api_version,
            "kind": LLM_SERVICE.kind,
            "metadata": {"name": name(), "namespace": "default"},
            "spec": {"model": {"id": "pvc://models/tiny"}},
        }
    )
    cache = make_cache([service])
    writer = StatusWriter(client, FakeClock(), "vllm-operator-status", 5.0, cache)
    ref = ObjectRef.of(service)

    def condition(status: str) -> dict[str, Any]:
        return {
            "type": "Ready",
            "status": status,
            "reason": "Serving",
            "message": "",
            "observedGeneration": 1,
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }

    both = {"observedGeneration": 1, "conditions": [condition("False"), {**condition("True"), "type": "Accepted"}]}
    await writer.write(service, both, "facts")
    stored = await client.get(ref)
    assert [c["type"] for c in stored["status"]["conditions"]] == ["Ready", "Accepted"]
    before = stored["metadata"]["resourceVersion"]
    await writer.write(stored, both, "facts")
    assert (await client.get(ref))["metadata"]["resourceVersion"] == before
    await writer.write(stored, {"observedGeneration": 1, "conditions": [condition("True")]}, "other facts")
    stored = await client.get(ref)
    assert [c["status"] for c in stored["status"]["conditions"]] == ["True"]
    await client.delete(ref)
    await writer.write(stored, {"observedGeneration": 2}, "facts of an object that is gone")


async def test_many_calls_at_once(client: AiohttpKubeClient) -> None:
    names = [name() for _ in range(100)]
    await asyncio.gather(*(client.apply(config_map({"a": "1"}, each), field_manager="m") for each in names))
    assert {item["metadata"]["name"] for item in (await client.list(CONFIG_MAP, namespace="default")).items} >= set(
        names
    )
