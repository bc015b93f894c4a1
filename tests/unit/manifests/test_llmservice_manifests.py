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
from vllm_operator.manifests.engine_args import engine_args, layout_args
from vllm_operator.manifests.engine_deployment import engine_deployment
from vllm_operator.manifests.engine_pod import FOLLOWER_COMPONENT, EngineInputs, EngineInstall
from vllm_operator.manifests.leader_worker_set import leader_worker_set, leader_worker_set_name
from vllm_operator.manifests.llmservice_service import engine_service
from vllm_operator.manifests.model_facts import facts_job, facts_job_name
from vllm_operator.manifests.placement import EnginePlacement, pod_resources
from vllm_operator.planner.inventory.pool import LabelRequirement, Taint
from vllm_operator.planner.layout import Layout
from vllm_operator.planner.record import Placement, PlanRecord
from vllm_operator.planner.sources.location import ModelLocation
from vllm_operator_api.names import MAX_CHILD_NAME_LENGTH, MAX_RESOURCE_NAME_LENGTH, ROUTABLE_LABEL
from vllm_operator_api.runtime import RUNTIME_CONFIG_ENV, RuntimeConfig
from vllm_operator_api.v1alpha1.llmservice import LLMServiceSpec, SecretKey

MAX_LABEL_LENGTH = 63
GOLDEN = Path(__file__).parent / "golden"
OWNER = Owner("LLMService", "team-a", "chat", "0a1b2c3d-0000-4000-8000-000000000001")
VOLUME = ModelLocation(claim="models", path="llama")
TOKEN = SecretKey(name="hub", key="read-only")
HUB = ModelLocation(repository="Qwen/Qwen3-8B", revision="main")
ONE_NODE = Layout(tensor=2)
TWO_NODES = Layout(tensor=8, pipeline=2, nodes=2)
L4 = (LabelRequirement(key="nvidia.com/gpu.product", values=("NVIDIA-L4",)),)
H100 = (LabelRequirement(key="nvidia.com/gpu.product", values=("NVIDIA-H100-80GB-HBM3",)),)
INSTALL = EngineInstall(
    default_image="registry.example/runtime:1",
    image_pull_policy="IfNotPresent",
    queue_url="nats://queue.vllm-operator-system:4222",
    agent_credentials_secret="vllm-operator-queue-agent",
    hub_endpoint="",
)


def spec(**fields: Any) -> LLMServiceSpec:
    return LLMServiceSpec.model_validate({**make_service().build()["spec"], **fields})


def inputs(
    layout: Layout, location: ModelLocation = VOLUME, install: EngineInstall = INSTALL, **fields: Any
) -> EngineInputs:
    service = spec(**fields)
    taints = (Taint(key="dedicated", value="inference", effect="NoSchedule"),) if layout.nodes > 1 else ()
    pool = H100 if layout.nodes > 1 else L4
    return EngineInputs(
        owner=OWNER,
        spec=service,
        location=location,
        plan=PlanRecord(
            inputs="0123456789abcdef",
            layout=layout,
            placements=(
                Placement(
                    product=pool[0].values[0],
                    requirements=pool,
                    taints=taints,
                    calibration_key="fedcba9876543210",
                    room_bytes=12_000_000_000,
                ),
            ),
            planned_for=pool[0].values[0],
            batched_tokens=2048,
            home_gib=10,
            weights_bytes=16_000_000_000,
        ),
        placement=EnginePlacement(
            layout=layout,
            resource_name=service.accelerator.resource_name,
            pools=(pool,),
            taints=taints,
            resources=pod_resources(service.resources, layout.gpus_per_node, 16_000_000_000),
        ),
        install=install,
    )


def deployment(location: ModelLocation = VOLUME, install: EngineInstall = INSTALL, **fields: Any) -> Manifest:
    return engine_deployment(inputs(ONE_NODE, location, install, **fields), replicas=1)


def job(location: ModelLocation = VOLUME) -> Manifest:
    return facts_job(
        OWNER,
        location,
        image="registry.example/operator:1",
        image_pull_policy="IfNotPresent",
        hub_endpoint="",
        token=TOKEN if location.repository else None,
    )


