"""Fixtures of the InferenceJob tests."""

from __future__ import annotations

import pytest
from tests.support.job_world import World


@pytest.fixture
def world() -> World:
    return World()
