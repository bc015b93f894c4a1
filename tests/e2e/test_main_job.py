"""The demo's steps as assertions, with failures at bad moments. These tests build on each other, in order."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.e2e.scenario import (
    assert_exact,
    await_condition,
    engine_pods,
    job,
    rows_done,
    service,
    status_of,
)

from demo import client
from demo.kubectl import Kubectl, eventually

pytestmark = pytest.mark.timeout(900)
TOTAL_ROWS = 2000
IDLE_AFTER = "15s"


def test_services_become_ready_and_explain_their_plan(kubectl: Kubectl) -> None:
    kubectl.apply(
        [
            service("tiny", "tiny-llama", scaling={"idleAfter": IDLE_AFTER}),
            service("minilm", "all-minilm-l6-v2", scaling={"idleAfter": IDLE_AFTER}),
        ]
    )
    kubectl.wait("condition=Ready", "llm/tiny", "llm/minilm", timeout_seconds=300)

    plan = status_of(kubectl, "llmservice", "tiny")["plan"]
    assert plan["tensor"] == 1
    assert plan["gpus"] == 1
    assert plan["reason"]
    header, row = kubectl("get", "llm/tiny").splitlines()
    assert header.split() == ["NAME", "MODEL", "STATE", "READY", "GPUS", "TP", "IDLE", "AGE"]
    assert row.split()[:6] == ["tiny", "pvc://demo/models/tiny-llama", "Serving", "1/1", "1", "1"]


def test_the_engine_has_the_kv_cache_that_was_predicted(kubectl: Kubectl) -> None:
    """The size of the cache is given, so only the larger blocks on a CPU (128 tokens, not 16) round it down."""

    def plan() -> dict[str, Any] | None:
        found: dict[str, Any] = status_of(kubectl, "llmservice", "tiny")["plan"]
        return found if found.get("observed") else None

    seen = eventually(plan, what="the observed KV cache in status.plan", timeout_seconds=60)
    predicted, observed = seen["predicted"]["kvCacheTokens"], seen["observed"]["kvCacheTokens"]
    assert predicted - 128 < observed <= predicted
    assert seen["confidence"] == "High"


def test_pods_really_request_gpus(kubectl: Kubectl) -> None:
    (pod,) = engine_pods(kubectl, "tiny")
    assert pod["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"


def test_chat_is_answered_through_the_service(kubectl: Kubectl) -> None:
    body = {"model": "tiny", "messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 8}
    answer = client.in_pod(kubectl.command(), "post", "http://tiny:8000/v1/chat/completions", body)
    assert answer["object"] == "chat.completion", answer
    assert answer["usage"]["completion_tokens"] >= 1


def test_routes_that_are_not_ours_do_not_exist(kubectl: Kubectl) -> None:
    answer = client.in_pod(
        kubectl.command(), "post", "http://tiny:8000/scale_elastic_ep", {"new_data_parallel_size": 2}
    )
    assert answer["status"] == 404, answer


def test_embeddings_are_right(kubectl: Kubectl) -> None:
    sentences = ["a cat sits on the mat", "a kitten rests on a rug", "stock prices fell sharply"]
    body = {"model": "minilm", "input": sentences}
    answer = client.in_pod(kubectl.command(), "post", "http://minilm:8000/v1/embeddings", body)
    cat, kitten, stocks = (entry["embedding"] for entry in answer["data"])

    def cosine(a: list[float], b: list[float]) -> float:
        return sum(x * y for x, y in zip(a, b, strict=True))

    assert cosine(cat, kitten) > 0.5
    assert cosine(cat, stocks) < 0.2


def test_job_survives_kill_of_engine_driver_operator_and_queue(kubectl: Kubectl, system: Kubectl) -> None:
    """Every part is killed in mid-job, one after the other; every row comes out exactly once and in order."""
    kubectl.apply(job("storm", "minilm"))

    def leased() -> dict[str, Any] | None:
        status = status_of(kubectl, "inferencejob", "storm")
        return status if (status.get("leases") or {}).get("active") and status.get("workers") else None

    status = eventually(leased, what="leases of the job", timeout_seconds=120)
    assert status["phase"] == "Running"
    (worker,) = status["workers"]["items"]
    heartbeat = datetime.fromisoformat(worker["lastHeartbeatTime"])
    assert datetime.now(UTC) - heartbeat < timedelta(seconds=40)

    eventually(lambda: rows_done(kubectl, "storm") > 0, what="first rows", timeout_seconds=120)
    (pod,) = engine_pods(kubectl, "minilm")
    kubectl("delete", "pod", pod["metadata"]["name"], "--grace-period=0", "--force")
    for driver in kubectl.items("pods", "app.kubernetes.io/component=driver"):
        kubectl("delete", "pod", driver["metadata"]["name"], "--grace-period=0", "--force")
    for part in system.items("pods", "app.kubernetes.io/instance=vllm-operator"):
        system("delete", "pod", part["metadata"]["name"], "--grace-period=0", "--force")

    kubectl.wait("condition=Complete", "ij/storm", timeout_seconds=600)
    found = assert_exact(kubectl, "out/storm.jsonl", rows=TOTAL_ROWS)
    rows = status_of(kubectl, "inferencejob", "storm")["rows"]
    assert rows == {"total": TOTAL_ROWS, "completed": found["answered"], "failed": found["errors"]}


def test_job_columns(kubectl: Kubectl) -> None:
    header, row = kubectl("get", "ij/storm").splitlines()
    assert header.split() == ["NAME", "SERVICE", "PHASE", "PROGRESS", "FAILED", "LEASES", "AGE"]
    assert re.search(rf"\b{TOTAL_ROWS}/{TOTAL_ROWS}\b", row)


def test_prompt_longer_than_the_context_is_an_error_row(kubectl: Kubectl) -> None:
    rows = [{"id": 1, "prompt": "short"}, {"id": 2, "prompt": "too long " * 4000}, {"id": 3, "prompt": "short again"}]
    long_job = job(
        "long-prompt", "tiny",
        endpoint="/v1/chat/completions",
        input={"inline": {"rows": rows}},
        sampling={"maxTokens": 4},
        output={"configMap": {"name": "e2e-answers", "key": "rows.jsonl"}, "resultKey": "answer"},
    )  # fmt: skip
    kubectl.apply(long_job)
    kubectl.wait("condition=Complete", "ij/long-prompt", timeout_seconds=180)

    status = status_of(kubectl, "inferencejob", "long-prompt")
    assert status["phase"] == "PartiallySucceeded"
    assert status["rows"] == {"total": 3, "completed": 2, "failed": 1}
    output = (kubectl.get("configmap", "e2e-answers") or {})["data"]["rows.jsonl"].splitlines()
    assert len(output) == 3
    assert "maximum context length" in output[1]


def test_idle_services_go_to_zero_and_a_job_wakes_one(kubectl: Kubectl) -> None:
    for name in ("tiny", "minilm"):
        kubectl.wait("condition=Asleep", f"llm/{name}", timeout_seconds=180)
    eventually(lambda: not kubectl.items("pods", "app.kubernetes.io/component=engine"), what="zero", timeout_seconds=90)
    assert status_of(kubectl, "llmservice", "minilm")["plan"]["tensor"] == 1

    rows = {"inline": {"rows": [{"id": 1, "text": "good morning"}]}, "messageKey": "text"}
    kubectl.apply(job("wake", "minilm", input=rows))
    kubectl.wait("condition=Complete", "ij/wake", timeout_seconds=240)
    output = "/mnt/demo/out/wake.jsonl"
    found = client.in_pod(kubectl.command(), "check_rows", output, output, 1, "embedding")
    assert (found["output"], found["answered"]) == (1, 1)


def test_service_deleted_while_its_job_runs(kubectl: Kubectl) -> None:
    """The job waits, says so, and goes on when a service of that name exists again."""
    kubectl.apply(job("orphan", "minilm"))
    eventually(lambda: rows_done(kubectl, "orphan") > 0, what="first rows", timeout_seconds=240)
    kubectl("delete", "llm/minilm")
    message = await_condition(
        kubectl, "inferencejob", "orphan", "WorkersReady", status="False", reason="ServiceNotFound"
    )
    assert "minilm" in message

    kubectl.apply(service("minilm", "all-minilm-l6-v2"))
    kubectl.wait("condition=Complete", "ij/orphan", timeout_seconds=600)
    assert_exact(kubectl, "out/orphan.jsonl", rows=TOTAL_ROWS)
