"""What vLLM itself says of a layout: a program that runs inside the engine's environment.

    python legality_engine.py QUESTIONS ANSWERS      # both are files of JSON lines

Every question is ``{"id": ..., "device": "9.0", "config": {...} or a path, "tensor": 1, "pipeline": 1,
"expert_parallel": false, "settings": {...}}``; the last three are optional, ``settings`` are fields of vLLM's
``EngineArgs``, and ``device`` is the compute capability of an NVIDIA GPU, the same in all questions of one file. Every
answer is the question's ``id`` and

- ``configured``: null, or vLLM's error when it makes the engine's configuration (``verify_with_parallel_config`` is
  part of it);
- ``built``: null, or vLLM's error when it builds its model class for this layout. Weights are neither read nor run.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pretended_gpu


def refusal(attempt: Callable[..., Any], *arguments: Any, **named: Any) -> str | None:
    """The error that it raises, in one line."""
    try:
        attempt(*arguments, **named)
    except Exception as error:  # noqa: BLE001  whatever vLLM raises is its answer
        text = str(error).partition(" [type=")[0].rpartition("Value error, ")[2]  # what pydantic wraps around it
        return " ".join(f"{type(error).__name__}: {text}".split())[:800]
    return None


def answer(question: dict[str, Any]) -> dict[str, Any]:
    """Ask twice: cheaply, then by building the model."""
    from engine_models import build, engine_config

    config = question["config"]
    source = Path(config) if isinstance(config, str) else config
    layout = {name: question[name] for name in ("tensor", "pipeline", "expert_parallel") if name in question}
    settings = question.get("settings", {})
    configured = refusal(engine_config, source, **layout, **settings)
    built = configured or refusal(build, source, **layout, **settings)
    return {"id": question["id"], "configured": configured, "built": built}


def main() -> None:
    """Answer every question of the file."""
    asked, answered = map(Path, sys.argv[1:])
    questions = [json.loads(line) for line in asked.read_text(encoding="utf-8").splitlines()]
    pretended_gpu.pretend(*map(int, questions[0]["device"].split(".")))
    import torch
    from vllm.v1.worker.workspace import init_workspace_manager

    init_workspace_manager(torch.device("meta"))  # as a worker does before it builds a model
    with answered.open("w", encoding="utf-8") as file:
        for question in questions:
            file.write(json.dumps(answer(question)) + "\n")


if __name__ == "__main__":
    main()
