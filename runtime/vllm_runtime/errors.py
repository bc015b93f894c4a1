"""Errors that end the runtime before the engine starts."""

from __future__ import annotations


class ConfigurationError(Exception):
    """What the pod was given cannot be run; the message is for the user."""
