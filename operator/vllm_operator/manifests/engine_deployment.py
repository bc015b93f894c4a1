"""The Deployment of a service's engines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from vllm_operator.kube.kinds import Manifest
from vllm_operator.manifests.common import (
    ENGINE_COMPONENT,
    Owner,
    child_labels,
    child_metadata,
    empty_dir,
    field_env,
    restricted_container_security,
    restricted_pod_security,
    secret_volume,
    selector_labels,
)
from vllm_operator.manifests.engine_args import engine_args, engine_env
from vllm_operator.manifests.model_facts import model_mount, model_volume
from vllm_operator.planner.inventory import GPU_TAINT, PRODUCT_LABEL
from vllm_operator.planner.model_source import ModelLocation
from vllm_operator.planner.record import PlanRecord
from vllm_operator_api.names import PLAN_ANNOTATION, ROUTABLE_LABEL, child_name
from vllm_operator_api.quantities import parse_bytes
from vllm_operator_api.runtime import (
    ENGINE_PORT,
    HOME_PATH,
    NODE_NAME_ENV,
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


def engine_deployment_name(service_name: str) -> str:
    """Name of the Deployment of a service's engines."""
    return child_name(service_name, ENGINE_COMPONENT)


def engine_deployment(
    owner: Owner,
    spec: LLMServiceSpec,
    location: ModelLocation,
    plan: PlanRecord,
    install: EngineInstall,
    *,
    replicas: int,
) -> Manifest:
    """Deployment with ``replicas`` engines of ``plan.tensor`` GPUs each.

    The pods carry the label that the Service selects and the Deployment does not: flipping it takes a pod out of
    routing without a signal to the engine. A rollout needs no spare GPU: the old pod goes first.
    """
    labels = child_labels(owner, ENGINE_COMPONENT)
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": child_metadata(
            owner,
            engine_deployment_name(owner.name),
            ENGINE_COMPONENT,
            annotations={PLAN_ANNOTATION: plan.model_dump_json()},
        ),
        "spec": {
            "replicas": replicas,
            "revisionHistoryLimit": 2,
            "progressDeadlineSeconds": STARTUP_SECONDS + 1800,
            "selector": {"matchLabels": selector_labels(owner, ENGINE_COMPONENT)},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}},
            "template": {
                "metadata": {
                    "labels": {**labels, ROUTABLE_LABEL: "true"},
                    "annotations": {"kubectl.kubernetes.io/default-container": ENGINE_CONTAINER},
                },
                "spec": _pod_spec(owner, spec, location, plan, install),
            },
        },
    }


def _pod_spec(
    owner: Owner, spec: LLMServiceSpec, location: ModelLocation, plan: PlanRecord, install: EngineInstall
) -> dict[str, Any]:
    volumes = [
        empty_dir("shm", spec.resources.shm, memory=True),
        empty_dir("tmp", _TMP_LIMIT),
        empty_dir("home", f"{plan.home_gib}Gi"),
        secret_volume("queue", install.agent_credentials_secret),
    ]
    if location.claim is not None:
        volumes.append(model_volume(location.claim))
    return {
        "affinity": _product_affinity(plan),
        "automountServiceAccountToken": False,
        "containers": [_container(owner, spec, location, plan, install)],
        "enableServiceLinks": False,
        "securityContext": restricted_pod_security(RUNTIME_UID),
        "terminationGracePeriodSeconds": spec.queue.shutdown_grace_seconds + _GRACE_MARGIN_SECONDS,
        "tolerations": [{"key": GPU_TAINT, "operator": "Exists", "effect": "NoSchedule"}],
        "volumes": volumes,
    }


def _product_affinity(plan: PlanRecord) -> dict[str, Any]:
    expression = {"key": PRODUCT_LABEL, "operator": "In", "values": list(plan.products)}
    terms = [{"matchExpressions": [expression]}]
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}


def _container(
    owner: Owner, spec: LLMServiceSpec, location: ModelLocation, plan: PlanRecord, install: EngineInstall
) -> dict[str, Any]:
    gpus = str(plan.tensor)
    mounts: list[dict[str, Any]] = [
        {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108 - the path that NCCL and vLLM's processes use
        {"name": "tmp", "mountPath": TMP_PATH},
        {"name": "home", "mountPath": HOME_PATH},
        {"name": "queue", "mountPath": QUEUE_CREDENTIALS_MOUNT_PATH, "readOnly": True},
    ]
    if location.claim is not None:
        mounts.append(model_mount())
    return {
        "name": ENGINE_CONTAINER,
        "image": spec.image or install.default_image,
        "imagePullPolicy": install.image_pull_policy,
        "env": [
            {"name": RUNTIME_CONFIG_ENV, "value": _runtime_config(owner, spec, location, plan, install)},
            field_env(POD_NAME_ENV, "metadata.name"),
            field_env(POD_UID_ENV, "metadata.uid"),
            field_env(NODE_NAME_ENV, "spec.nodeName"),
            {"name": "HOME", "value": HOME_PATH},
            {"name": "TMPDIR", "value": TMP_PATH},
        ],
        "ports": [
            {"name": "http", "containerPort": ENGINE_PORT, "protocol": "TCP"},
            {"name": "supervisor", "containerPort": SUPERVISOR_PORT, "protocol": "TCP"},
        ],
        "resources": {
            "requests": {
                "cpu": spec.resources.cpu,
                "memory": spec.resources.memory,
                spec.accelerator.resource_name: gpus,
            },
            "limits": {"memory": spec.resources.memory, spec.accelerator.resource_name: gpus},
        },
        "securityContext": restricted_container_security(),
        "terminationMessagePath": TERMINATION_MESSAGE_PATH,
        "terminationMessagePolicy": "File",
        "volumeMounts": mounts,
        **_probes(),
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


def _runtime_config(
    owner: Owner, spec: LLMServiceSpec, location: ModelLocation, plan: PlanRecord, install: EngineInstall
) -> str:
    config = RuntimeConfig(
        engine_args=engine_args(spec, owner.name, location, plan),
        engine_env=engine_env(spec, location, install.hub_endpoint),
        shutdown_grace_seconds=spec.queue.shutdown_grace_seconds,
        agent=AgentConfig(
            queue=QueueConfig(url=install.queue_url, queue_id=owner.uid),
            slots=spec.queue.max_jobs,
            max_rows_in_flight=spec.concurrency.target,
            lease_seconds=spec.queue.lease_seconds,
            heartbeat_seconds=spec.queue.heartbeat_seconds,
        ),
    )
    return config.model_dump_json()


def check_sizes(spec: LLMServiceSpec) -> str | None:
    """Why the container's own sizes contradict each other, None when they do not."""
    if parse_bytes(spec.resources.shm) >= parse_bytes(spec.resources.memory):
        return (
            f"spec.resources.shm={spec.resources.shm} is memory of the container and must be less than "
            f"spec.resources.memory={spec.resources.memory}"
        )
    return None
