"""The plan as it is kept beside what was made from it.

A plan is not remade because the cluster looks different today: it stays while its inputs stay, so that a sleeping
service whose GPU nodes went away comes back as it was.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, ValidationError


class PlanRecord(BaseModel):
    """What the engine's manifests need of a plan. JSON in ``PLAN_ANNOTATION``."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    inputs: str
    """Hash of everything in the spec that the plan depends on."""
    tensor: int
    products: tuple[str, ...]
    batched_tokens: int
    home_gib: int
    """Bound of the engine's home directory, which holds compiled code and, for hub models, the weights."""


def parse_plan_record(text: str | None) -> PlanRecord | None:
    """The record in an annotation; None when there is none or it is not one of ours."""
    if not text:
        return None
    try:
        return PlanRecord.model_validate_json(text)
    except ValidationError:
        return None
