"""Bounds of plain dataclasses, in ``Annotated``: pydantic checks them wherever it makes such an object of outside data.

The same as pydantic's own, without importing it: what only calculates with checked values need not pay for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Between:
    """A number from ``least`` to ``most``."""

    least: int
    most: int

    def check(self, value: int) -> int:
        """The value itself.

        Raises:
            ValueError: it is out of bounds.
        """
        if not self.least <= value <= self.most:
            raise ValueError(f"must be from {self.least} to {self.most}")
        return value

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        """Called by pydantic."""
        return _checked(self.check, handler(source))


@dataclass(frozen=True)
class Sized:
    """A text or a tuple with ``least`` to ``most`` characters or items."""

    most: int
    least: int = 0

    def check(self, value: Any) -> Any:
        """The value itself.

        Raises:
            ValueError: it is too short or too long.
        """
        if not self.least <= len(value) <= self.most:
            raise ValueError(f"must have from {self.least} to {self.most} characters or items")
        return value

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        """Called by pydantic."""
        return _checked(self.check, handler(source))


def _checked(check: Any, schema: Any) -> Any:
    from pydantic_core import core_schema

    return core_schema.no_info_after_validator_function(check, schema)
