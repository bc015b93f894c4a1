"""Runs a program of this folder in the environment that holds vLLM, with a file of questions and one of answers."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[2]


def engine_python() -> str:
    """The Python of vLLM's environment, which is made on first use."""
    command = [str(REPOSITORY / "hack" / "engine-venv")]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def engine_environment() -> dict[str, str]:
    """Byte code is written: without it every start compiles vLLM and PyTorch again."""
    return {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}


def ask_engine(program: str, questions: Sequence[dict[str, Any]], folder: Path) -> dict[str, dict[str, Any]]:
    """Answers by the ``id`` of their questions."""
    asked, answered = folder / "questions.jsonl", folder / "answers.jsonl"
    asked.write_text("".join(json.dumps(question) + "\n" for question in questions), encoding="utf-8")
    command = [engine_python(), str(Path(__file__).with_name(program)), str(asked), str(answered)]
    finished = subprocess.run(command, env=engine_environment(), capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr[-4000:]
    answers = [json.loads(line) for line in answered.read_text(encoding="utf-8").splitlines()]
    assert len(answers) == len(questions)
    return {answer["id"]: answer for answer in answers}
