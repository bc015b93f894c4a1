"""An LLMService from its manifest."""

from __future__ import annotations

from typing import Any, Final

from pydantic import ValidationError

from vllm_operator.kube.kinds import Manifest
from vllm_operator.planner.problem import PlanProblem
from vllm_operator_api.conditions import Reason
from vllm_operator_api.v1alpha1 import LLMService, LLMServiceSpec, LLMServiceStatus

_UNREADABLE_SPEC: Final = {"model": {"id": "unreadable/spec"}}
"""Stands for a spec that cannot be read; nothing is made from it."""


def parse_service(manifest: Manifest) -> tuple[LLMService, PlanProblem | None]:
    """The typed service, and why its spec cannot be read: the API server's schema is of an older or newer version.

    A status that cannot be read is as good as none: it is written anew.
    """
    try:
        status = LLMServiceStatus.model_validate(manifest.get("status") or {})
    except ValidationError:
        status = LLMServiceStatus()
    try:
        return _service(manifest, manifest.get("spec") or {}, status), None
    except ValidationError as error:
        return _service(manifest, _UNREADABLE_SPEC, status), _spec_problem(error)


def _service(manifest: Manifest, spec: dict[str, Any], status: LLMServiceStatus) -> LLMService:
    metadata = manifest["metadata"]
    return LLMService(
        name=metadata["name"],
        namespace=metadata["namespace"],
        uid=metadata["uid"],
        generation=metadata.get("generation", 1),
        spec=LLMServiceSpec.model_validate(spec),
        status=status,
    )


def _spec_problem(error: ValidationError) -> PlanProblem:
    first = error.errors(include_url=False, include_input=False)[0]
    field = ".".join(("spec", *(str(part) for part in first["loc"])))
    return PlanProblem(Reason.INVALID_SPEC, f"{field}: {first['msg']}"[:1000])
