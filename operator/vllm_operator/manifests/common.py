"""What every child object has in common: identity, owner, and the safe shape of a pod.

All pods of ours pass Pod Security ``restricted`` and have a read-only root with named writable mounts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from vllm_operator_api.names import (
    API_VERSION,
    COMPONENT_LABEL,
    MANAGED_BY_LABEL,
    MANAGED_BY_VALUE,
    OWNER_KIND_LABEL,
    OWNER_NAME_LABEL,
    OWNER_UID_LABEL,
)

ENGINE_COMPONENT: Final = "engine"
MODEL_FACTS_COMPONENT: Final = "model-facts"
DRIVER_COMPONENT: Final = "driver"


@dataclass(frozen=True, slots=True)
class Owner:
    """The custom resource that a child belongs to and is deleted with."""

    kind: str
    namespace: str
    name: str
    uid: str


def child_labels(owner: Owner, component: str) -> dict[str, str]:
    """Labels by which a child (and its pods) is found and told apart. All but the component are constant per owner."""
    return {
        MANAGED_BY_LABEL: MANAGED_BY_VALUE,
        OWNER_KIND_LABEL: owner.kind,
        OWNER_NAME_LABEL: owner.name,
        OWNER_UID_LABEL: owner.uid,
        COMPONENT_LABEL: component,
    }


def selector_labels(owner: Owner, component: str) -> dict[str, str]:
    """Labels that select exactly the pods of this owner and component, also when a name is used again."""
    return {OWNER_UID_LABEL: owner.uid, COMPONENT_LABEL: component}


def child_metadata(
    owner: Owner, name: str, component: str, annotations: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Metadata of a child: the owner's labels and a controller reference, so that it goes when the owner goes."""
    metadata: dict[str, Any] = {
        "name": name,
        "namespace": owner.namespace,
        "labels": child_labels(owner, component),
        "ownerReferences": [
            {
                "apiVersion": API_VERSION,
                "kind": owner.kind,
                "name": owner.name,
                "uid": owner.uid,
                "controller": True,
                "blockOwnerDeletion": True,
            }
        ],
    }
    if annotations:
        metadata["annotations"] = dict(annotations)
    return metadata


def restricted_pod_security(uid: int) -> dict[str, Any]:
    """Pod ``securityContext`` that Pod Security ``restricted`` admits; volumes belong to the same group."""
    return {
        "runAsNonRoot": True,
        "runAsUser": uid,
        "runAsGroup": uid,
        "fsGroup": uid,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def restricted_container_security() -> dict[str, Any]:
    """Container ``securityContext`` that Pod Security ``restricted`` admits, with a read-only root."""
    return {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }


def field_env(name: str, field_path: str) -> dict[str, Any]:
    """An environment variable from the downward API."""
    return {"name": name, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": field_path}}}


def empty_dir(name: str, size_limit: str, *, memory: bool = False) -> dict[str, Any]:
    """A named writable volume with a bound; ``memory`` counts against the container's memory limit."""
    source: dict[str, Any] = {"sizeLimit": size_limit}
    if memory:
        source["medium"] = "Memory"
    return {"name": name, "emptyDir": source}


def secret_volume(name: str, secret_name: str) -> dict[str, Any]:
    """A Secret as files for the pod's group. Optional: a missing Secret does not keep the pod from starting."""
    return {"name": name, "secret": {"secretName": secret_name, "optional": True, "defaultMode": 0o440}}
