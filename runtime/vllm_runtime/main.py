"""``vllm-runtime``: reads what the operator and the image say, and supervises."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import structlog
from pydantic import ValidationError

from vllm_operator_api.runtime import RUNTIME_CONFIG_ENV, EngineExit, ImageFacts, RuntimeConfig
from vllm_runtime.engine_args import OptionTable, engine_arguments, model_of
from vllm_runtime.environment import engine_environment
from vllm_runtime.errors import ConfigurationError
from vllm_runtime.exit_message import render
from vllm_runtime.group import engine_group
from vllm_runtime.logs import configure_logging
from vllm_runtime.model_inspection import use_inspected
from vllm_runtime.runtime_metrics import RuntimeMetrics
from vllm_runtime.settings import CONTROL_TOKEN_ENV, MIDDLEWARE, Settings
from vllm_runtime.supervisor import Process, Supervisor

CONFIGURATION_EXIT_CODE: Final = 2
MAX_DOCUMENT_BYTES: Final = 16 * 1024 * 1024

_log: Final = structlog.get_logger(__name__)


def main() -> None:
    """Run as PID 1 of an engine container."""
    configure_logging("supervisor")
    sys.exit(run(os.environ))


def run(environment: Mapping[str, str]) -> int:
    """Run to the end; returns the exit code."""
    settings = Settings.from_environment(environment)
    try:
        return asyncio.run(_supervise(settings, environment))
    except (ConfigurationError, OSError) as error:  # OSError: the engine's program is missing, or our port is taken
        _log.error("cannot start", error=str(error))
        document = EngineExit(stage="start", exit_code=CONFIGURATION_EXIT_CODE, message=str(error))
        write_termination_message(settings.termination_message_file, document)
        return CONFIGURATION_EXIT_CODE


async def _supervise(settings: Settings, environment: Mapping[str, str]) -> int:
    config = read_config(environment)
    image = read_image(settings.image_file)
    OptionTable(_read_json(settings.engine_options_file)).check(config.engine_args)
    group = engine_group(config.nodes, environment)
    follows = group is not None and group.follows
    token = secrets.token_urlsafe(32)
    arguments = engine_arguments(
        image.default_args,
        config.engine_args,
        host=settings.engine_host,
        port=settings.engine_port,
        middleware=MIDDLEWARE,
        shutdown_timeout_seconds=config.shutdown_grace_seconds,
        group=group,
    )
    engine_variables = engine_environment(environment, image, config.engine_env, model_of(config.engine_args), token)
    try:
        use_inspected(Path(engine_variables["VLLM_CACHE_ROOT"]))
    except OSError as error:
        _log.warning("vLLM inspects its model classes anew", error=str(error))
    command = settings.follower_command if follows else settings.engine_command
    engine = Process(command=[*command, *arguments], environment=engine_variables)
    agent = Process(
        command=[sys.executable, "-m", "vllm_runtime.agent"], environment={**environment, CONTROL_TOKEN_ENV: token}
    )
    supervisor = Supervisor(
        engine=engine,
        agent=agent if config.agent is not None and not follows else None,
        leader_host=group.leader_address if group is not None and follows else None,
        engine_port=settings.engine_port,
        control_token=token,
        grace_seconds=config.shutdown_grace_seconds,
        status_host=settings.engine_host,
        status_port=settings.supervisor_port,
        metrics=RuntimeMetrics(image.vllm_version),
        report_exit=lambda document: write_termination_message(settings.termination_message_file, document),
    )
    return await supervisor.run()


def read_config(environment: Mapping[str, str]) -> RuntimeConfig:
    """The operator's configuration.

    Raises:
        ConfigurationError: it is missing or not valid.
    """
    content = environment.get(RUNTIME_CONFIG_ENV)
    if not content:
        raise ConfigurationError(f"{RUNTIME_CONFIG_ENV} is not set: this image is run by the operator")
    try:
        return RuntimeConfig.model_validate_json(content)
    except ValidationError as error:
        raise ConfigurationError(f"{RUNTIME_CONFIG_ENV} is not valid: {_first_problem(error)}") from error


def read_image(path: Path) -> ImageFacts:
    """What the image says of itself.

    Raises:
        ConfigurationError: the file is missing or not valid.
    """
    try:
        return ImageFacts.model_validate(_read_json(path))
    except ValidationError as error:
        raise ConfigurationError(f"{path} is not valid: {_first_problem(error)}") from error


def _read_json(path: Path) -> dict[str, object]:
    try:
        with path.open("rb") as file:
            document = json.loads(file.read(MAX_DOCUMENT_BYTES))
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path} cannot be read ({error}): this is not a runtime image") from error
    if not isinstance(document, dict):
        raise ConfigurationError(f"{path} is not a JSON object: this is not a runtime image")
    return document


def _first_problem(error: ValidationError) -> str:
    problem = error.errors(include_input=False, include_url=False)[0]
    return f"{'.'.join(str(part) for part in problem['loc'])}: {problem['msg']}"


def write_termination_message(path: Path, document: EngineExit) -> None:
    """Leave the message where the kubelet looks; without such a file it is in the log only."""
    try:
        path.write_bytes(render(document))
    except OSError as error:
        _log.error("no termination message was written", path=str(path), error=str(error))
