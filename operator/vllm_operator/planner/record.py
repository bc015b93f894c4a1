"""The plan as it is kept beside what was made from it.

A plan is not remade because the cluster looks different today: it stays while its inputs stay, so that a sleeping
service whose GPU nodes went away comes back as it was.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vllm_operator.planner.inventory.pool import LabelRequirement, Taint
from vllm_operator.planner.layout import Layout


class Placement(BaseModel):
    """Nodes on which the plan may run."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    product: str
    requirements: tuple[LabelRequirement, ...] = ()
    taints: tuple[Taint, ...] = ()


class PlanRecord(BaseModel):
    """What the engine's manifests need of a plan, and what its observation needs. JSON in ``PLAN_ANNOTATION``."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    inputs: str
    """Hash of everything in the spec that the plan depends on."""
    layout: Layout
    placements: Annotated[tuple[Placement, ...], Field(min_length=1)]
    """Any of them, the best first."""
    batched_tokens: int
    home_gib: int
    """Bound of the engine's home directory, which holds compiled code and, for hub models, the weights."""
    weights_bytes: int
    """Of the whole model."""
    calibration_key: str = ""
    kv_bytes_per_block: int = 0
    """Per GPU; 0: the model keeps no KV cache."""
    room_bytes: int = 0
    """Per GPU: what vLLM may take, less the weights; 0 where the size of the KV cache is given."""
    escalations: int = 0
    """Times that this spec was planned again because an engine found less memory than predicted."""

    @property
    def key(self) -> str:
        """What tells pods of this plan from those of another one of the same service."""
        return f"{self.calibration_key}-{self.escalations}"

    @property
    def products(self) -> tuple[str, ...]:
        """Products on which the plan may run."""
        return tuple(dict.fromkeys(placement.product for placement in self.placements))


def parse_plan_record(text: str | None) -> PlanRecord | None:
    """The record in an annotation; None when there is none or it is not one of ours."""
    if not text:
        return None
    try:
        return PlanRecord.model_validate_json(text)
    except ValidationError:
        return None
