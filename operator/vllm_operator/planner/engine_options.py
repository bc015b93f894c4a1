"""The options and architectures that one version of vLLM knows, as dumped from its own parser and registry."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cache
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
    no_pipeline_architectures: frozenset[str] = field(default=frozenset(), repr=False)
    """Those that vLLM cannot cut into pipeline stages; empty in a dump that does not say."""
    quantization_methods: frozenset[str] = field(default=frozenset(), repr=False)
    """Every method that vLLM knows; empty in a dump that does not say."""

    def near_flags(self, flag: str) -> tuple[str, ...]:
        """Long flags that are spelled like ``flag``, best first."""
        return _near(flag, [known for known in self.by_flag if known.startswith("--")])

    def near_architectures(self, architecture: str) -> tuple[str, ...]:
        """Known architectures that are spelled like ``architecture``, best first."""
        return _near(architecture, sorted(self.architectures))


def _near(word: str, known: list[str]) -> tuple[str, ...]:
    from difflib import get_close_matches  # only a mistake needs it

    return tuple(get_close_matches(word, known, n=3, cutoff=0.6))


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
        no_pipeline_architectures=frozenset(document.get("noPipelineArchitectures", ())),
        quantization_methods=frozenset(document.get("quantizationMethods", ())),
    )


@cache
def default_engine_options() -> EngineOptions:
    """What the default version understands; the package's dump is read once per process, when it starts."""
    from importlib import resources  # slow to import, and needed once

    dump = resources.files("vllm_operator.planner") / "data" / f"vllm-{DEFAULT_VLLM_VERSION}.json"
    return parse_engine_options(json.loads(dump.read_text(encoding="utf-8")))
