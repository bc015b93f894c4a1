"""The Job that reads a model's facts in the user's namespace, where its volume and its token are."""

from __future__ import annotations

from typing import Any, Final

from vllm_operator.kube.kinds import Manifest
from vllm_operator.manifests.common import (
    MODEL_FACTS_COMPONENT,
    Owner,
    child_labels,
    child_metadata,
    empty_dir,
    restricted_container_security,
    restricted_pod_security,
)
from vllm_operator.planner.inventory.nvidia import GPU_TAINT
from vllm_operator.planner.sources.location import ModelLocation
from vllm_operator_api.names import child_name
from vllm_operator_api.runtime import (
    HUB_TOKEN_MOUNT_PATH,
    MODEL_FACTS_CONFIG_ENV,
    MODEL_MOUNT_PATH,
    OPERATOR_UID,
    TERMINATION_MESSAGE_PATH,
    TMP_PATH,
    ModelFactsConfig,
)
from vllm_operator_api.v1alpha1.llmservice import SecretKey

BACKOFF_LIMIT: Final = 2
"""Further tries at a fault that may pass; a fault of the user's ends the Job at the first one."""
_COMMAND: Final = "vllm-operator"
HUB_TOKEN_PATH: Final = f"{HUB_TOKEN_MOUNT_PATH}/token"


def facts_job_name(service_name: str, location: ModelLocation, token: SecretKey | None) -> str:
    """Name of the Job for this very source and token: another one is another Job."""
    source = location.model_dump_json()
    return child_name(service_name, "facts", source if token is None else f"{source}{token.model_dump_json()}")


def facts_job(
    owner: Owner,
    location: ModelLocation,
    *,
    image: str,
    image_pull_policy: str,
    hub_endpoint: str,
    token: SecretKey | None,
) -> Manifest:
    """Job whose pod's termination message is a ``ModelFactsResult``. It is never changed, only replaced.

    A token is mounted from the Secret of the service's own namespace: the operator reads none.
    """
    token = token if location.repository is not None else None
    config = ModelFactsConfig(
        path=location.path_in_pod,
        hub_repository=location.repository,
        hub_revision=location.revision,
        hub_endpoint=hub_endpoint or None,
        hub_token_file=None if token is None else HUB_TOKEN_PATH,
    )
    volumes: list[dict[str, Any]] = [empty_dir("tmp", "16Mi")]
    mounts: list[dict[str, Any]] = [{"name": "tmp", "mountPath": TMP_PATH}]
    if location.claim is not None:
        volumes.append(model_volume(location.claim))
        mounts.append(model_mount())
    if token is not None:
        volumes.append(hub_token_volume(token))
        mounts.append(hub_token_mount())
    container = {
        "name": MODEL_FACTS_COMPONENT,
        "image": image,
        "imagePullPolicy": image_pull_policy,
        "command": [_COMMAND, "model-facts"],
        "env": [
            {"name": MODEL_FACTS_CONFIG_ENV, "value": config.model_dump_json(exclude_none=True)},
            {"name": "HOME", "value": TMP_PATH},
        ],
        "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}},
        "securityContext": restricted_container_security(),
        "terminationMessagePath": TERMINATION_MESSAGE_PATH,
        "terminationMessagePolicy": "File",
        "volumeMounts": mounts,
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": child_metadata(owner, facts_job_name(owner.name, location, token), MODEL_FACTS_COMPONENT),
        "spec": {
            "backoffLimit": BACKOFF_LIMIT,
            "template": {
                "metadata": {"labels": child_labels(owner, MODEL_FACTS_COMPONENT)},
                "spec": {
                    "automountServiceAccountToken": False,
                    "enableServiceLinks": False,
                    "restartPolicy": "Never",
                    "securityContext": restricted_pod_security(OPERATOR_UID),
                    "terminationGracePeriodSeconds": 5,
                    # Clusters whose every node has GPUs and the taint for it: this pod needs none, but has to run.
                    "tolerations": [{"key": GPU_TAINT, "operator": "Exists", "effect": "NoSchedule"}],
                    "containers": [container],
                    "volumes": volumes,
                },
            },
        },
    }


def model_volume(claim: str) -> dict[str, Any]:
    """The volume of a ``pvc://`` model."""
    return {"name": "model", "persistentVolumeClaim": {"claimName": claim, "readOnly": True}}


def model_mount() -> dict[str, Any]:
    """Where it is mounted."""
    return {"name": "model", "mountPath": MODEL_MOUNT_PATH, "readOnly": True}


def hub_token_volume(token: SecretKey) -> dict[str, Any]:
    """The Secret with the hub's token, as one file for the pod's group. A missing one keeps the pod from starting."""
    source = {"secretName": token.name, "defaultMode": 0o440, "items": [{"key": token.key, "path": "token"}]}
    return {"name": "hub-token", "secret": source}


def hub_token_mount() -> dict[str, Any]:
    """Where it is mounted."""
    return {"name": "hub-token", "mountPath": HUB_TOKEN_MOUNT_PATH, "readOnly": True}
