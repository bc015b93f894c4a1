"""The manifests of a service, whole, against golden files; and what holds for every one of them.

After an intended change: ``UPDATE_GOLDEN=1 pytest tests/unit/manifests``, and read the difference.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from tests.support.builders import make_service

from vllm_operator.kube.kinds import Manifest
from vllm_operator.manifests.common import Owner, selector_labels
from vllm_operator.manifests.engine_args import engine_args
from vllm_operator.manifests.engine_deployment import EngineInstall, engine_deployment
from vllm_operator.manifests.llmservice_service import engine_service
from vllm_operator.manifests.model_facts import facts_job, facts_job_name
from vllm_operator.planner.model_source import ModelLocation
from vllm_operator.planner.record import PlanRecord
from vllm_operator_api.names import MAX_CHILD_NAME_LENGTH, MAX_RESOURCE_NAME_LENGTH, ROUTABLE_LABEL
from vllm_operator_api.runtime import RUNTIME_CONFIG_ENV, RuntimeConfig
from vllm_operator_api.v1alpha1.llmservice import LLMServiceSpec

GOLDEN = Path(__file__).parent / "golden"
OWNER = Owner("LLMService", "team-a", "chat", "0a1b2c3d-0000-4000-8000-000000000001")
VOLUME = ModelLocation(claim="models", path="llama")
HUB = ModelLocation(repository="Qwen/Qwen3-8B", revision="main")
PLAN = PlanRecord(inputs="0123456789abcdef", tensor=2, products=("NVIDIA-L4",), batched_tokens=2048, home_gib=10)
INSTALL = EngineInstall(
    default_image="registry.example/runtime:1",
    image_pull_policy="IfNotPresent",
    queue_url="nats://queue.vllm-operator-system:4222",
    agent_credentials_secret="vllm-operator-queue-agent",
    hub_endpoint="",
)


def spec(**fields: Any) -> LLMServiceSpec:
    return LLMServiceSpec.model_validate({**make_service().build()["spec"], **fields})


def deployment(location: ModelLocation = VOLUME, install: EngineInstall = INSTALL, **fields: Any) -> Manifest:
    return engine_deployment(OWNER, spec(**fields), location, PLAN, install, replicas=1)


def job(location: ModelLocation = VOLUME) -> Manifest:
    return facts_job(
        OWNER, location, image="registry.example/operator:1", image_pull_policy="IfNotPresent", hub_endpoint=""
    )


MANIFESTS = {
    "deployment": deployment(),
    "service": engine_service(OWNER),
    "facts-job-volume": job(),
    "facts-job-hub": job(HUB),
}


@pytest.mark.parametrize("name", MANIFESTS)
def test_golden(name: str) -> None:
    file = GOLDEN / f"{name}.json"
    text = json.dumps(MANIFESTS[name], indent=2, sort_keys=True) + "\n"
    if os.environ.get("UPDATE_GOLDEN"):
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    assert json.loads(text) == json.loads(file.read_text())


@pytest.mark.parametrize("name", ["deployment", "facts-job-volume", "facts-job-hub"])
def test_pods_are_restricted(name: str) -> None:
    pod = MANIFESTS[name]["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for volume in pod["volumes"]:
        assert set(volume) & {"emptyDir", "secret", "persistentVolumeClaim"}
        assert "sizeLimit" in volume.get("emptyDir", {"sizeLimit": ""})
    for container in pod["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        }


def test_the_deployment_does_not_select_what_routing_flips() -> None:
    manifest = MANIFESTS["deployment"]
    labels = manifest["spec"]["template"]["metadata"]["labels"]
    assert manifest["spec"]["selector"]["matchLabels"] == selector_labels(OWNER, "engine")
    assert labels[ROUTABLE_LABEL] == "true"
    assert MANIFESTS["service"]["spec"]["selector"].items() <= labels.items()


def test_hub_models_have_no_volume_and_know_the_mirror() -> None:
    mirror = EngineInstall("r", "Always", "nats://q", "s", "https://mirror.example")
    pod = deployment(HUB, mirror)["spec"]["template"]["spec"]
    assert not [volume for volume in pod["volumes"] if "persistentVolumeClaim" in volume]
    config = runtime_config(deployment(HUB, mirror))
    assert config.engine_env == {"HF_ENDPOINT": "https://mirror.example"}
    assert "--model=Qwen/Qwen3-8B" in config.engine_args
    assert "--revision=main" in config.engine_args


def test_options_of_the_engine() -> None:
    args = engine_args(
        spec(
            model={"id": "pvc://models/llama", "maxLength": 4096, "servedNames": ["a", "b"], "dtype": "bfloat16"},
            engine={
                "kvCacheMemory": "12Gi",
                "enforceEager": True,
                "args": ["--load-format=dummy", "--max-num-batched-tokens=512", "--seed=1"],
            },
        ),
        "chat",
        VOLUME,
        PLAN,
    )
    assert args == [
        "--model=/mnt/model/llama",
        "--served-model-name",
        "a",
        "b",
        "--tensor-parallel-size=2",
        "--max-num-seqs=64",
        "--gpu-memory-utilization=0.92",
        "--dtype=bfloat16",
        "--max-model-len=4096",
        "--kv-cache-memory-bytes=12884901888",
        "--enforce-eager",
        "--load-format=dummy",
        "--max-num-batched-tokens=512",
        "--seed=1",
    ]


def test_our_environment_wins() -> None:
    manifest = deployment(engine={"env": [{"name": "HF_HUB_OFFLINE", "value": "0"}]})
    assert runtime_config(manifest).engine_env == {"HF_HUB_OFFLINE": "1"}


def test_names_fit() -> None:
    longest = "a" * MAX_RESOURCE_NAME_LENGTH
    assert len(facts_job_name(longest, VOLUME)) <= MAX_CHILD_NAME_LENGTH
    assert facts_job_name("chat", VOLUME) != facts_job_name("chat", HUB)


def runtime_config(manifest: Manifest) -> RuntimeConfig:
    environment = manifest["spec"]["template"]["spec"]["containers"][0]["env"]
    text = next(variable["value"] for variable in environment if variable["name"] == RUNTIME_CONFIG_ENV)
    return RuntimeConfig.model_validate_json(text)
