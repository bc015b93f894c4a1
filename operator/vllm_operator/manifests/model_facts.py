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
from vllm_operator.planner.inventory import GPU_TAINT
from vllm_operator.planner.model_source import ModelLocation
from vllm_operator_api.names import child_name
from vllm_operator_api.runtime import (
    MODEL_FACTS_CONFIG_ENV,
    MODEL_MOUNT_PATH,
    OPERATOR_UID,
    TERMINATION_MESSAGE_PATH,
    TMP_PATH,
    ModelFactsConfig,
)

BACKOFF_LIMIT: Final = 2
"""Further tries at a fault that may pass; a fault of the user's ends the Job at the first one."""
_COMMAND: Final = "vllm-operator"


def facts_job_name(service_name: str, location: ModelLocation) -> str:
    """Name of the Job for this very source: another source is another Job."""
    return child_name(service_name, "facts", location.model_dump_json())


def facts_job(
    owner: Owner, location: ModelLocation, *, image: str, image_pull_policy: str, hub_endpoint: str
) -> Manifest:
    """Job whose pod's termination message is a ``ModelFactsResult``. It is never changed, only replaced."""
    config = ModelFactsConfig(
        path=location.path_in_pod,
        hub_repository=location.repository,
        hub_revision=location.revision,
        hub_endpoint=hub_endpoint or None,
    )
    volumes: list[dict[str, Any]] = [empty_dir("tmp", "16Mi")]
    mounts: list[dict[str, Any]] = [{"name": "tmp", "mountPath": TMP_PATH}]
    if location.claim is not None:
        volumes.append(model_volume(location.claim))
        mounts.append(model_mount())
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
        "metadata": child_metadata(owner, facts_job_name(owner.name, location), MODEL_FACTS_COMPONENT),
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
