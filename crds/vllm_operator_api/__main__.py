"""``python -m vllm_operator_api generate|check|docs``: files that are made from the models.

``generate`` writes all of them, ``docs`` the reference page alone, ``check`` writes nothing and ends with 1 when one of
them is not what the models say.
"""

from __future__ import annotations

import argparse
import difflib
import sys
from pathlib import Path

from vllm_operator_api.crd import RESOURCES, Resource, custom_resource_definition
from vllm_operator_api.docs import reference_page

_REPOSITORY = Path(__file__).resolve().parents[2]
_DEFINITION_DIRECTORIES = (Path("crds"), Path("charts/vllm-operator/files/crds"))
_REFERENCE_PAGE = Path("docs/api.md")
_HEADER = "# Generated from crds/vllm_operator_api/v1alpha1 by `make crds`; do not edit.\n"


def definition_text(resource: Resource) -> str:
    """A CustomResourceDefinition as a YAML document."""
    import yaml  # a need of development only: no image of ours runs this

    return _HEADER + yaml.safe_dump(
        custom_resource_definition(resource), sort_keys=False, width=120, allow_unicode=True, default_flow_style=False
    )


def generated_files() -> dict[Path, str]:
    """Text of every generated file, by its path from the repository's root."""
    files = {_REFERENCE_PAGE: reference_page()}
    for resource in RESOURCES:
        text = definition_text(resource)
        name = f"{resource.definition_name.split('.', 1)[1]}_{resource.plural}.yaml"
        files |= {directory / name: text for directory in _DEFINITION_DIRECTORIES}
    return files


def _write(root: Path, files: dict[Path, str]) -> int:
    for path, text in files.items():
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
        sys.stdout.write(f"{path}\n")
    return 0


def _check(root: Path, files: dict[Path, str]) -> int:
    drifted = False
    for path, text in files.items():
        target = root / path
        current = target.read_text(encoding="utf-8") if target.is_file() else ""
        if current == text:
            continue
        drifted = True
        lines = difflib.unified_diff(
            current.splitlines(), text.splitlines(), fromfile=str(path), tofile="models", lineterm="", n=2
        )
        sys.stderr.write("\n".join(lines) + "\n")
    if drifted:
        sys.stderr.write("generated files are not what the models say: run `make crds` and commit the result\n")
    return 1 if drifted else 0


def main(arguments: list[str] | None = None) -> int:
    """Run one of the three commands; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m vllm_operator_api", description=__doc__)
    parser.add_argument("command", choices=("generate", "check", "docs"))
    parser.add_argument("--root", type=Path, default=_REPOSITORY, help="root of the repository")
    options = parser.parse_args(arguments)
    files = generated_files()
    if options.command == "check":
        return _check(options.root, files)
    if options.command == "docs":
        files = {_REFERENCE_PAGE: files[_REFERENCE_PAGE]}
    return _write(options.root, files)


if __name__ == "__main__":
    sys.exit(main())
