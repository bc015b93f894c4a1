"""The Kubernetes Job that runs a job's driver: beside the user's volumes, without an API token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from vllm_operator.kube.kinds import Manifest
from vllm_operator.manifests.common import (
    DRIVER_COMPONENT,
    Owner,
    child_labels,
    child_metadata,
    empty_dir,
    restricted_container_security,
    restricted_pod_security,
    secret_volume,
)
from vllm_operator.manifests.job_input import INPUT_KEY, input_config_map_name
from vllm_operator.planner.inventory.nvidia import GPU_TAINT
from vllm_operator_api.names import child_name
from vllm_operator_api.runtime import (
    DRIVER_CONFIG_ENV,
    INPUT_MOUNT_PATH,
    OPERATOR_UID,
    OUTPUT_MOUNT_PATH,
    QUEUE_CREDENTIALS_MOUNT_PATH,
    TERMINATION_MESSAGE_PATH,
    TMP_PATH,
    DriverConfig,
    DriverOutput,
    QueueConfig,
    VolumeInput,
)
from vllm_operator_api.v1alpha1.inferencejob import InferenceJobSpec

RESTARTS: Final = 1_000_000
"""A driver that ends with an error goes on where it was, however often: its exit code says when that is of no use."""
_CHAT: Final = "/v1/chat/completions"
_INPUT_VOLUME: Final = "input"
_OUTPUT_VOLUME: Final = "output"
_CREDENTIALS_VOLUME: Final = "queue-credentials"


@dataclass(frozen=True, slots=True)
class DriverInstall:
    """What the installation says about drivers."""

    image: str
    image_pull_policy: str
    queue_url: str
    credentials_secret: str


@dataclass(frozen=True, slots=True)
class DriverTarget:
    """The service that answers the job."""

    queue_id: str
    model: str
    workers: int
    slots: int


def driver_job_name(job_name: str, queue_id: str) -> str:
    """Name of the driver for this very queue: a service that was made again has another."""
    return child_name(job_name, "driver", queue_id)


def driver_config(owner: Owner, spec: InferenceJobSpec, target: DriverTarget, queue_url: str) -> DriverConfig:
    """What the driver is told."""
    output = spec.output.persistent_volume_claim
    chat = spec.endpoint == _CHAT
    return DriverConfig(
        job_uid=owner.uid,
        queue=QueueConfig(url=queue_url, queue_id=target.queue_id),
        endpoint=spec.endpoint,
        model=target.model,
        input=VolumeInput(path=_input_path(spec)),
        message_key=spec.input.message_key,
        system_prompt=spec.input.system_prompt if chat else None,
        sampling=spec.sampling.model_dump(by_alias=False, exclude_none=True) if chat else {},
        output=DriverOutput(path=output.path if output else None, result_key=spec.output.result_key),
        workers=target.workers,
        slots=target.slots,
    )


def driver_job(owner: Owner, spec: InferenceJobSpec, target: DriverTarget, install: DriverInstall) -> Manifest:
    """Job whose pod's termination message is a ``JobProgress``. It is never changed, only replaced."""
    volumes, mounts = _volumes(owner, spec)
    config = driver_config(owner, spec, target, install.queue_url)
    container = {
        "name": DRIVER_COMPONENT,
        "image": install.image,
        "imagePullPolicy": install.image_pull_policy,
        "command": ["vllm-operator", "job-driver"],
        "env": [
            {"name": DRIVER_CONFIG_ENV, "value": config.model_dump_json(exclude_none=True)},
            {"name": "HOME", "value": TMP_PATH},
        ],
        "resources": {"requests": {"cpu": "50m", "memory": "96Mi"}, "limits": {"memory": "512Mi"}},
        "securityContext": restricted_container_security(),
        "terminationMessagePath": TERMINATION_MESSAGE_PATH,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            {"name": "tmp", "mountPath": TMP_PATH},
            {"name": _CREDENTIALS_VOLUME, "mountPath": QUEUE_CREDENTIALS_MOUNT_PATH, "readOnly": True},
            *mounts,
        ],
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": child_metadata(owner, driver_job_name(owner.name, target.queue_id), DRIVER_COMPONENT),
        "spec": {
            "backoffLimit": RESTARTS,
            # Only when a pod has ended for sure may another write the same output.
            "podReplacementPolicy": "Failed",
            "template": {
                "metadata": {"labels": child_labels(owner, DRIVER_COMPONENT)},
                "spec": {
                    "automountServiceAccountToken": False,
                    "enableServiceLinks": False,
                    "restartPolicy": "OnFailure",
                    "securityContext": restricted_pod_security(OPERATOR_UID),
                    "terminationGracePeriodSeconds": 30,
                    # Clusters whose every node has GPUs and the taint for it: this pod needs none, but has to run.
                    "tolerations": [{"key": GPU_TAINT, "operator": "Exists", "effect": "NoSchedule"}],
                    "containers": [container],
                    "volumes": [
                        empty_dir("tmp", "64Mi"),
                        secret_volume(_CREDENTIALS_VOLUME, install.credentials_secret),
                        *volumes,
                    ],
                },
            },
        },
    }


def _input_path(spec: InferenceJobSpec) -> str:
    if spec.input.persistent_volume_claim is not None:
        return spec.input.persistent_volume_claim.path
    return spec.input.config_map.key if spec.input.config_map is not None else INPUT_KEY


def _volumes(owner: Owner, spec: InferenceJobSpec) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Volumes and mounts of input and output; a claim that is both is one volume, mounted twice."""
    source, destination = spec.input.persistent_volume_claim, spec.output.persistent_volume_claim
    shared = source is not None and destination is not None and source.claim_name == destination.claim_name
    volumes: list[dict[str, Any]] = []
    if source is None:
        volumes.append({"name": _INPUT_VOLUME, "configMap": _input_config_map(owner, spec)})
    elif not shared:
        claim = {"claimName": source.claim_name, "readOnly": True}
        volumes.append({"name": _INPUT_VOLUME, "persistentVolumeClaim": claim})
    mounts = [{"name": _OUTPUT_VOLUME if shared else _INPUT_VOLUME, "mountPath": INPUT_MOUNT_PATH, "readOnly": True}]
    if destination is not None:
        volumes.append({"name": _OUTPUT_VOLUME, "persistentVolumeClaim": {"claimName": destination.claim_name}})
        mounts.append({"name": _OUTPUT_VOLUME, "mountPath": OUTPUT_MOUNT_PATH})
    return volumes, mounts


def _input_config_map(owner: Owner, spec: InferenceJobSpec) -> dict[str, Any]:
    """Optional: with a ConfigMap or a key missing the pod starts, and the driver says what is missing."""
    file = spec.input.config_map
    name, key = (file.name, file.key) if file is not None else (input_config_map_name(owner), INPUT_KEY)
    return {"name": name, "items": [{"key": key, "path": key}], "optional": file is not None}
