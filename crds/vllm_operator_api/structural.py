"""From a pydantic model to a structural OpenAPI v3 schema, the dialect that a CustomResourceDefinition takes.

Pydantic writes JSON Schema 2020-12 with ``$defs``; the API server wants everything in place, no unions but the one
of integer and string, and OpenAPI's own spelling of some keywords. What cannot be said in that dialect is refused here
rather than by a cluster. The rules of the dialect:
https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#specifying-a-structural-schema
"""

from __future__ import annotations

from typing import Any, Final

from pydantic import BaseModel

Schema = dict[str, Any]

_REFERENCE_PREFIX: Final = "#/$defs/"
_RULES: Final = "x-kubernetes-validations"
_COPIED_KEYWORDS: Final[tuple[str, ...]] = (
    "description",
    "format",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "pattern",
    "minItems",
    "maxItems",
    "minProperties",
    "maxProperties",
    "enum",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
    _RULES,
)
_KNOWN_KEYWORDS: Final = frozenset(
    {
        *_COPIED_KEYWORDS,
        "$ref",
        "$defs",
        "additionalProperties",
        "anyOf",
        "const",
        "default",
        "exclusiveMaximum",
        "exclusiveMinimum",
        "items",
        "properties",
        "required",
        "title",
        "type",
    }
)
_DEFAULT_FORMATS: Final = {"integer": "int64", "number": "double"}


class UnsupportedSchemaError(ValueError):
    """A model says something that a CustomResourceDefinition cannot."""


def structural_schema(model: type[BaseModel], *, with_defaults: bool = True) -> Schema:
    """The structural schema of ``model``, by its aliases (camelCase).

    Args:
        model: where the fields, bounds, descriptions and ``x-kubernetes-*`` keywords come from.
        with_defaults: False for a status, in which the API server must not write anything of its own.

    Raises:
        UnsupportedSchemaError: the model has a union or a keyword that a CustomResourceDefinition cannot have.
    """
    source = model.model_json_schema(by_alias=True)
    return _Converter(source.get("$defs", {}), with_defaults=with_defaults).convert(source, model.__name__)


class _Converter:
    """One pass over a JSON schema. Each input node is read once and never changed."""

    def __init__(self, definitions: dict[str, Schema], *, with_defaults: bool) -> None:
        self._definitions = definitions
        self._with_defaults = with_defaults

    def convert(self, node: Schema, path: str) -> Schema:
        node = self._resolved(node)
        unknown = node.keys() - _KNOWN_KEYWORDS
        if unknown:
            raise UnsupportedSchemaError(f"{path}: keywords {sorted(unknown)} are not structural")
        if "anyOf" in node:
            self._require_int_or_string(node["anyOf"], path)
            out: Schema = {"x-kubernetes-int-or-string": True}
        else:
            out = self._typed(node, path)
        out |= {keyword: node[keyword] for keyword in _COPIED_KEYWORDS if keyword in node}
        if self._with_defaults and _is_written(node.get("default")):
            out["default"] = node["default"]
        return out

    def _resolved(self, node: Schema) -> Schema:
        """``node`` with its reference and its "or null" replaced by what they stand for; its own keywords win."""
        while True:
            own = {keyword: value for keyword, value in node.items() if keyword not in ("$ref", "anyOf", "title")}
            members = [member for member in node.get("anyOf", ()) if member.get("type") != "null"]
            if "$ref" in node:
                node = _merged(self._definitions[node["$ref"].removeprefix(_REFERENCE_PREFIX)], own)
            elif len(members) == 1:
                node = _merged(members[0], own)
            else:
                return node

    def _require_int_or_string(self, members: list[Schema], path: str) -> None:
        types = {self._resolved(member).get("type") for member in members} - {"null"}
        if types != {"integer", "string"}:
            raise UnsupportedSchemaError(
                f"{path}: a union of {sorted(map(str, types))}; only integer | string is allowed"
            )

    def _typed(self, node: Schema, path: str) -> Schema:
        kind = node.get("type")
        if not isinstance(kind, str):
            raise UnsupportedSchemaError(f"{path}: no single type")
        out: Schema = {"type": kind}
        if kind in _DEFAULT_FORMATS:
            out["format"] = _DEFAULT_FORMATS[kind]
        if "const" in node:
            out["enum"] = [node["const"]]
        for bound, exclusive in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
            if exclusive in node:
                out |= {bound: node[exclusive], exclusive: True}
        if kind == "array":
            out["items"] = self.convert(node["items"], f"{path}[]")
        if kind == "object":
            out |= self._object(node, path)
        return out

    def _object(self, node: Schema, path: str) -> Schema:
        additional = node.get("additionalProperties", False)
        if "properties" not in node:
            if isinstance(additional, dict):
                return {"additionalProperties": self.convert(additional, f"{path}.*")}
            return {"x-kubernetes-preserve-unknown-fields": True} if additional else {}
        out: Schema = {
            "properties": {name: self.convert(child, f"{path}.{name}") for name, child in node["properties"].items()}
        }
        if node.get("required"):
            out["required"] = list(node["required"])
        return out


def _merged(inner: Schema, own: Schema) -> Schema:
    """A type and what the field that has it says besides: the field's words replace the type's, rules of both hold."""
    rules = [*inner.get(_RULES, ()), *own.get(_RULES, ())]
    return inner | own | ({_RULES: rules} if rules else {})


def _is_written(default: Any) -> bool:
    """Whether the API server shall write this default into objects: not nothing, nor an empty list or text."""
    return default is not None and default not in ([], "")
