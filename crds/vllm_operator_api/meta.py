"""What the models of both kinds share."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from vllm_operator_api.conditions import ConditionStatus

MAX_CONDITION_MESSAGE_LENGTH = 1024


class ApiModel(BaseModel):
    """Base of everything that is part of a custom resource: camelCase outside, immutable, tolerant of newer fields."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True)


DnsLabel = Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]
DnsSubdomain = Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")]
Timestamp = Annotated[str, Field(max_length=64, json_schema_extra={"format": "date-time"})]
"""RFC 3339 time in UTC with seconds, as Kubernetes writes it."""


class Condition(ApiModel):
    """A condition as in ``metav1.Condition``."""

    type: Annotated[str, Field(max_length=316)] = Field(description="What is judged.")
    status: ConditionStatus = Field(description="Whether it holds; Unknown when it cannot be told.")
    reason: Annotated[str, Field(max_length=1024)] = Field(description="Why, as one word of the list of reasons.")
    message: Annotated[str, Field(max_length=32768)] = Field(default="", description="Why, and what to do about it.")
    observed_generation: Annotated[int, Field(ge=0)] = Field(
        default=0, description="Generation of the object that this was judged of."
    )
    last_transition_time: Timestamp = Field(description="When the status last became another one.")


class LocalObjectReference(ApiModel):
    """An object of the same namespace by its name."""

    name: DnsSubdomain = Field(description="Name of the object, in the namespace of this one.")
