"""``python -m vllm_runtime.agent``: started by the supervisor, with its environment."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Final

import uvloop

from vllm_operator_api.runtime import RUNTIME_CONFIG_ENV, RuntimeConfig
from vllm_runtime.agent.app import Agent
from vllm_runtime.logs import configure_logging
from vllm_runtime.settings import CONTROL_TOKEN_ENV, Settings
from vllm_runtime.tasks import end_tasks

LEFT_TASKS_SECONDS: Final = 1.0


async def _run() -> None:
    config = RuntimeConfig.model_validate_json(os.environ[RUNTIME_CONFIG_ENV])
    if config.agent is None:
        raise SystemExit("the runtime's configuration has no agent")
    settings = Settings.from_environment(os.environ)
    agent = Agent(
        config.agent,
        shutdown_grace_seconds=config.shutdown_grace_seconds,
        engine_port=settings.engine_port,
        control_token=os.environ.get(CONTROL_TOKEN_ENV, ""),
        environment=os.environ,
    )
    try:
        await agent.run()
    finally:
        # The loop's own end cancels what is left (tasks of nats-py) once, and waits without a limit.
        left = asyncio.all_tasks() - {asyncio.current_task()}
        await end_tasks(*left, seconds=LEFT_TASKS_SECONDS)


def main() -> int:
    """Run the agent until a signal."""
    configure_logging("agent")
    uvloop.run(_run())
    return 0


if __name__ == "__main__":
    sys.exit(main())
