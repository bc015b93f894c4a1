"""What a user can get wrong and only a real node or the real engine can tell."""

from __future__ import annotations

import pytest
from tests.e2e.scenario import await_condition, engine_pods, job, service

from demo.kubectl import Kubectl, KubectlError

pytestmark = pytest.mark.timeout(600)


def test_engine_refuses_an_argument_at_start(kubectl: Kubectl) -> None:
    """The condition carries vLLM's own words, not CrashLoopBackOff."""
    refused = {"kvCacheMemory": "64Mi", "args": ["--seed=abc"]}
    kubectl.apply(service("refused", "tiny-llama", engine=refused))
    message = await_condition(
        kubectl, "llmservice", "refused", "Ready", status="False", reason="EngineFailed", timeout=180
    )
    assert "--seed" in message
    assert "abc" in message
    assert "CrashLoopBackOff" not in message
    kubectl("delete", "llm/refused")


def test_image_that_cannot_be_pulled(kubectl: Kubectl) -> None:
    kubectl.apply(service("no-image", "tiny-llama", image="localhost/absent/runtime:1"))
    message = await_condition(kubectl, "llmservice", "no-image", "Ready", status="False", reason="ImagePullFailed")
    assert "localhost/absent/runtime:1" in message
    kubectl("delete", "llm/no-image")


def test_model_path_that_does_not_exist(kubectl: Kubectl) -> None:
    kubectl.apply(service("no-model", "absent"))
    message = await_condition(kubectl, "llmservice", "no-model", "Planned", status="False", reason="ModelNotFound")
    assert "models/absent" in message
    assert not engine_pods(kubectl, "no-model")
    kubectl("delete", "llm/no-model")


def test_model_path_that_leaves_the_volume(kubectl: Kubectl) -> None:
    with pytest.raises(KubectlError, match=r"must not contain the path element '\.\.'"):
        kubectl.apply(service("outside", "../models/tiny-llama"))


def test_claim_that_does_not_exist(kubectl: Kubectl) -> None:
    manifest = service("no-claim", "tiny-llama")
    manifest["spec"]["model"]["id"] = "pvc://absent/model"
    kubectl.apply(manifest)
    message = await_condition(kubectl, "llmservice", "no-claim", "Planned", status="False", reason="ModelNotFound")
    assert "absent" in message
    kubectl("delete", "llm/no-claim")


def test_job_input_and_output_that_are_wrong(kubectl: Kubectl) -> None:
    kubectl.apply(service("waiting", "all-minilm-l6-v2", scaling={"idleAfter": "15s"}))
    kubectl.apply(job("no-input", "waiting", path="absent.jsonl"))
    taken = job("output-taken", "waiting")
    taken["spec"]["output"]["persistentVolumeClaim"]["path"] = "fortunes.jsonl"
    taken["spec"]["input"]["persistentVolumeClaim"]["path"] = "fortunes-200.jsonl"
    kubectl.apply(taken)

    message = await_condition(kubectl, "inferencejob", "no-input", "Failed", status="True", reason="InputNotFound")
    assert "absent.jsonl" in message
    message = await_condition(kubectl, "inferencejob", "output-taken", "Failed", status="True", reason="OutputExists")
    assert "fortunes.jsonl" in message
    kubectl("delete", "ij/no-input", "ij/output-taken", "llm/waiting")


def test_job_that_names_a_service_that_does_not_exist(kubectl: Kubectl) -> None:
    kubectl.apply(job("early", "later"))
    message = await_condition(
        kubectl, "inferencejob", "early", "WorkersReady", status="False", reason="ServiceNotFound"
    )
    assert "later" in message
    kubectl("delete", "ij/early")
