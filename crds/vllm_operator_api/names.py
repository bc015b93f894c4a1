"""Names that more than one part relies on: API group, labels, annotations, field managers, child names."""

from __future__ import annotations

import hashlib
from typing import Final

GROUP: Final = "inference.vllm-operator.io"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"

LLM_SERVICE_KIND: Final = "LLMService"
LLM_SERVICE_PLURAL: Final = "llmservices"
INFERENCE_JOB_KIND: Final = "InferenceJob"
INFERENCE_JOB_PLURAL: Final = "inferencejobs"

MANAGED_BY_LABEL: Final = "app.kubernetes.io/managed-by"
MANAGED_BY_VALUE: Final = "vllm-operator"
"""Value of the label by which the operator's own children are selected on the server."""
COMPONENT_LABEL: Final = "app.kubernetes.io/component"
OWNER_KIND_LABEL: Final = f"{GROUP}/owner-kind"
OWNER_NAME_LABEL: Final = f"{GROUP}/owner-name"
OWNER_UID_LABEL: Final = f"{GROUP}/owner-uid"
ROUTABLE_LABEL: Final = "vllm-operator.io/routable"
"""On engine pods: ``"true"`` while the Service may send them requests. The Service selects it, the Deployment does not:
flipping it on a pod fences that pod without a signal to the engine."""

APPLIED_HASH_ANNOTATION: Final = f"{GROUP}/applied-hash"
"""Hash of the manifest that was last applied to a child: an unchanged child is not applied again."""
FENCED_AT_ANNOTATION: Final = f"{GROUP}/fenced-at"
"""On engine pods: RFC 3339 time at which the operator took the pod out of routing in order to put the service to
sleep."""

PLAN_KEY_ANNOTATION: Final = f"{GROUP}/plan-key"
"""On an engine's pod: which plan it was made from."""
PLAN_ANNOTATION: Final = f"{GROUP}/plan"
"""On the Deployment of a service: the plan it was made from, so that a plan lives as long as what it was made from."""

FIELD_MANAGER: Final = "vllm-operator"
STATUS_FIELD_MANAGER: Final = "vllm-operator-status"

MAX_RESOURCE_NAME_LENGTH: Final = 40
"""Longest name of a custom resource of ours: leaves room for a role and a hash in 63 characters."""
MAX_CHILD_NAME_LENGTH: Final = 63


def child_name(owner_name: str, role: str, content: str | None = None) -> str:
    """Name of a child object: ``<owner>-<role>`` or, with ``content``, ``<owner>-<role>-<hash8>``.

    ``content`` is given where a field of the child is immutable, so that a changed child is another object.

    Raises:
        ValueError: the name would be longer than 63 characters.
    """
    name = f"{owner_name}-{role}"
    if content is not None:
        name = f"{name}-{hashlib.sha256(content.encode()).hexdigest()[:8]}"
    if len(name) > MAX_CHILD_NAME_LENGTH:
        raise ValueError(f"child name {name!r} is longer than {MAX_CHILD_NAME_LENGTH} characters")
    return name
