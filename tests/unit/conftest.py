"""Hypothesis in the unit tests: no deadline per example (a busy machine is no failure), the same examples each time."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("unit", deadline=None, derandomize=True)
settings.load_profile("unit")
