"""Conventions that every field of both kinds keeps."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from vllm_operator_api.__main__ import definition_text, generated_files, main
from vllm_operator_api.crd import RESOURCES, Resource, custom_resource_definition, root_schema

BY_KIND = pytest.mark.parametrize("resource", RESOURCES, ids=lambda resource: resource.kind)


def fields(node: dict[str, Any], path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every node of a schema with its path; items of a list end with ``[]``."""
    yield path, node
    for name, child in node.get("properties", {}).items():
        yield from fields(child, f"{path}.{name}")
    if "items" in node:
        yield from fields(node["items"], f"{path}[]")


def own_fields(resource: Resource) -> Iterator[tuple[str, dict[str, Any]]]:
    properties = root_schema(resource)["properties"]
    for part in ("spec", "status"):
        yield from fields(properties[part], part)


@BY_KIND
def test_names_are_camel_case(resource: Resource) -> None:
    odd = [
        name
        for path, node in own_fields(resource)
        for name in node.get("properties", {})
        if not re.fullmatch(r"[a-z][a-zA-Z0-9]*", name)
    ]
    assert odd == []


@BY_KIND
def test_every_field_is_described(resource: Resource) -> None:
    silent = [path for path, node in own_fields(resource) if not path.endswith("[]") and not node.get("description")]
    assert silent == []


@BY_KIND
def test_everything_is_bounded(resource: Resource) -> None:
    unbounded = []
    for path, node in own_fields(resource):
        match node.get("type"):
            case "string" if "maxLength" not in node and "enum" not in node:
                unbounded.append(path)
            case "array" if "maxItems" not in node:
                unbounded.append(path)
            case "object" if "additionalProperties" in node and "maxProperties" not in node:
                unbounded.append(path)
            case "integer" | "number" if path.startswith("spec") and not {"minimum", "maximum"} <= set(node):
                unbounded.append(path)
    assert unbounded == []


@BY_KIND
def test_lists_say_how_they_are_merged(resource: Resource) -> None:
    silent = [
        path
        for path, node in own_fields(resource)
        if node.get("type") == "array" and "x-kubernetes-list-type" not in node
    ]
    assert silent == []


@BY_KIND
def test_list_map_keys_are_required_fields_of_the_items(resource: Resource) -> None:
    for path, node in own_fields(resource):
        for key in node.get("x-kubernetes-list-map-keys", ()):
            assert key in node["items"]["required"], f"{path}: {key}"


@BY_KIND
def test_int_or_string_has_a_rule_for_both(resource: Resource) -> None:
    for path, node in own_fields(resource):
        if node.get("x-kubernetes-int-or-string"):
            assert node["x-kubernetes-validations"], path


@BY_KIND
def test_status_is_optional_and_without_defaults(resource: Resource) -> None:
    schema = root_schema(resource)
    status = schema["properties"]["status"]
    assert "status" not in schema["required"]
    assert "required" not in status
    assert [path for path, node in fields(status, "status") if "default" in node] == []
    conditions = status["properties"]["conditions"]
    assert conditions["x-kubernetes-list-type"] == "map"
    assert conditions["x-kubernetes-list-map-keys"] == ["type"]


@BY_KIND
def test_every_rule_has_a_message(resource: Resource) -> None:
    for path, node in fields(root_schema(resource), resource.kind):
        for rule in node.get("x-kubernetes-validations", ()):
            assert rule["message"], f"{path}: {rule['rule']}"


@BY_KIND
def test_columns_lead_to_fields(resource: Resource) -> None:
    schema = root_schema(resource)
    for column in resource.columns:
        node = schema
        path = re.sub(r"\[\?.*?\]", "[]", column.json_path).removeprefix(".").split(".")
        for name in path:
            if name == "metadata":
                break
            node = node["properties"][name.removesuffix("[]")]
            node = node["items"] if name.endswith("[]") else node
        else:
            assert node.get("type") == ("string" if column.type == "date" else column.type), column.name


def test_columns_are_what_users_are_told() -> None:
    titles = {
        resource.kind: [column.name.upper() for column in resource.columns if not column.wide] for resource in RESOURCES
    }
    assert titles == {
        "LLMService": ["MODEL", "STATE", "READY", "GPUS", "TP", "IDLE", "AGE"],
        "InferenceJob": ["SERVICE", "PHASE", "PROGRESS", "FAILED", "LEASES", "AGE"],
    }


@BY_KIND
def test_yaml_reads_back_as_the_definition(resource: Resource) -> None:
    assert yaml.safe_load(definition_text(resource)) == custom_resource_definition(resource)


def test_generated_files_are_committed() -> None:
    assert main(["check"]) == 0


def test_check_finds_drift(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "--root", str(tmp_path)]) == 0
    assert main(["check", "--root", str(tmp_path)]) == 0
    changed = tmp_path / next(iter(generated_files()))
    changed.write_text(changed.read_text().replace("API reference", "something else"))
    assert main(["check", "--root", str(tmp_path)]) == 1
    assert "-# something else" in capsys.readouterr().err


def test_chart_has_the_same_definitions() -> None:
    by_name: dict[str, set[str]] = {}
    for path, text in generated_files().items():
        if path.suffix == ".yaml":
            by_name.setdefault(path.name, set()).add(text)
    assert {name: len(texts) for name, texts in by_name.items()} == dict.fromkeys(by_name, 1)
    assert len(by_name) == 2
