"""The pod of an engine, or of a part of one that spans nodes: one shape for the Deployment and the LeaderWorkerSet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from vllm_operator.manifests.common import (
    ENGINE_COMPONENT,
    Owner,
    child_labels,
    empty_dir,
    field_env,
    restricted_container_security,
    restricted_pod_security,
    secret_volume,
)
from vllm_operator.manifests.engine_args import engine_args, engine_env, mounted_token
from vllm_operator.manifests.model_facts import hub_token_mount, hub_token_volume, model_mount, model_volume
from vllm_operator.manifests.placement import EnginePlacement, node_affinity, tolerations
from vllm_operator.planner.record import PlanRecord
from vllm_operator.planner.sources.location import ModelLocation
from vllm_operator_api.names import PLAN_KEY_ANNOTATION, ROUTABLE_LABEL
from vllm_operator_api.runtime import (
    ENGINE_PORT,
    HOME_PATH,
    NODE_NAME_ENV,
    POD_IP_ENV,
    POD_NAME_ENV,
    POD_UID_ENV,
    QUEUE_CREDENTIALS_MOUNT_PATH,
    RUNTIME_CONFIG_ENV,
    RUNTIME_UID,
    SUPERVISOR_PORT,
    TERMINATION_MESSAGE_PATH,
    TMP_PATH,
    AgentConfig,
    QueueConfig,
    RuntimeConfig,
)
from vllm_operator_api.v1alpha1.llmservice import LLMServiceSpec

FOLLOWER_COMPONENT: Final = "engine-follower"
"""Pods that lend their GPUs to an engine whose HTTP server is in another pod: never counted as engines."""
ENGINE_CONTAINER: Final = "engine"
STARTUP_SECONDS: Final = 1800
"""Time to load the model and compile, after which the kubelet restarts the engine."""
_STARTUP_PERIOD_SECONDS: Final = 2
_GRACE_MARGIN_SECONDS: Final = 30
"""Above the requests' own grace: vLLM ends about 3.5 s after the last request."""
_TMP_LIMIT: Final = "4Gi"


@dataclass(frozen=True, slots=True)
class EngineInstall:
    """What the installation of the operator gives to every engine."""

    default_image: str
    image_pull_policy: str
    queue_url: str
    agent_credentials_secret: str
    hub_endpoint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineInputs:
    """Everything that the pods of one service's engines are made from."""

    owner: Owner
    spec: LLMServiceSpec
    location: ModelLocation
    plan: PlanRecord
    placement: EnginePlacement
    install: EngineInstall


def engine_pod_template(inputs: EngineInputs, *, follower: bool = False) -> dict[str, Any]:
    """Pod template of an engine, or of what lends GPUs to one (``follower``: no HTTP server, no agent, no routing).

    An engine's pods carry the label that the Service selects and nothing else does: flipping it takes a pod out of
    routing without a signal to the engine.
    """
    labels = child_labels(inputs.owner, FOLLOWER_COMPONENT if follower else ENGINE_COMPONENT)
    return {
        "metadata": {
            "labels": labels if follower else {**labels, ROUTABLE_LABEL: "true"},
            "annotations": {
                "kubectl.kubernetes.io/default-container": ENGINE_CONTAINER,
                PLAN_KEY_ANNOTATION: inputs.plan.key,
            },
        },
        "spec": engine_pod_spec(inputs, follower=follower),
    }


def engine_pod_spec(inputs: EngineInputs, *, follower: bool = False) -> dict[str, Any]:
    """The ``spec`` of such a pod."""
    volumes = [
        empty_dir("shm", inputs.placement.resources.shm, memory=True),
        empty_dir("tmp", _TMP_LIMIT),
        empty_dir("home", f"{inputs.plan.home_gib}Gi"),
    ]
    if not follower:
        volumes.append(secret_volume("queue", inputs.install.agent_credentials_secret))
    if inputs.location.claim is not None:
        volumes.append(model_volume(inputs.location.claim))
    if (token := mounted_token(inputs.spec, inputs.location)) is not None:
        volumes.append(hub_token_volume(token))
    affinity = node_affinity(inputs.placement.pools)
    return {
        **({"affinity": affinity} if affinity else {}),
        "automountServiceAccountToken": False,
        "containers": [_container(inputs, follower=follower)],
        "enableServiceLinks": False,
        "securityContext": restricted_pod_security(RUNTIME_UID),
        "terminationGracePeriodSeconds": inputs.spec.queue.shutdown_grace_seconds + _GRACE_MARGIN_SECONDS,
        "tolerations": tolerations(inputs.placement.resource_name, inputs.placement.taints),
        "volumes": volumes,
    }


