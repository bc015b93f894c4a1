"""The engine's command line, checked against the options that this image's vLLM has.

vLLM's parser accepts abbreviations, underscores and dotted forms, so a list of what is forbidden would leak.
Hence an option must be written exactly as the parser declares it.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from vllm_runtime.errors import ConfigurationError
from vllm_runtime.group import EngineGroup

NEVER: Final = re.compile(
    r"^--(?:no-)?(?:middleware|.*-plugin|logits-processors|worker-cls|worker-extension-cls|scheduler-cls"
    r"|model-class-overrides|config|log-config-file|logging-config|tool-server|.*-transfer-config|kv-events-config|grpc"
    r"|host|port|uds|root-path|api-key|hf-token|profiler-config|enable-scale-out|enable-elastic-ep"
    r"|enable-fault-tolerance|enable-prompt-embeds|enable-mm-embeds|enable-log-outputs|enable-tokenizer-info-endpoint"
    r"|trust-.*|allowed-.*|download-dir|otlp-traces-endpoint|shutdown-timeout|api-server-count|headless|ssl-.*"
    r"|nnodes|node-rank|master-addr|master-port|data-parallel-(?:address|rpc-port|rank|start-rank|size-local|backend|.*-lb)"
    r"|disable-log-stats|help)$"
)
"""Options that the supervisor sets itself, that run code or that open a route."""


@dataclass(frozen=True, slots=True)
class Option:
    """One option of vLLM's parser."""

    takes_value: bool
    many: bool
    choices: tuple[str, ...] | None


class OptionTable:
    """The options of one vLLM, by every spelling that the parser declares."""

    def __init__(self, dump: Mapping[str, Any]) -> None:
        """Take the document that ``dump_engine_options`` wrote at the image's build.

        Raises:
            ConfigurationError: it is not such a document.
        """
        self._options: dict[str, Option] = {}
        try:
            for entry in dump["options"]:
                option = Option(
                    takes_value=bool(entry["takesValue"]),
                    many=entry["nargs"] in {"+", "*"},
                    choices=tuple(entry["choices"]) if entry["choices"] else None,
                )
                self._options.update(dict.fromkeys(entry["flags"], option))
        except (KeyError, TypeError) as error:
            raise ConfigurationError("the image's list of engine options cannot be read") from error

    def check(self, arguments: Sequence[str]) -> None:
        """Check a service's arguments, written as ``--name=value``, ``--name value`` or ``--name``.

        Raises:
            ConfigurationError: one is unknown, not allowed, lacks a value or has one too many.
        """
        rest = list(arguments)
        while rest:
            token = rest.pop(0)
            name, equals, value = token.partition("=")
            option = self._find(name)
            values = [value] if equals else []
            while not equals and rest and not rest[0].startswith("--") and option.takes_value:
                values.append(rest.pop(0))
                if not option.many:
                    break
            self._check_values(name, option, values)

    def _find(self, name: str) -> Option:
        if not name.startswith("--") or name == "--":
            raise ConfigurationError(f"engine argument {name!r}: expected an option written as --name=value")
        if NEVER.match(name):
            raise ConfigurationError(f"engine argument {name} is not allowed")
        if name not in self._options:
            near = difflib.get_close_matches(name, self._options, n=1)
            advice = f"; did you mean {near[0]}?" if near else ""
            raise ConfigurationError(f"this vLLM has no option {name}{advice}")
        return self._options[name]

    @staticmethod
    def _check_values(name: str, option: Option, values: Sequence[str]) -> None:
        if option.takes_value and not values:
            raise ConfigurationError(f"engine argument {name} needs a value")
        if not option.takes_value and values:
            raise ConfigurationError(f"engine argument {name} takes no value, got {values[0]!r}")
        for value in values:
            if option.choices is not None and value not in option.choices:
                raise ConfigurationError(
                    f"engine argument {name}: {value!r} is not one of {', '.join(sorted(option.choices))}"
                )


def model_of(arguments: Sequence[str]) -> str | None:
    """The model that the arguments name (the last one wins, as in the parser)."""
    model = None
    for index, argument in enumerate(arguments):
        if argument == "--model" and index + 1 < len(arguments):
            model = arguments[index + 1]
        elif argument.startswith("--model="):
            model = argument.removeprefix("--model=")
    return model


def engine_arguments(
    defaults: Sequence[str],
    own: Sequence[str],
    *,
    host: str,
    port: int,
    middleware: str,
    shutdown_timeout_seconds: int,
    group: EngineGroup | None = None,
) -> list[str]:
    """VLLM's arguments: the image's defaults, the service's, and those that nobody may override."""
    arguments = [*defaults, *own]
    if group is None or not group.follows:
        arguments += ["--host", host, "--port", str(port), "--middleware", middleware]
    arguments += ["--shutdown-timeout", str(shutdown_timeout_seconds)]
    return arguments if group is None else [*arguments, *group.engine_arguments()]
