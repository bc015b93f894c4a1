"""Runs ``kubectl-llm`` in this process."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest

from vllm_operator.cli.llm import run


@dataclass(frozen=True)
class Answer:
    """What a command left behind."""

    status: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        """Standard output as JSON; NaN and Infinity, which JSON lacks, are refused."""

        def refuse(name: str) -> None:
            raise AssertionError(f"{name} is no JSON")

        found: dict[str, Any] = json.loads(self.out, parse_constant=refuse)
        return found


class Commands:
    """``commands("plan", "--tensor", 2)``."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: object) -> Answer:
        self._capsys.readouterr()
        status = run([str(argument) for argument in arguments])
        out, err = self._capsys.readouterr()
        return Answer(status, out, err)
