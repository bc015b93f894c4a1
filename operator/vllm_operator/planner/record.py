"""The plan as it is kept beside what was made from it.

A plan is not remade because the cluster looks different today: it stays while its inputs stay, so that a sleeping
service whose GPU nodes went away comes back as it was. It is read from an annotation that others can write: what is out
of bounds is no plan.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from vllm_operator.planner.inventory.pool import LabelRequirement, Taint
from vllm_operator.planner.layout import Layout

_MAX_DEGREE: Final = 1024
Bytes = Annotated[int, Field(ge=0, le=10**15)]


class Placement(BaseModel):
    """Nodes on which the plan may run, and what is expected there."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    product: str
    requirements: tuple[LabelRequirement, ...] = ()
    taints: tuple[Taint, ...] = ()
    calibration_key: str = ""
    room_bytes: Bytes = 0
    """Per GPU: what vLLM may take, less the weights; 0 where the size of the KV cache is given."""

    def holds(self, labels: Mapping[str, str]) -> bool:
        """Whether a node with these labels is one of these nodes."""
        return bool(self.requirements) and all(labels.get(each.key) in each.values for each in self.requirements)


class PlanRecord(BaseModel):
    """What the engine's manifests need of a plan, and what its observation needs. JSON in ``PLAN_ANNOTATION``."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    inputs: str
    """Hash of everything in the spec that the plan depends on."""
    layout: Layout
    placements: Annotated[tuple[Placement, ...], Field(min_length=1, max_length=64)]
    """Any of them, the best first."""
    planned_for: str
    """Product that the prediction is for."""
    batched_tokens: Annotated[int, Field(ge=1, le=1 << 24)]
    home_gib: Annotated[int, Field(ge=1, le=1 << 20)]
    """Bound of the engine's home directory, which holds compiled code and, for hub models, the weights."""
    weights_bytes: Annotated[int, Field(ge=1, le=10**15)]
    """Of the whole model."""
    kv_bytes_per_block: Bytes = 0
    """Per GPU; 0: the model keeps no KV cache."""
    predicted_tokens: Annotated[int, Field(ge=0, le=10**15)] = 0
    """That the replica's KV cache holds on ``planned_for``."""
    given_up: Annotated[tuple[str, ...], Field(max_length=8)] = ()
    """Calibration keys of plans for this very spec whose engines died for want of memory."""

    @field_validator("layout")
    @classmethod
    def _degrees(cls, layout: Layout) -> Layout:
        degrees = (layout.tensor, layout.pipeline, layout.data, layout.nodes)
        if not all(1 <= degree <= _MAX_DEGREE for degree in degrees) or layout.gpus % layout.nodes:
            raise ValueError("no layout")
        return layout

    @property
    def key(self) -> str:
        """What tells pods of this plan from those of another one of the same service: all that an engine is told or
        measured by.
        """
        parts = (
            self.layout,
            self.batched_tokens,
            [(placement.calibration_key, placement.room_bytes) for placement in self.placements],
            self.kv_bytes_per_block,
            self.predicted_tokens,
            self.given_up,
        )
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]

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
