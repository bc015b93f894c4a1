"""Where a model is: ``pvc://<claim>/<path>`` or a repository of the model hub."""

from __future__ import annotations

import re
from typing import Final

from pydantic import BaseModel, ConfigDict

from vllm_operator.planner.problem import PlanProblem
from vllm_operator_api.conditions import Reason
from vllm_operator_api.runtime import MODEL_MOUNT_PATH
from vllm_operator_api.v1alpha1.llmservice import ModelSource

_CLAIM: Final = re.compile(r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")
_REPOSITORY: Final = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*$")
_SCHEME: Final = "pvc://"


class ModelLocation(BaseModel):
    """Exactly one of ``claim`` and ``repository``."""

    model_config = ConfigDict(frozen=True)

    claim: str | None = None
    path: str = ""
    """Below the claim's root; empty: the root itself."""
    repository: str | None = None
    revision: str | None = None

    @property
    def path_in_pod(self) -> str | None:
        """Directory of a ``pvc://`` model where its claim is mounted."""
        if self.claim is None:
            return None
        return f"{MODEL_MOUNT_PATH}/{self.path}" if self.path else MODEL_MOUNT_PATH

    @property
    def engine_model(self) -> str:
        """What vLLM's ``--model`` gets."""
        return self.path_in_pod or self.repository or ""


def locate_model(source: ModelSource) -> ModelLocation | PlanProblem:
    """Parse ``spec.model``. The CRD's own rules are checked again: this string becomes a path and an URL."""
    if not source.id.startswith(_SCHEME):
        if not _REPOSITORY.match(source.id) or ".." in source.id.split("/"):
            return _invalid(source.id, "it must be pvc://<claim>/<path> or <organisation>/<name>")
        return ModelLocation(repository=source.id, revision=source.revision)
    claim, _, path = source.id.removeprefix(_SCHEME).partition("/")
    if not _CLAIM.match(claim):
        return _invalid(source.id, "its claim must be the name of a PersistentVolumeClaim")
    parts = path.split("/") if path else []
    if ".." in parts or "." in parts or "\0" in path:
        return _invalid(source.id, "its path must not contain '.' or '..'")
    if source.revision is not None:
        return PlanProblem(
            Reason.INVALID_SPEC,
            f"spec.model.revision={source.revision} is for a hub repository, but model.id is {source.id}; remove it",
        )
    return ModelLocation(claim=claim, path="/".join(part for part in parts if part))


def _invalid(model_id: str, rule: str) -> PlanProblem:
    return PlanProblem(Reason.INVALID_SPEC, f"spec.model.id={model_id[:200]}: {rule}")
