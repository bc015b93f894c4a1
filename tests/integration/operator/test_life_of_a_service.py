"""An LLMService with a real API server, the chart's rights and a real queue: to Serving, to zero, back, and away."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from tests.integration.operator.conftest import Stack
from tests.support.heartbeats import Workers
from tests.support.operator_stack import wait_for

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]


LD_PRELOAD = {"name": "LD_PRELOAD", "value": "x"}


def args(*engine_args: str) -> dict[str, Any]:
    return {"engine": {"args": list(engine_args)}}


def owned(name: str) -> str:
    return f"inference.vllm-operator.io/owner-name={name}"


def engines(name: str) -> str:
    return f"app.kubernetes.io/component=engine,{owned(name)}"


def manifest(name: str, **spec: Any) -> str:
    body = {
        "apiVersion": "inference.vllm-operator.io/v1alpha1",
        "kind": "LLMService",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"model": {"id": "pvc://models/llama"}, **spec},
    }
    return json.dumps(body)


async def until(probe: Callable[[], Any], what: str, timeout_seconds: float = 30) -> Any:
    """``wait_for`` without stopping the heartbeats."""
    return await asyncio.to_thread(wait_for, probe, what=what, timeout_seconds=timeout_seconds)


async def until_ready(stack: Stack, name: str, reason: str) -> dict[str, Any]:
    def reached() -> dict[str, Any] | None:
        found = stack.condition("llmservices", name, "Ready")
        return found if found.get("reason") == reason else None

    try:
        return dict(await until(reached, f"{name} {reason}"))
    except AssertionError as error:
        raise AssertionError(f"{error}: {stack.get('llmservices', name).get('status')}") from None


async def test_a_service_is_planned_created_and_ready(stack: Stack, workers: Workers) -> None:
    stack.kubectl("apply", "-f", "-", stdin=manifest("llama", parallelism={"tensor": 2}))
    await until_ready(stack, "llama", "Serving")

    status = stack.get("llmservices", "llama")["status"]
    assert status["plan"]["tensor"] == 2
    assert status["plan"]["legalTensor"] == [1, 2, 4, 8]
    assert status["plan"]["product"] == "NVIDIA-L4"
    assert status["ready"] == "1/1"
    assert status["url"] == "http://llama.default.svc.cluster.local:8000"
    (deployment,) = stack.list("apis/apps/v1:deployments", owned("llama"))
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "2"


async def test_nothing_is_written_while_nothing_changes(stack: Stack, workers: Workers) -> None:
    await until_ready(stack, "llama", "Serving")
    await asyncio.sleep(3)  # the numbers of the last change are still to be written, at most once an interval
    before = stack.operator.metric("vllm_operator_api_writes_total")
    await asyncio.sleep(4)
    assert stack.operator.metric("vllm_operator_api_writes_total") - before <= 1  # a heartbeat time, every ten seconds


async def test_drift_is_repaired_and_a_deleted_child_made_again(stack: Stack, workers: Workers) -> None:
    await until_ready(stack, "llama", "Serving")
    (service,) = stack.list("api/v1:services", owned("llama"))
    stack.kubectl("delete", "service", service["metadata"]["name"], "-n", "default")
    await until(lambda: stack.list("api/v1:services", owned("llama")), "the Service")

    stack.kubectl("patch", "deployment", "llama-engine", "-n", "default", "-p", '{"spec":{"replicas":3}}')
    await until(
        lambda: stack.list("apis/apps/v1:deployments", owned("llama"))[0]["spec"]["replicas"] == 1, "one replica again"
    )


async def test_an_idle_service_sleeps_and_a_job_wakes_it(stack: Stack, workers: Workers) -> None:
    stack.kubectl("apply", "-f", "-", stdin=manifest("sleepy", scaling={"idleAfter": "2s"}))
    await until_ready(stack, "sleepy", "Serving")
    workers.idle_seconds = 60
    await until_ready(stack, "sleepy", "Asleep")
    assert stack.condition("llmservices", "sleepy", "Asleep")["status"] == "True"
    assert stack.get("llmservices", "sleepy")["status"]["plan"]["tensor"] >= 1
    await until(lambda: not stack.list("api/v1:pods", engines("sleepy")), "no pod")


async def test_silence_of_the_agents_never_puts_a_service_to_sleep(stack: Stack, workers: Workers) -> None:
    stack.kubectl("apply", "-f", "-", stdin=manifest("silent", scaling={"idleAfter": "2s"}))
    await until_ready(stack, "silent", "Serving")
    workers.idle_seconds, workers.silent = 60, True
    await asyncio.sleep(6)
    assert stack.condition("llmservices", "silent", "Ready")["reason"] == "Serving"
    assert len(stack.list("api/v1:pods", engines("silent"))) == 1


async def test_queue_down_is_a_condition_and_passes(stack: Stack, workers: Workers) -> None:
    await until_ready(stack, "llama", "Serving")
    stack.nats.kill()
    try:
        await until(
            lambda: stack.condition("llmservices", "llama", "QueueAvailable").get("status") == "False",
            "QueueUnavailable",
        )
        assert stack.condition("llmservices", "llama", "Ready")["reason"] == "Serving"
    finally:
        stack.nats.restart()
    await until(lambda: stack.condition("llmservices", "llama", "QueueAvailable")["status"] == "True", "QueueConnected")


async def test_api_server_killed_and_back(stack: Stack, workers: Workers) -> None:
    stack.control_plane.kill_apiserver()
    await asyncio.to_thread(stack.control_plane.restart_apiserver)
    stack.kubectl("apply", "-f", "-", stdin=manifest("after-outage"))
    await until_ready(stack, "after-outage", "Serving")


@pytest.mark.parametrize(
    ("name", "spec", "condition_type", "reason", "want"),
    [
        ("bad-tensor", {"parallelism": {"tensor": 3}}, "Planned", "InvalidParallelism", "1, 2, 4, 8"),
        ("big-tensor", {"parallelism": {"tensor": 16}}, "Planned", "InvalidParallelism", "16"),
        ("bad-arg", args("--max-num-batch-tokens=7"), "Accepted", "EngineArgUnknown", "--max-num-batched-tokens"),
        ("no-arg", args("--middleware=evil.Class"), "Accepted", "EngineArgNotAllowed", "--middleware"),
        ("bad-env", {"engine": {"env": [LD_PRELOAD]}}, "Accepted", "EnvNotAllowed", "LD_PRELOAD"),
        ("no-gpu", {"accelerator": {"resourceName": "amd.com/gpu"}}, "Planned", "NoAcceleratorNodes", "amd.com/gpu"),
    ],
)  # fmt: skip
async def test_what_cannot_start_is_a_condition_before_a_pod_exists(
    stack: Stack, name: str, spec: dict[str, Any], condition_type: str, reason: str, want: str
) -> None:
    stack.kubectl("apply", "-f", "-", stdin=manifest(name, **spec))

    def refused() -> dict[str, Any] | None:
        found = stack.condition("llmservices", name, condition_type)
        return found if found.get("status") == "False" and found["reason"] == reason else None

    try:
        message = (await until(refused, f"{name} {reason}"))["message"]
    except AssertionError as error:
        raise AssertionError(f"{error}: {stack.get('llmservices', name).get('status')}") from None
    assert want in message
    assert not stack.list("apis/apps/v1:deployments", f"inference.vllm-operator.io/owner-name={name}")


async def test_deleting_everything_leaves_no_child(stack: Stack) -> None:
    stack.kubectl("delete", "llm,ij", "--all", "-n", "default", "--wait=true")
    selector = "app.kubernetes.io/managed-by=vllm-operator"
    for path in (
        "apis/apps/v1:deployments",
        "api/v1:services",
        "apis/batch/v1:jobs",
        "api/v1:configmaps",
        "api/v1:pods",
    ):
        await until(lambda path=path: not stack.list(path, selector), f"no {path}")
