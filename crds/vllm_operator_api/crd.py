"""The CustomResourceDefinitions: what is around the schemas of the models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel

from vllm_operator_api import names
from vllm_operator_api.structural import Schema, structural_schema
from vllm_operator_api.v1alpha1 import (
    InferenceJob,
    InferenceJobSpec,
    InferenceJobStatus,
    LLMService,
    LLMServiceSpec,
    LLMServiceStatus,
)

CATEGORY: Final = "vllm-operator"
"""``kubectl get vllm-operator`` lists both kinds."""
_MAX_OBJECT_NAME_LENGTH: Final = 253
"""The API server's own limit; said in the schema so that the cost of rules about the name is bounded."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of ``kubectl get``. ``wide``: only with ``-o wide``."""

    name: str
    type: str
    json_path: str
    description: str
    wide: bool = False

    def manifest(self) -> dict[str, Any]:
        priority = {"priority": 1} if self.wide else {}
        return {
            "name": self.name,
            "type": self.type,
            "jsonPath": self.json_path,
            "description": self.description,
            **priority,
        }


@dataclass(frozen=True, slots=True)
class Resource:
    """A kind of ours with all that its definition needs."""

    kind: str
    plural: str
    short_name: str
    description: str
    spec: type[BaseModel]
    status: type[BaseModel]
    columns: tuple[Column, ...]
    name_pattern: str
    name_message: str

    @property
    def singular(self) -> str:
        return self.kind.lower()

    @property
    def definition_name(self) -> str:
        return f"{self.plural}.{names.GROUP}"


_AGE: Final = Column("Age", "date", ".metadata.creationTimestamp", "Time since the object was made.")
_LENGTH_MESSAGE: Final = f"metadata.name must have at most {names.MAX_RESOURCE_NAME_LENGTH} characters"

LLM_SERVICE: Final = Resource(
    kind=names.LLM_SERVICE_KIND,
    plural=names.LLM_SERVICE_PLURAL,
    short_name="llm",
    description=LLMService.__doc__ or "",
    spec=LLMServiceSpec,
    status=LLMServiceStatus,
    columns=(
        Column("Model", "string", ".spec.model.id", "Which model is served."),
        Column("State", "string", '.status.conditions[?(@.type=="Ready")].reason', "Reason of condition Ready."),
        Column("Ready", "string", ".status.ready", "Ready and wanted replicas."),
        Column("GPUs", "integer", ".status.plan.gpus", "GPUs of one replica."),
        Column("TP", "integer", ".status.plan.tensor", "Tensor-parallel degree."),
        Column("Idle", "date", ".status.lastActivityTime", "Time since the engines last worked on a request."),
        _AGE,
        Column("URL", "string", ".status.url", "Base URL inside the cluster.", wide=True),
    ),
    name_pattern="^[a-z]([-a-z0-9]*[a-z0-9])?$",
    name_message="metadata.name must consist of lower-case letters, digits and '-', and begin with a letter",
)
INFERENCE_JOB: Final = Resource(
    kind=names.INFERENCE_JOB_KIND,
    plural=names.INFERENCE_JOB_PLURAL,
    short_name="ij",
    description=InferenceJob.__doc__ or "",
    spec=InferenceJobSpec,
    status=InferenceJobStatus,
    columns=(
        Column("Service", "string", ".spec.serviceRef.name", "LLMService that answers."),
        Column("Phase", "string", ".status.phase", "Where the job is."),
        Column("Progress", "string", ".status.progress", "Rows in the output and rows of the input."),
        Column("Failed", "integer", ".status.rows.failed", "Rows that carry an error."),
        Column("Leases", "integer", ".status.leases.active", "Shards that agents hold."),
        _AGE,
        Column("Output", "string", ".status.output.location", "Where the finished output is.", wide=True),
    ),
    name_pattern="^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
    name_message="metadata.name must consist of lower-case letters, digits and '-'",
)
RESOURCES: Final = (LLM_SERVICE, INFERENCE_JOB)


def root_schema(resource: Resource) -> Schema:
    """Schema of a whole object of ``resource``."""
    return {
        "type": "object",
        "description": resource.description,
        "properties": {
            "apiVersion": {
                "type": "string",
                "description": "Group and version of this representation of the object.",
            },
            "kind": {"type": "string", "description": "Kind of this object."},
            "metadata": {
                "type": "object",
                "properties": {"name": {"type": "string", "maxLength": _MAX_OBJECT_NAME_LENGTH}},
            },
            "spec": structural_schema(resource.spec),
            "status": structural_schema(resource.status, with_defaults=False),
        },
        "required": ["spec"],
        "x-kubernetes-validations": [
            {
                "rule": f"self.metadata.name.size() <= {names.MAX_RESOURCE_NAME_LENGTH}",
                "message": _LENGTH_MESSAGE,
                "fieldPath": ".metadata.name",
            },
            {
                "rule": f"self.metadata.name.matches('{resource.name_pattern}')",
                "message": resource.name_message,
                "fieldPath": ".metadata.name",
            },
        ],
    }


def custom_resource_definition(resource: Resource) -> dict[str, Any]:
    """The CustomResourceDefinition of ``resource``, as a manifest."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": resource.definition_name},
        "spec": {
            "group": names.GROUP,
            "names": {
                "kind": resource.kind,
                "listKind": f"{resource.kind}List",
                "plural": resource.plural,
                "singular": resource.singular,
                "shortNames": [resource.short_name],
                "categories": [CATEGORY],
            },
            "scope": "Namespaced",
            "versions": [
                {
                    "name": names.VERSION,
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": root_schema(resource)},
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": [column.manifest() for column in resource.columns],
                }
            ],
        },
    }
