"""The YAML of one LLMService, as a user would apply it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import ValidationError

from vllm_operator.cli.errors import CommandError
from vllm_operator_api.names import LLM_SERVICE_KIND
from vllm_operator_api.v1alpha1 import LLMServiceSpec

_MAX_BYTES: Final = 1024 * 1024
_MAX_DOCUMENTS: Final = 100
_NAME: Final = re.compile(r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")


@dataclass(frozen=True, slots=True)
class ServiceFile:
    """What is planned."""

    name: str
    namespace: str | None
    spec: LLMServiceSpec


def read_service(path: Path) -> ServiceFile:
    """The only LLMService in a file; other objects in it do not matter.

    Raises:
        CommandError: the file cannot be read, holds none or several, or its spec is not valid.
    """
    found = [document for document in _documents(path) if document.get("kind") == LLM_SERVICE_KIND]
    if len(found) != 1:
        raise CommandError(f"-f {path}: it holds {len(found)} objects of kind {LLM_SERVICE_KIND}; it must hold one")
    metadata = found[0].get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    if not isinstance(metadata, dict) or not isinstance(name, str) or not _NAME.match(name):
        raise CommandError(f"-f {path}: metadata.name={str(name)[:63]!r} is no name of an object")
    namespace = metadata.get("namespace")
    try:
        spec = LLMServiceSpec.model_validate(found[0].get("spec") or {})
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(("spec", *(str(part) for part in first["loc"])))
        raise CommandError(f"-f {path}: {field}: {first['msg']}") from error
    return ServiceFile(name, namespace if isinstance(namespace, str) else None, spec)


def _documents(path: Path) -> list[dict[str, Any]]:
    try:
        if not path.is_file():
            raise CommandError(f"-f {path}: there is no such file")
        with path.open("rb") as file:
            text = file.read(_MAX_BYTES + 1)
        if len(text) > _MAX_BYTES:
            raise CommandError(f"-f {path}: it has more than {_MAX_BYTES} bytes")
        documents = []
        for document in yaml.safe_load_all(text):
            if isinstance(document, dict):
                documents.append(document)
            if len(documents) > _MAX_DOCUMENTS:
                raise CommandError(f"-f {path}: it holds more than {_MAX_DOCUMENTS} objects")
    except OSError as error:
        raise CommandError(f"-f {path}: {error.strerror}") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise CommandError(f"-f {path}: it is not YAML: {error}") from error
    return documents
