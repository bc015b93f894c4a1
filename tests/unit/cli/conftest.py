"""The command under test."""

from __future__ import annotations

import pytest
from tests.unit.cli.commands import Commands


@pytest.fixture
def llm(capsys: pytest.CaptureFixture[str]) -> Commands:
    """``kubectl-llm``."""
    return Commands(capsys)
