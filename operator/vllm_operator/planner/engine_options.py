"""The options and architectures that one version of vLLM knows, as dumped from its own parser and registry."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from difflib import get_close_matches
from importlib import resources
from typing import Any, Final

DEFAULT_VLLM_VERSION: Final = "0.32.0"
"""The version of the default runtime image; its dump is ``planner/data/vllm-<version>.json``."""


@dataclass(frozen=True, slots=True)
class EngineOption:
    """One option of vLLM's server."""

    flags: tuple[str, ...]
    """Every spelling, the negative ``--no-…`` and short ones included."""
    takes_value: bool
    choices: tuple[str, ...] | None = None

    @property
    def name(self) -> str:
        """The long, positive spelling."""
        return next((flag for flag in self.flags if flag.startswith("--")), self.flags[0])


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """What a version of vLLM understands. ``by_flag`` has every spelling."""

    vllm_version: str
    by_flag: dict[str, EngineOption] = field(repr=False)
    architectures: frozenset[str] = field(repr=False)
    pooling_architectures: frozenset[str] = field(repr=False)

    def near_flags(self, flag: str) -> tuple[str, ...]:
        """Long flags that are spelled like ``flag``, best first."""
        longs = [known for known in self.by_flag if known.startswith("--")]
        return tuple(get_close_matches(flag, longs, n=3, cutoff=0.6))

    def near_architectures(self, architecture: str) -> tuple[str, ...]:
        """Known architectures that are spelled like ``architecture``, best first."""
        return tuple(get_close_matches(architecture, sorted(self.architectures), n=3, cutoff=0.6))


def parse_engine_options(document: dict[str, Any]) -> EngineOptions:
    """The dump as a typed value."""
    by_flag: dict[str, EngineOption] = {}
    for entry in document["options"]:
        choices = entry.get("choices")
        option = EngineOption(
            flags=tuple(entry["flags"]),
            takes_value=bool(entry["takesValue"]),
            choices=None if choices is None else tuple(str(choice) for choice in choices),
        )
        by_flag.update(dict.fromkeys(option.flags, option))
    return EngineOptions(
        vllm_version=document["vllmVersion"],
        by_flag=by_flag,
        architectures=frozenset(document["architectures"]) | frozenset(document["poolingArchitectures"]),
        pooling_architectures=frozenset(document["poolingArchitectures"]),
    )


def load_engine_options(version: str = DEFAULT_VLLM_VERSION) -> EngineOptions:
    """Read the dump that the package carries. Called once, when the object graph is built.

    Raises:
        FileNotFoundError: the package has no dump of this version.
    """
    text = (resources.files("vllm_operator.planner") / "data" / f"vllm-{version}.json").read_text(encoding="utf-8")
    return parse_engine_options(json.loads(text))
