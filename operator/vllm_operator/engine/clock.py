"""Time as a dependency, so that tests can own it."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Wall time and a clock that never jumps."""

    def now(self) -> datetime:
        """The time in UTC (aware)."""
        ...

    def monotonic(self) -> float:
        """Seconds of a clock that only moves forward."""
        ...


class SystemClock:
    """The machine's clocks."""

    def now(self) -> datetime:
        """The time in UTC (aware)."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds of a clock that only moves forward."""
        return time.monotonic()


def rfc3339(moment: datetime) -> str:
    """A time as Kubernetes writes ``metav1.Time``: UTC, whole seconds, ``Z``."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def rfc3339_micro(moment: datetime) -> str:
    """A time as Kubernetes writes ``metav1.MicroTime``: UTC, microseconds, ``Z``."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def parse_rfc3339(text: str) -> datetime:
    """The moment that Kubernetes wrote.

    Raises:
        ValueError: not such a time.
    """
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
