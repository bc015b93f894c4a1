"""The API reference page, from the same schemas as the CustomResourceDefinitions."""

from __future__ import annotations

import ast
import inspect
import json
from collections.abc import Iterator
from enum import StrEnum
from typing import Any

from vllm_operator_api import names
from vllm_operator_api.conditions import InferenceJobCondition, LLMServiceCondition, Reason
from vllm_operator_api.crd import RESOURCES, Resource, root_schema
from vllm_operator_api.structural import Schema

_INTRODUCTION = f"""# API reference

<!-- Generated from crds/vllm_operator_api by `make crds`; do not edit. -->

Group `{names.GROUP}`, version `{names.VERSION}`. Both kinds are namespaced.
`kubectl explain llm.spec` shows the same on a cluster. A field that this page does not have is refused by
`kubectl apply` (`strict decoding error: unknown field`).
"""


def reference_page() -> str:
    """The whole page as Markdown."""
    parts = [_INTRODUCTION, *(_resource_section(resource) for resource in RESOURCES), _conditions_section()]
    return "\n".join(parts)


def _resource_section(resource: Resource) -> str:
    schema = root_schema(resource)
    lines = [
        f"## {resource.kind}",
        "",
        f"{_sentence(resource.description)} Short name `{resource.short_name}`.",
        "",
        "Rules on the whole object:",
        "",
        *(f"- {rule['message']}" for rule in schema["x-kubernetes-validations"]),
    ]
    for part in ("spec", "status"):
        node = schema["properties"][part]
        lines += ["", f"### {resource.kind} {part}", "", _sentence(node["description"]), ""]
        rules = [f"- {rule['message']}" for rule in node.get("x-kubernetes-validations", ())]
        lines += [*rules, ""] if rules else []
        lines += ["| Field | Type | Default | Description |", "|---|---|---|---|"]
        lines += [_row(path, child, required=required) for path, child, required in _fields(node, "")]
    return "\n".join(lines) + "\n"


def _fields(node: Schema, prefix: str) -> Iterator[tuple[str, Schema, bool]]:
    """Every field below ``node`` in the order of the models: its path, its schema, whether it is required."""
    required = node.get("required", ())
    for name, child in node.get("properties", {}).items():
        path = f"{prefix}{name}"
        yield path, child, name in required
        yield from _fields(child, f"{path}.")
        if child.get("type") == "array":
            yield from _fields(child["items"], f"{path}[].")


def _row(path: str, node: Schema, *, required: bool) -> str:
    default = "required" if required else _code(node["default"]) if node.get("default") not in (None, {}) else ""
    description = " ".join([_sentence(node.get("description", "")), *_limits(node), *_rules(node)]).strip()
    cells = (f"`{path}`", _type(node), default, description)
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


def _type(node: Schema) -> str:
    if node.get("x-kubernetes-int-or-string"):
        return "integer or string"
    if node["type"] == "array":
        return f"list of {_type(node['items'])}"
    if node.get("format") == "date-time":
        return "time"
    return str(node["type"])


def _limits(node: Schema) -> Iterator[str]:
    if "enum" in node:
        yield "One of " + ", ".join(_code(value) for value in node["enum"]) + "."
    low, high = node.get("minimum"), node.get("maximum")
    if low is not None:
        word = "Above" if node.get("exclusiveMinimum") else "At least"
        yield f"{word} {low}." if high is None else f"{word} {low}, at most {high}."
    if node.get("type") == "array" and "maxItems" in node:
        yield f"At most {node['maxItems']} items."
    if "enum" not in node and node.get("type") == "string" and "maxLength" in node and "format" not in node:
        yield f"At most {node['maxLength']} characters."


def _rules(node: Schema) -> Iterator[str]:
    for rule in node.get("x-kubernetes-validations", ()):
        yield f"Rule: {rule['message']}."


def _conditions_section() -> str:
    lines = ["## Conditions", ""]
    for title, enumeration in (
        ("Types of an LLMService", LLMServiceCondition),
        ("Types of an InferenceJob", InferenceJobCondition),
        ("Reasons", Reason),
    ):
        lines += [f"### {title}", "", "| Value | Meaning |", "|---|---|"]
        meanings = _member_docstrings(enumeration)
        lines += [f"| `{member.value}` | {meanings.get(member.name, '')} |" for member in enumeration]
        lines.append("")
    return "\n".join(lines)


def _member_docstrings(enumeration: type[StrEnum]) -> dict[str, str]:
    """The text under each member in the source: Python itself does not keep it."""
    body = ast.parse(inspect.getsource(enumeration)).body[0]
    found: dict[str, str] = {}
    previous: str | None = None
    for statement in body.body if isinstance(body, ast.ClassDef) else ():
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)]):
                previous = name
            case ast.Expr(value=ast.Constant(value=str(text))) if previous is not None:
                found[previous] = " ".join(text.split())
                previous = None
            case _:
                previous = None
    return found


def _sentence(text: str) -> str:
    return " ".join(text.split())


def _code(value: Any) -> str:
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"
