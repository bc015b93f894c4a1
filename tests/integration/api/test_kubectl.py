"""What users see with kubectl: refusals, columns, short names, waiting, explain, and the examples."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.support.kubectl import Kubectl, KubectlError

from localk8s.api import ApiError
from localk8s.control_plane import ControlPlane

pytestmark = pytest.mark.integration

REPOSITORY = Path(__file__).resolve().parents[3]
EXAMPLES = sorted(
    path for path in (REPOSITORY / "examples").rglob("*.yaml") if "inference.vllm-operator.io" in path.read_text()
)
GROUP_VERSION = "inference.vllm-operator.io/v1alpha1"
NOW = "2026-01-01T00:00:00Z"


def manifest(kind: str, name: str, spec: dict[str, Any]) -> str:
    return json.dumps({"apiVersion": GROUP_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec})


def condition(kind: str, reason: str, status: str = "True") -> dict[str, Any]:
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": "",
        "observedGeneration": 1,
        "lastTransitionTime": NOW,
    }


def set_status(control_plane: ControlPlane, plural: str, name: str, status: dict[str, Any]) -> dict[str, Any]:
    path = f"/apis/{GROUP_VERSION}/namespaces/default/{plural}/{name}/status?fieldManager=test&fieldValidation=Strict"
    kind = {"llmservices": "LLMService", "inferencejobs": "InferenceJob"}[plural]
    body = {"apiVersion": GROUP_VERSION, "kind": kind, "metadata": {"name": name}, "status": status}
    return control_plane.api.request("PATCH", path, body, content_type="application/apply-patch+yaml")


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_examples_are_accepted(kubectl: Kubectl, path: Path) -> None:
    kubectl("apply", "--dry-run=server", "--validate=strict", "-f", str(path))


def test_examples_are_there() -> None:
    assert {"llmservice-gpu.yaml", "llmservice-pvc.yaml", "inferencejob-inline.yaml"} <= {
        path.name for path in EXAMPLES
    }


def test_apply_refuses_an_unknown_field(kubectl: Kubectl) -> None:
    text = manifest("LLMService", "typo", {"model": {"id": "a/b"}, "paralelism": {"tensor": 2}})
    with pytest.raises(KubectlError, match=r'strict decoding error: unknown field "spec.paralelism"'):
        kubectl("apply", "-f", "-", stdin=text)


def test_columns_of_a_service(kubectl: Kubectl, control_plane: ControlPlane) -> None:
    kubectl("apply", "-f", "-", stdin=manifest("LLMService", "chat", {"model": {"id": "Qwen/Qwen3-8B"}}))
    status = {
        "observedGeneration": 1,
        "conditions": [condition("Accepted", "Valid"), condition("Ready", "Serving")],
        "ready": "1/1",
        "plan": {"gpus": 2, "tensor": 2},
        "url": "http://chat.default.svc:8000/v1",
        "lastActivityTime": NOW,
    }
    try:
        stored = set_status(control_plane, "llmservices", "chat", status)
        assert stored["status"] == status, "the API server adds nothing to a status"
        header, row = kubectl("get", "llm").splitlines()
        assert header.split() == ["NAME", "MODEL", "STATE", "READY", "GPUS", "TP", "IDLE", "AGE"]
        assert row.split()[:6] == ["chat", "Qwen/Qwen3-8B", "Serving", "1/1", "2", "2"]
        assert row.split()[6].endswith(("d", "y"))
        assert "http://chat.default.svc:8000/v1" in kubectl("get", "llm", "-o", "wide")
        assert "llmservice.inference.vllm-operator.io/chat" in kubectl("get", "vllm-operator", "-o", "name")
        kubectl("wait", "--for=condition=Ready", "llm/chat", "--timeout=5s")
    finally:
        kubectl("delete", "llm", "chat")


def test_columns_of_a_job(kubectl: Kubectl, control_plane: ControlPlane) -> None:
    text = (REPOSITORY / "examples" / "inferencejob-inline.yaml").read_text()
    name = yaml.safe_load(text)["metadata"]["name"]
    kubectl("apply", "-f", "-", stdin=text)
    status = {
        "phase": "Succeeded",
        "conditions": [condition("Complete", "Succeeded")],
        "rows": {"total": 2, "completed": 2, "failed": 0},
        "progress": "2/2",
        "leases": {"active": 0},
        "output": {"location": "configmap://hello-answers/answers.jsonl"},
    }
    try:
        assert set_status(control_plane, "inferencejobs", name, status)["status"] == status
        header, row = kubectl("get", "ij").splitlines()
        assert header.split() == ["NAME", "SERVICE", "PHASE", "PROGRESS", "FAILED", "LEASES", "AGE"]
        assert row.split()[:6] == [name, "qwen", "Succeeded", "2/2", "0", "0"]
        assert "configmap://hello-answers/answers.jsonl" in kubectl("get", "ij", "-o", "wide")
        kubectl("wait", "--for=condition=Complete", f"ij/{name}", "--timeout=5s")
    finally:
        kubectl("delete", "ij", name)


def test_status_does_not_take_what_the_schema_does_not_have(kubectl: Kubectl, control_plane: ControlPlane) -> None:
    kubectl("apply", "-f", "-", stdin=manifest("LLMService", "chat", {"model": {"id": "a/b"}}))
    try:
        with pytest.raises(ApiError, match="field not declared in schema"):
            set_status(control_plane, "llmservices", "chat", {"bogus": 1})
    finally:
        kubectl("delete", "llm", "chat")


def test_explain_describes_fields(kubectl: Kubectl) -> None:
    text = " ".join(kubectl("explain", "llm.spec.parallelism.tensor").split())
    assert "the cut with the fewest GPUs at which the weights and concurrency.min requests of full length fit" in text