def _container(inputs: EngineInputs, *, follower: bool) -> dict[str, Any]:
    resources = inputs.placement.resources
    gpus = {inputs.placement.resource_name: str(inputs.placement.layout.gpus_per_node)}
    mounts: list[dict[str, Any]] = [
        {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108 - the path that NCCL and vLLM's processes use
        {"name": "tmp", "mountPath": TMP_PATH},
        {"name": "home", "mountPath": HOME_PATH},
    ]
    if not follower:
        mounts.append({"name": "queue", "mountPath": QUEUE_CREDENTIALS_MOUNT_PATH, "readOnly": True})
    if inputs.location.claim is not None:
        mounts.append(model_mount())
    if mounted_token(inputs.spec, inputs.location) is not None:
        mounts.append(hub_token_mount())
    ports = [{"name": "supervisor", "containerPort": SUPERVISOR_PORT, "protocol": "TCP"}]
    if not follower:
        ports.insert(0, {"name": "http", "containerPort": ENGINE_PORT, "protocol": "TCP"})
    return {
        "name": ENGINE_CONTAINER,
        "image": inputs.spec.image or inputs.install.default_image,
        "imagePullPolicy": inputs.install.image_pull_policy,
        "env": [
            {"name": RUNTIME_CONFIG_ENV, "value": _runtime_config(inputs, follower=follower)},
            field_env(POD_NAME_ENV, "metadata.name"),
            field_env(POD_UID_ENV, "metadata.uid"),
            field_env(POD_IP_ENV, "status.podIP"),
            field_env(NODE_NAME_ENV, "spec.nodeName"),
            {"name": "HOME", "value": HOME_PATH},
            {"name": "TMPDIR", "value": TMP_PATH},
        ],
        "ports": ports,
        "resources": {
            "requests": {"cpu": resources.cpu, "memory": resources.memory, **gpus},
            "limits": {"memory": resources.memory, **gpus},
        },
        "securityContext": restricted_container_security(),
        "terminationMessagePath": TERMINATION_MESSAGE_PATH,
        "terminationMessagePolicy": "File",
        "volumeMounts": mounts,
        **(_follower_probes() if follower else _probes()),
    }


def _probes() -> dict[str, Any]:
    """Probes of the engine's own port, which refuses connections until the model is loaded."""
    health = {"path": "/health", "port": "http"}
    return {
        "startupProbe": {
            "httpGet": health,
            "periodSeconds": _STARTUP_PERIOD_SECONDS,
            "timeoutSeconds": 5,
            "failureThreshold": STARTUP_SECONDS // _STARTUP_PERIOD_SECONDS,
        },
        "readinessProbe": {"httpGet": health, "periodSeconds": 5, "timeoutSeconds": 5, "failureThreshold": 2},
        # Heavy tokenisation delays the server's loop for seconds: only a long silence means that it hangs.
        "livenessProbe": {"httpGet": health, "periodSeconds": 10, "timeoutSeconds": 10, "failureThreshold": 6},
    }


def _follower_probes() -> dict[str, Any]:
    """Probes of the supervisor, which answers 200 while its part of the engine runs. The leader's tell of the whole."""
    health = {"path": "/healthz", "port": "supervisor"}
    return {
        "readinessProbe": {"httpGet": health, "periodSeconds": 5, "timeoutSeconds": 5, "failureThreshold": 2},
        "livenessProbe": {"httpGet": health, "periodSeconds": 10, "timeoutSeconds": 10, "failureThreshold": 6},
    }


def _runtime_config(inputs: EngineInputs, *, follower: bool) -> str:
    spec = inputs.spec
    agent = AgentConfig(
        queue=QueueConfig(url=inputs.install.queue_url, queue_id=inputs.owner.uid),
        slots=spec.queue.max_jobs,
        max_rows_in_flight=spec.concurrency.target,
        lease_seconds=spec.queue.lease_seconds,
        heartbeat_seconds=spec.queue.heartbeat_seconds,
    )
    config = RuntimeConfig(
        engine_args=engine_args(
            spec, inputs.owner.name, inputs.location, inputs.placement.layout, inputs.plan.batched_tokens
        ),
        engine_env=engine_env(spec, inputs.location, inputs.install.hub_endpoint),
        shutdown_grace_seconds=spec.queue.shutdown_grace_seconds,
        agent=None if follower else agent,
        nodes=inputs.placement.layout.nodes,
    )
    return config.model_dump_json()
