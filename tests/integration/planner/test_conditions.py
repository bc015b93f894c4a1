"""Every reason for which a service has no plan, or has one and waits, reached on a real API server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from tests.integration.planner.conftest import Cluster
from tests.support.models import CONFIGS
from tests.support.operator_stack import wait_for
from tests.unit.planner.inventory import label_sets

from localk8s.api import MERGE_PATCH
from vllm_operator_api.conditions import Reason
from vllm_operator_api.runtime import ModelFactsError, ModelFactsResult

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

NVIDIA = "nvidia.com/gpu"
LLAMA_8B, LLAMA_70B = CONFIGS["llama-8b"], CONFIGS["llama-70b"]
T4 = label_sets.gfd("Tesla-T4", 15360, 4, "7.5")
LEADER_WORKER_SET_DEFINITION = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {
        "name": "leaderworkersets.leaderworkerset.x-k8s.io",
        "annotations": {"api-approved.kubernetes.io": "https://github.com/kubernetes-sigs/lws"},
    },
    "spec": {
        "group": "leaderworkerset.x-k8s.io",
        "names": {
            "kind": "LeaderWorkerSet",
            "listKind": "LeaderWorkerSetList",
            "plural": "leaderworkersets",
            "singular": "leaderworkerset",
        },
        "scope": "Namespaced",
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
                "subresources": {"status": {}},
            }
        ],
    },
}
"""The kind without its controller and schema: what the operator writes is looked at, no group is made."""


@pytest.fixture(scope="module", autouse=True)
def nodes(cluster: Cluster) -> Iterator[None]:
    """L4 and T4 nodes, AMD nodes without labels, and Intel nodes that are cordoned."""
    cluster.add_node("l4-1", label_sets.L4, {NVIDIA: "4"})
    cluster.add_node("l4-2", label_sets.L4, {NVIDIA: "4"})
    cluster.add_node("t4", T4, {NVIDIA: "4"})
    cluster.add_node("amd", {}, {"amd.com/gpu": "8"})
    cluster.add_node("intel", label_sets.INTEL_FLEX, {"gpu.intel.com/xe": "2"}, unschedulable=True)
    yield
    cluster.kubectl("delete", "llm", "--all", "-n", "default", "--wait=true")
    cluster.remove_nodes()


@pytest.mark.parametrize(
    ("name", "config", "spec", "reason", "words"),
    [
        ("none", LLAMA_8B, {"accelerator": {"resourceName": "habana.ai/gaudi"}}, "NoAcceleratorNodes",
         ["no node offers habana.ai/gaudi", NVIDIA]),
        ("cordoned", LLAMA_8B, {"accelerator": {"resourceName": "gpu.intel.com/xe"}}, "NoAcceleratorNodes",
         ["intel is cordoned"]),
        ("no-product", LLAMA_8B, {"accelerator": {"products": ["NVIDIA-B200"]}}, "NoAcceleratorNodes",
         ["accelerator.products=NVIDIA-B200", "NVIDIA-L4"]),
        ("unlabelled", LLAMA_8B, {"accelerator": {"resourceName": "amd.com/gpu"}}, "AcceleratorLabelsMissing",
         ["1 node(s) offer amd.com/gpu", "acceleratorProfiles"]),
        ("too-large", LLAMA_70B, {}, "InsufficientGPUMemory",
         ["is short of", "GiB per GPU", "use NVIDIA-L40S", "allowMultiNode to true: tensor=4 pipeline=2 nodes=2 fits"]),
        ("too-long", LLAMA_8B,
         {"model": {"maxLength": 131072}, "accelerator": {"products": ["NVIDIA-L4"]},
          "parallelism": {"tensor": 1, "pipeline": 1}},
         "InsufficientGPUMemory", ["set spec.model.maxLength to at most", "set parallelism to 'auto'"]),
        ("too-many", LLAMA_8B, {"concurrency": {"min": 500}}, "ConcurrencyUnmet",
         ["concurrency.min=500", "scaling.minReplicas="]),
        ("illegal", LLAMA_8B, {"parallelism": {"tensor": 3}}, "InvalidParallelism",
         ["tensor=3", "32 attention heads", "1, 2, 4"]),
        ("too-wide", LLAMA_8B, {"parallelism": {"tensor": 8}}, "InvalidParallelism",
         ["8 GPUs, more than any node offers to one pod (4)"]),
        ("old-gpu", CONFIGS["gpt-oss-120b"], {"accelerator": {"products": ["Tesla-T4"]}}, "UnsupportedOnAccelerator",
         ["Tesla-T4", "7.5"]),
        ("unknown", {**LLAMA_8B, "architectures": ["LlamaForCausalLn"]}, {}, "UnsupportedArchitecture",
         ["LlamaForCausalLn", "LlamaForCausalLM"]),
        ("broken", {**LLAMA_8B, "num_hidden_layers": -3}, {}, "ModelConfigInvalid", ["num_hidden_layers=-3"]),
    ],
)  # fmt: skip
def test_no_plan(
    cluster: Cluster, name: str, config: dict[str, Any], spec: dict[str, Any], reason: str, words: list[str]
) -> None:
    cluster.apply_service(name, config, **{"model": {"maxLength": 8192}, **spec})
    service = cluster.until_planned(name, reason)
    condition = cluster.condition(name)
    assert condition["status"] == "False"
    for word in words:
        assert word in condition["message"]
    ready = cluster.condition(name, "Ready")
    assert (ready["status"], ready["reason"]) == ("False", reason)
    assert len(json.dumps(service["status"])) < 8192
    assert not cluster.pods(name)


@pytest.mark.parametrize(
    ("reason", "message"),
    [
        (Reason.GATED_MODEL, "acme/gated is gated: accept its licence, and set spec.model.tokenSecretRef"),
        (Reason.MODEL_NOT_FOUND, "there is no repository acme/nothing"),
        (Reason.HUB_RATE_LIMITED, "the hub answers 429: it is asked again in 240 s"),
        (Reason.MODEL_FACTS_UNAVAILABLE, "the hub does not answer in time"),
    ],
)
def test_a_model_that_cannot_be_read(cluster: Cluster, reason: Reason, message: str) -> None:
    """The reader's pod ends with this; what it says for which answer of a hub is tested with the reader."""
    name = f"unread-{reason.value.lower()}"
    cluster.apply_service(name)
    api = cluster.control_plane.api
    pods = "/api/v1/namespaces/default/pods"
    selector = f"inference.vllm-operator.io/owner-name={name},app.kubernetes.io/component=model-facts"
    (pod,) = wait_for(lambda: api.request("GET", f"{pods}?labelSelector={selector}")["items"], what="the reader's pod")
    result = ModelFactsResult(error=ModelFactsError(reason=reason.value, message=message))
    ended = {"exitCode": 0, "reason": "Completed", "message": result.model_dump_json(exclude_none=True)}
    container = {"name": "model-facts", "image": "x", "imageID": "", "restartCount": 0, "ready": False}
    status = {"phase": "Succeeded", "containerStatuses": [{**container, "state": {"terminated": ended}}]}
    api.request("PATCH", f"{pods}/{pod['metadata']['name']}/status", {"status": status}, content_type=MERGE_PATCH)
    cluster.until_planned(name, reason.value)
    assert message in cluster.condition(name)["message"]


