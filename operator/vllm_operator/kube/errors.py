"""Errors of the Kubernetes API, by what a caller can do about them."""

from __future__ import annotations


class KubeError(Exception):
    """Base. ``status`` is the HTTP status (0: no answer), ``message`` the API server's own words, bounded."""

    def __init__(self, message: str, *, status: int = 0, reason: str = "") -> None:
        super().__init__(message[:2048])
        self.message = message[:2048]
        self.status = status
        self.reason = reason


class RetryableError(KubeError):
    """Connection lost, timeout, 429, 5xx: the same call may succeed later."""


class NotFoundError(KubeError):
    """404: the object (or its kind) does not exist."""


class ConflictError(KubeError):
    """409: changed meanwhile, or exists already."""


class AlreadyExistsError(ConflictError):
    """409 with reason AlreadyExists."""


class TerminalError(KubeError):
    """400, 401, 403, 413, 415, 422: the same call will fail again; the message says why."""
