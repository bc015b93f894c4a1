"""Where the runtime finds its files and ports. In a pod the defaults hold; on a host (tests, development) they move."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from vllm_operator_api.runtime import (
    ENGINE_OPTIONS_PATH,
    ENGINE_PORT,
    INSTANCE_JSON_PATH,
    SUPERVISOR_PORT,
    TERMINATION_MESSAGE_PATH,
)

IMAGE_FILE_ENV: Final = "VLLM_RUNTIME_IMAGE_FILE"
ENGINE_OPTIONS_FILE_ENV: Final = "VLLM_RUNTIME_ENGINE_OPTIONS_FILE"
TERMINATION_MESSAGE_FILE_ENV: Final = "VLLM_RUNTIME_TERMINATION_MESSAGE_FILE"
ENGINE_COMMAND_ENV: Final = "VLLM_RUNTIME_ENGINE_COMMAND"
"""JSON list: program and first arguments of the engine, leader and follower alike."""
ENGINE_HOST_ENV: Final = "VLLM_RUNTIME_ENGINE_HOST"
ENGINE_PORT_ENV: Final = "VLLM_RUNTIME_ENGINE_PORT"
SUPERVISOR_PORT_ENV: Final = "VLLM_RUNTIME_SUPERVISOR_PORT"

CONTROL_TOKEN_ENV: Final = "RUNTIME_CONTROL_TOKEN"  # noqa: S105  a variable's name
"""Secret of supervisor, agent and middleware, new at each start. Not VLLM_*: vLLM warns of names it does not know."""

VLLM_SERVER_MODULE: Final = "vllm.entrypoints.openai.api_server"
"""Runs one API server process whatever the data-parallel degree (``vllm serve`` starts one per rank), so that the
middleware counts every request and vLLM's drain works (measured on vLLM 0.32.0)."""
VLLM_FOLLOWER_COMMAND: Final = ("vllm.entrypoints.cli.main", "serve")
"""The server's own module reads ``--headless`` and does not act on it (entrypoints/cli/serve.py:69 does)."""
MIDDLEWARE: Final = "vllm_runtime.middleware.RuntimeMiddleware"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Paths and ports of this process."""

    image_file: Path
    engine_options_file: Path
    termination_message_file: Path
    engine_command: tuple[str, ...]
    follower_command: tuple[str, ...]
    engine_host: str
    engine_port: int
    supervisor_port: int

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Settings:
        """Read the settings.

        Raises:
            ValueError: a port is not a number, or the engine command not a JSON list of strings.
        """
        command = json.loads(environment.get(ENGINE_COMMAND_ENV, "[]"))
        if not isinstance(command, list) or not all(isinstance(part, str) for part in command):
            raise ValueError(f"{ENGINE_COMMAND_ENV} must be a JSON list of strings")
        return cls(
            image_file=Path(environment.get(IMAGE_FILE_ENV, INSTANCE_JSON_PATH)),
            engine_options_file=Path(environment.get(ENGINE_OPTIONS_FILE_ENV, ENGINE_OPTIONS_PATH)),
            termination_message_file=Path(environment.get(TERMINATION_MESSAGE_FILE_ENV, TERMINATION_MESSAGE_PATH)),
            engine_command=tuple(command) or (sys.executable, "-m", VLLM_SERVER_MODULE),
            follower_command=tuple(command) or (sys.executable, "-m", *VLLM_FOLLOWER_COMMAND),
            engine_host=environment.get(ENGINE_HOST_ENV, "0.0.0.0"),
            engine_port=int(environment.get(ENGINE_PORT_ENV, ENGINE_PORT)),
            supervisor_port=int(environment.get(SUPERVISOR_PORT_ENV, SUPERVISOR_PORT)),
        )