def test_waiting_for_gpus_that_are_taken(cluster: Cluster) -> None:
    wide = {"accelerator": {"products": ["NVIDIA-L4"]}, "parallelism": {"tensor": 4, "pipeline": 1}}
    for name in ("first", "second"):
        cluster.apply_service(name, LLAMA_8B, model={"maxLength": 8192}, **wide)
        cluster.bound_pod(name)
    cluster.apply_service("third", LLAMA_8B, model={"maxLength": 8192}, **wide)
    cluster.until_planned("third", "WaitingForCapacity")
    condition = cluster.condition("third")
    assert condition["status"] == "True"
    assert "4 GPUs on one node of NVIDIA-L4 are taken" in condition["message"]
    assert "nvidia.com/gpu.product=NVIDIA-L4" in condition["message"]


def test_waiting_for_a_quota(cluster: Cluster) -> None:
    cluster.kubectl("create", "quota", "gpus", "-n", "default", f"--hard=requests.{NVIDIA}=1")
    try:
        spec = {"accelerator": {"products": ["Tesla-T4"]}, "parallelism": {"tensor": 4, "pipeline": 1}}
        cluster.apply_service("quota", LLAMA_8B, model={"maxLength": 2048, "dtype": "float16"}, **spec)
        cluster.until_planned("quota", "WaitingForCapacity")
        assert "ResourceQuota leaves fewer than the 4 nvidia.com/gpu" in cluster.condition("quota")["message"]
    finally:
        cluster.kubectl("delete", "quota", "gpus", "-n", "default")


def test_a_replica_over_nodes_needs_leader_worker_sets(cluster: Cluster) -> None:
    """Without the kind a condition says what to install; when it is there, the operator makes one."""
    spec = {"accelerator": {"products": ["NVIDIA-L4"]}, "parallelism": {"allowMultiNode": True}}
    cluster.apply_service("wide", LLAMA_70B, model={"maxLength": 4096}, **spec)
    cluster.until_planned("wide", "LeaderWorkerSetMissing")
    assert "install it" in cluster.condition("wide")["message"]

    cluster.kubectl("apply", "-f", "-", stdin=json.dumps(LEADER_WORKER_SET_DEFINITION))
    cluster.kubectl("wait", "--for=condition=Established", "crd", "leaderworkersets.leaderworkerset.x-k8s.io")
    cluster.restart_operator()
    cluster.until_planned("wide", "WaitingForCapacity")  # of the test before
    path = "/apis/leaderworkerset.x-k8s.io/v1/namespaces/default/leaderworkersets/wide-engine"
    made = wait_for(lambda: cluster.control_plane.api.exists(path), what="the LeaderWorkerSet")
    assert made
    group = cluster.control_plane.api.request("GET", path)["spec"]["leaderWorkerTemplate"]
    plan = cluster.service("wide")["status"]["plan"]
    assert group["size"] == plan["nodes"] == 2
    (container,) = group["leaderTemplate"]["spec"]["containers"]
    assert container["resources"]["limits"][NVIDIA] == "4"
    assert f"--pipeline-parallel-size={plan['pipeline']}" in json.dumps(container["env"])
