"""``kubectl-llm plan -f``: the plan of a file for the nodes of a cluster."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.support.builders import facts_message, make_child, make_facts, make_facts_pod, make_node, make_service
from tests.unit.cli.api_server import NODES, FakeApiServer, fake_api_server
from tests.unit.cli.commands import Answer, Commands
from tests.unit.cli.model_files import DENSE, LARGE, write

from vllm_operator.manifests.common import MODEL_FACTS_COMPONENT
from vllm_operator.manifests.model_facts import facts_job_name
from vllm_operator.planner.sources.location import ModelLocation, locate_model
from vllm_operator_api.names import COMPONENT_LABEL
from vllm_operator_api.v1alpha1.llmservice import ModelSource

H100 = ("NVIDIA-H100-80GB-HBM3", 81559)
PODS = "/api/v1/pods"


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeApiServer]:
    """A cluster with one node of eight H100, in the context ``here`` of KUBECONFIG."""
    with fake_api_server() as server:
        server.lists[NODES] = [make_node("gpu-1").gpus(8).product(*H100).build()]
        server.lists[PODS] = []
        monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig(tmp_path)))
        yield server


def service_file(directory: Path, **spec: Any) -> Path:
    """A file with a Service beside the LLMService."""
    service = make_service("chat").build()
    service["spec"].update(spec)
    path = directory / "service.yaml"
    path.write_text(yaml.safe_dump_all([{"apiVersion": "v1", "kind": "Service"}, service]))
    return path


def plan(llm: Commands, file: Path, config: Path | None, *more: object) -> Answer:
    model = [] if config is None else ["--model-config", config]
    return llm("plan", "-f", file, *model, "--context", "here", *more, "-o", "json")


def refused(answer: Answer, says: str) -> None:
    assert (answer.status, answer.out, answer.err.count("\n")) == (2, "", 1)
    assert says in answer.err


def test_a_plan_for_the_nodes_that_are_there(llm: Commands, tmp_path: Path, cluster: FakeApiServer) -> None:
    answer = plan(llm, service_file(tmp_path), write(tmp_path, LARGE))
    found = answer.document
    assert (answer.status, found["feasible"], found["reason"]) == (0, True, "Planned")
    assert (found["tensor"], found["product"], found["maxLength"]) == (4, H100[0], 131072)
    assert found["legalTensor"] == [1, 2, 4, 8]


def test_nothing_is_written(llm: Commands, tmp_path: Path, cluster: FakeApiServer) -> None:
    plan(llm, service_file(tmp_path), write(tmp_path, DENSE))
    assert {request.partition(" ")[0] for request in cluster.requests} == {"GET"}
    assert f"GET {NODES}" in cluster.requests


def test_the_spec_decides(llm: Commands, tmp_path: Path, cluster: FakeApiServer) -> None:
    config = write(tmp_path, DENSE)
    manual = service_file(tmp_path, parallelism={"tensor": 3})
    assert plan(llm, manual, config).document["reason"] == "InvalidParallelism"
    other = service_file(tmp_path, accelerator={"products": ["NVIDIA-B200"]})
    answer = plan(llm, other, config)
    assert (answer.status, answer.document["reason"]) == (3, "NoAcceleratorNodes")
    assert "NVIDIA-H100-80GB-HBM3" in answer.document["message"]


def test_conditions_before_the_model_is_looked_at(llm: Commands, tmp_path: Path, cluster: FakeApiServer) -> None:
    answer = plan(llm, service_file(tmp_path, engine={"args": ["--middleware=a.b"]}), write(tmp_path, DENSE))
    assert (answer.status, answer.document["reason"]) == (3, "EngineArgNotAllowed")
    assert answer.document["predicted"] is None


def test_an_architecture_that_the_operator_would_refuse(llm: Commands, tmp_path: Path, cluster: FakeApiServer) -> None:
    config = write(tmp_path, DENSE, architectures=["LlamoForCausalLM"])
    assert plan(llm, service_file(tmp_path), config).document["reason"] == "UnsupportedArchitecture"


def test_gpus_that_are_taken(llm: Commands, tmp_path: Path, cluster: FakeApiServer) -> None:
    container = {"name": "c", "resources": {"requests": {"nvidia.com/gpu": "8"}}}
    pod = {"metadata": {"name": "p"}, "spec": {"containers": [container]}, "status": {"phase": "Running"}}
    cluster.lists[PODS] = [pod]
    answer = plan(llm, service_file(tmp_path), write(tmp_path, DENSE))
    assert (answer.status, answer.document["reason"]) == (0, "WaitingForCapacity")


@pytest.mark.parametrize("status", [403, 404, 500])
def test_what_a_user_may_not_see_does_not_stop_a_plan(
    llm: Commands, tmp_path: Path, cluster: FakeApiServer, status: int
) -> None:
    cluster.lists[PODS] = status
    answer = plan(llm, service_file(tmp_path), write(tmp_path, DENSE))
    assert (answer.status, answer.document["reason"]) == (0, "Planned")


def test_no_nodes_with_accelerators(llm: Commands, tmp_path: Path, cluster: FakeApiServer) -> None:
    cluster.lists[NODES] = [make_node("cpu-1").build()]
    answer = plan(llm, service_file(tmp_path), write(tmp_path, DENSE))
    assert (answer.status, answer.document["reason"]) == (3, "NoAcceleratorNodes")


def test_a_configuration_in_the_spec(llm: Commands, tmp_path: Path, cluster: FakeApiServer) -> None:
    model = {"id": "pvc://models/any", "facts": {"config": json.dumps(DENSE), "weightsGiB": 15.5}}
    found = plan(llm, service_file(tmp_path, model=model), None).document
    assert (found["feasible"], found["weightsSource"]) == (True, "given")


def test_what_a_job_in_the_cluster_has_read(llm: Commands, tmp_path: Path, cluster: FakeApiServer) -> None:
    service = make_service("chat").build()
    location = locate_model(ModelSource(id=service["spec"]["model"]["id"]))
    assert isinstance(location, ModelLocation)
    name = facts_job_name("chat", location, None)
    job = make_child(service, {"metadata": {"name": name, "labels": {COMPONENT_LABEL: MODEL_FACTS_COMPONENT}}})
    pod = make_facts_pod(service, job).terminated(facts_message(make_facts(revision="read-by-a-job"))).build()
    namespace = service["metadata"]["namespace"]
    cluster.lists[f"/apis/batch/v1/namespaces/{namespace}/jobs"] = [job]
    cluster.lists[f"/api/v1/namespaces/{namespace}/pods"] = [pod]
    found = plan(llm, service_file(tmp_path), None).document
    assert (found["feasible"], found["tensor"], found["legalTensor"]) == (True, 1, [1, 2, 4, 8])


def test_a_model_on_a_volume_needs_its_configuration(llm: Commands, tmp_path: Path, cluster: FakeApiServer) -> None:
    refused(plan(llm, service_file(tmp_path), None), "pvc://models/llama lies on a volume, which only pods can read")


def test_a_hub_that_cannot_be_reached(
    llm: Commands, tmp_path: Path, cluster: FakeApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    answer = plan(llm, service_file(tmp_path, model={"id": "nobody/unheard-of"}), None)
    refused(answer, "http://127.0.0.1:1 cannot be reached")
    assert "--model-config" in answer.err


def test_clusters_that_cannot_be_read(
    llm: Commands, tmp_path: Path, cluster: FakeApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, config = service_file(tmp_path), write(tmp_path, DENSE)
    refused(llm("plan", "-f", file, "--model-config", config), "nodes cannot be listed")
    refused(llm("plan", "-f", file, "--model-config", config, "--context", "elsewhere"), "'elsewhere'")
    cluster.lists[NODES] = 403
    refused(plan(llm, file, config), "nodes cannot be listed: status 403")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "absent"))
    refused(plan(llm, file, config), "kubeconfig")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "holds 0 objects of kind LLMService"),
        ("kind: LLMService\n---\nkind: LLMService\n", "holds 2 objects of kind LLMService"),
        ("kind: LLMService\nspec: {}\n", "metadata.name='None'"),
        ("kind: LLMService\nmetadata: {name: Chat_1}\n", "metadata.name='Chat_1'"),
        ("kind: LLMService\nmetadata: {name: chat}\nspec: {}\n", "spec.model: Field required"),
        ("kind: LLMService\nmetadata: {name: chat}\nspec: {model: {id: 3}}\n", "spec.model.id"),
        ("kind: [", "is not YAML"),
        ("[" * 600, "is not YAML"),
        ("a: " + "x" * 1_100_000, "more than 1048576 bytes"),
    ],
)
def test_files_that_are_no_service(
    llm: Commands, tmp_path: Path, cluster: FakeApiServer, content: str, says: str
) -> None:
    path = tmp_path / "service.yaml"
    path.write_text(content)
    refused(plan(llm, path, None), says)
