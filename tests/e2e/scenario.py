"""Manifests and questions that the end-to-end tests share."""

from __future__ import annotations

import json
from typing import Any

from demo import client
from demo.kubectl import Kubectl, condition, eventually

API_VERSION = "inference.vllm-operator.io/v1alpha1"
ROWS = "/mnt/demo/fortunes.jsonl"


def service(name: str, model: str, **spec: Any) -> dict[str, Any]:
    """An LLMService on the demo's volume, small enough for two cores."""
    base = {
        "model": {"id": f"pvc://demo/models/{model}", "dtype": "float32"},
        "concurrency": {"target": 32},
        "resources": {"cpu": "250m", "memory": "4Gi", "shm": "256Mi"},
        "engine": {"kvCacheMemory": "64Mi"},
        "queue": {"leaseSeconds": 10, "heartbeatSeconds": 2, "shutdownGraceSeconds": 10},
    }
    return {"apiVersion": API_VERSION, "kind": "LLMService", "metadata": {"name": name}, "spec": {**base, **spec}}


def job(name: str, service_name: str, *, path: str = "fortunes.jsonl", **spec: Any) -> dict[str, Any]:
    """An embedding InferenceJob from and to the demo's volume."""
    base = {
        "serviceRef": {"name": service_name},
        "endpoint": "/v1/embeddings",
        "input": {"persistentVolumeClaim": {"claimName": "demo", "path": path}, "messageKey": "text"},
        "output": {
            "persistentVolumeClaim": {"claimName": "demo", "path": f"out/{name}.jsonl"},
            "resultKey": "embedding",
        },
    }
    return {"apiVersion": API_VERSION, "kind": "InferenceJob", "metadata": {"name": name}, "spec": {**base, **spec}}


def status_of(kubectl: Kubectl, resource: str, name: str) -> dict[str, Any]:
    """The status of an object, empty when it has none."""
    return (kubectl.get(resource, name) or {}).get("status") or {}


def await_condition(
    kubectl: Kubectl, resource: str, name: str, condition_type: str, *, status: str, reason: str, timeout: float = 120
) -> str:
    """Wait for a condition with this status and reason, and return its message."""

    def reached() -> dict[str, Any] | None:
        found = condition(kubectl.get(resource, name), condition_type)
        return found if found.get("status") == status and found.get("reason") == reason else None

    what = f"{resource}/{name} {condition_type}={status} {reason}"
    try:
        return str(eventually(reached, what=what, timeout_seconds=timeout)["message"])
    except TimeoutError as error:
        raise AssertionError(f"{error}: {json.dumps(status_of(kubectl, resource, name))[:2000]}") from None


def rows_done(kubectl: Kubectl, name: str) -> int:
    """Rows of a job that are in its output."""
    rows = status_of(kubectl, "inferencejob", name).get("rows") or {}
    return int(rows.get("completed", 0)) + int(rows.get("failed", 0))


def assert_exact(kubectl: Kubectl, output: str, *, rows: int, result_key: str = "embedding") -> dict[str, Any]:
    """Assert that an output holds every input row once, in order, each with an answer or an error."""
    found = client.in_pod(kubectl.command(), "check_rows", ROWS, f"/mnt/demo/{output}", rows, result_key)
    assert found["output"] == rows, found
    assert found["in_order"], found
    assert found["answered"] + found["errors"] == rows, found
    return dict(found)


def engine_pods(kubectl: Kubectl, service_name: str) -> list[dict[str, Any]]:
    """The engine pods of a service."""
    selector = f"app.kubernetes.io/component=engine,inference.vllm-operator.io/owner-name={service_name}"
    return kubectl.items("pods", selector)
