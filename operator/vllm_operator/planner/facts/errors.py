"""How a fault of a model is told."""

from __future__ import annotations

from typing import NoReturn

from vllm_operator_api.conditions import Reason


class ModelError(Exception):
    """A fault of the model or of how it is named, as reason and message for a condition."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class DocumentTooLargeError(ModelError):
    """A file is larger than what is read of such a file: others say the same, less exactly."""


class TransientModelError(ModelError):
    """A fault that may pass: reading again later may succeed."""

    def __init__(self, reason: Reason, message: str, *, retry_after_seconds: int | None = None) -> None:
        super().__init__(reason, message)
        self.retry_after_seconds = retry_after_seconds
        """How long the other side asks to wait; None: it does not say."""


def too_large(message: str) -> NoReturn:
    """Refuse a file for its size.

    Raises:
        DocumentTooLargeError: always, with the reason ``ModelConfigInvalid``.
    """
    raise DocumentTooLargeError(Reason.MODEL_CONFIG_INVALID, message)


def invalid(message: str) -> NoReturn:
    """Refuse the model's own files.

    Raises:
        ModelError: always, with the reason ``ModelConfigInvalid``.
    """
    raise ModelError(Reason.MODEL_CONFIG_INVALID, message)
