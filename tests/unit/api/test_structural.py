"""From models to structural schemas."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field

from vllm_operator_api.meta import ApiModel
from vllm_operator_api.structural import UnsupportedSchemaError, structural_schema


class Colour(StrEnum):
    """A colour."""

    RED = "red"
    BLUE = "blue"


class Part(ApiModel):
    """A part."""

    part_name: Annotated[str, Field(max_length=10)] = Field(description="Its name.")


class Whole(ApiModel):
    """A whole."""

    count: Annotated[int, Field(gt=0, le=9)] = 3
    ratio: Annotated[float, Field(ge=0, lt=1)] | None = None
    colour: Colour = Field(default=Colour.RED, description="Which colour.")
    only: Literal["a"] = "a"
    degree: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    part: Part | None = Field(default=None, description="The part in use.")
    parts: Annotated[list[Part], Field(max_length=4)] = Field(default=[])
    anything: dict[str, Any] = Field(default={})
    labels: dict[str, Annotated[str, Field(max_length=5)]] = Field(default={})


def test_every_shape_becomes_openapi() -> None:
    part = {
        "type": "object",
        "properties": {"partName": {"type": "string", "maxLength": 10, "description": "Its name."}},
        "required": ["partName"],
    }
    assert structural_schema(Whole) == {
        "type": "object",
        "description": "A whole.",
        "properties": {
            "count": {
                "type": "integer",
                "format": "int64",
                "minimum": 0,
                "exclusiveMinimum": True,
                "maximum": 9,
                "default": 3,
            },
            "ratio": {"type": "number", "format": "double", "minimum": 0, "maximum": 1, "exclusiveMaximum": True},
            "colour": {"type": "string", "enum": ["red", "blue"], "description": "Which colour.", "default": "red"},
            "only": {"type": "string", "enum": ["a"], "default": "a"},
            "degree": {"x-kubernetes-int-or-string": True, "default": "auto"},
            "part": {**part, "description": "The part in use."},
            "parts": {"type": "array", "maxItems": 4, "items": {**part, "description": "A part."}},
            "anything": {"type": "object", "x-kubernetes-preserve-unknown-fields": True, "default": {}},
            "labels": {
                "type": "object",
                "additionalProperties": {"type": "string", "maxLength": 5},
                "default": {},
            },
        },
    }


def test_a_status_has_no_defaults() -> None:
    properties = structural_schema(Whole, with_defaults=False)["properties"]
    assert [name for name, schema in properties.items() if "default" in schema] == []


def test_a_union_of_models_is_refused() -> None:
    class Union(BaseModel):
        either: Part | Whole

    with pytest.raises(UnsupportedSchemaError, match=r"Union\.either: a union of \['object'\]"):
        structural_schema(Union)


def test_a_keyword_that_a_definition_cannot_have_is_refused() -> None:
    class Odd(BaseModel):
        model_config = ConfigDict(json_schema_extra={"patternProperties": {}})
        field: int

    with pytest.raises(UnsupportedSchemaError, match="patternProperties"):
        structural_schema(Odd)


def test_rules_of_a_field_and_of_its_type_both_hold() -> None:
    class Ruled(BaseModel):
        model_config = ConfigDict(json_schema_extra={"x-kubernetes-validations": [{"rule": "type"}]})

    class Outer(BaseModel):
        inner: Ruled | None = Field(default=None, json_schema_extra={"x-kubernetes-validations": [{"rule": "field"}]})

    inner = structural_schema(Outer)["properties"]["inner"]
    assert inner["x-kubernetes-validations"] == [{"rule": "type"}, {"rule": "field"}]