MANIFESTS = {
    "deployment": deployment(),
    "leader-worker-set": leader_worker_set(inputs(TWO_NODES), replicas=1),
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


GROUP = MANIFESTS["leader-worker-set"]["spec"]["leaderWorkerTemplate"]
PODS = {
    **{name: MANIFESTS[name]["spec"]["template"] for name in ("deployment", "facts-job-volume", "facts-job-hub")},
    "leader": GROUP["leaderTemplate"],
    "follower": GROUP["workerTemplate"],
}


@pytest.mark.parametrize("name", PODS)
def test_pods_are_restricted(name: str) -> None:
    pod = PODS[name]["spec"]
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
    config = runtime_config(deployment(HUB, mirror)["spec"]["template"])
    assert config.engine_env == {"HF_ENDPOINT": "https://mirror.example"}
    assert "--model=Qwen/Qwen3-8B" in config.engine_args
    assert "--revision=main" in config.engine_args


def test_a_hub_token_is_a_file_and_only_where_the_hub_is_asked() -> None:
    model = {"id": "meta-llama/Llama-3.1-8B", "tokenSecretRef": {"name": "hub", "key": "read-only"}}
    template = deployment(HUB, model=model)["spec"]["template"]
    mounted = next(volume for volume in template["spec"]["volumes"] if volume["name"] == "hub-token")
    assert mounted["secret"]["secretName"] == "hub"
    mounts = {mount["name"]: mount["mountPath"] for mount in template["spec"]["containers"][0]["volumeMounts"]}
    assert runtime_config(template).engine_env == {"HF_TOKEN_PATH": f"{mounts['hub-token']}/token"}
    without = deployment(VOLUME, model={**model, "id": "pvc://models/llama"})["spec"]["template"]
    assert "hub-token" not in str(without)
    assert "HF_TOKEN_PATH" not in runtime_config(without).engine_env


def test_a_group_is_one_engine() -> None:
    assert (GROUP["size"], GROUP["restartPolicy"]) == (2, "RecreateGroupOnPodRestart")
    leader, follower = GROUP["leaderTemplate"], GROUP["workerTemplate"]
    selector = MANIFESTS["service"]["spec"]["selector"]
    assert selector.items() <= leader["metadata"]["labels"].items()
    assert ROUTABLE_LABEL not in follower["metadata"]["labels"]
    assert follower["metadata"]["labels"]["app.kubernetes.io/component"] == FOLLOWER_COMPONENT
    for template in (leader, follower):
        limits = template["spec"]["containers"][0]["resources"]["limits"]
        assert limits["nvidia.com/gpu"] == "8"
        assert runtime_config(template).nodes == 2
        assert runtime_config(template).engine_args == runtime_config(leader).engine_args


def test_a_follower_has_no_server_no_agent_and_no_credentials() -> None:
    pod = GROUP["workerTemplate"]["spec"]
    container = pod["containers"][0]
    assert runtime_config(GROUP["workerTemplate"]).agent is None
    assert not [volume for volume in pod["volumes"] if "secret" in volume]
    assert [port["name"] for port in container["ports"]] == ["supervisor"]
    probes = {name: container[name]["httpGet"] for name in container if name.endswith("Probe")}
    health = {"path": "/healthz", "port": "supervisor"}
    assert probes == {"readinessProbe": health, "livenessProbe": health}


def test_names_of_a_groups_pods_fit() -> None:
    name = leader_worker_set_name("a" * MAX_RESOURCE_NAME_LENGTH)
    # A StatefulSet's pods carry the label <name>-<hash of 10>; that of a group's followers is called <name>-<group>.
    assert len(f"{name}-99") + 11 <= MAX_LABEL_LENGTH


@pytest.mark.parametrize(
    ("layout", "options"),
    [
        (Layout(), ["--tensor-parallel-size=1"]),
        (Layout(tensor=4, pipeline=2), ["--tensor-parallel-size=4", "--pipeline-parallel-size=2"]),
        (
            Layout(data=8, expert_parallel=True),
            ["--tensor-parallel-size=1", "--data-parallel-size=8", "--enable-expert-parallel"],
        ),
        (Layout(tensor=8, pipeline=2, nodes=2), ["--tensor-parallel-size=8", "--pipeline-parallel-size=2"]),
    ],
)
def test_options_of_the_layout(layout: Layout, options: list[str]) -> None:
    assert layout_args(layout) == options


def test_options_of_the_engine() -> None:
    args = engine_args(
        spec(
            model={
                "id": "pvc://models/llama",
                "maxLength": 4096,
                "servedNames": ["a", "b"],
                "dtype": "bfloat16",
                "quantization": "fp8",
            },
            engine={
                "kvCacheMemory": "12Gi",
                "kvCacheDtype": "fp8",
                "enforceEager": True,
                "args": ["--load-format=dummy", "--max-num-batched-tokens=512", "--seed=1"],
            },
        ),
        "chat",
        VOLUME,
        ONE_NODE,
        2048,
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
        "--kv-cache-dtype=fp8",
        "--quantization=fp8",
        "--enforce-eager",
        "--load-format=dummy",
        "--max-num-batched-tokens=512",
        "--seed=1",
    ]


def test_our_environment_wins() -> None:
    manifest = deployment(engine={"env": [{"name": "HF_HUB_OFFLINE", "value": "0"}]})
    assert runtime_config(manifest["spec"]["template"]).engine_env == {"HF_HUB_OFFLINE": "1"}


def test_names_fit() -> None:
    longest = "a" * MAX_RESOURCE_NAME_LENGTH
    assert len(facts_job_name(longest, VOLUME, None)) <= MAX_CHILD_NAME_LENGTH
    assert len({facts_job_name("chat", *source) for source in ((VOLUME, None), (HUB, None), (HUB, TOKEN))}) == 3


def runtime_config(template: Manifest) -> RuntimeConfig:
    """Of a pod template."""
    environment = template["spec"]["containers"][0]["env"]
    text = next(variable["value"] for variable in environment if variable["name"] == RUNTIME_CONFIG_ENV)
    return RuntimeConfig.model_validate_json(text)
