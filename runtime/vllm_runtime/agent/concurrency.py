"""How many rows may be with the engine: less when it says it is overloaded, slowly more while it is well (AIMD)."""

from __future__ import annotations

from typing import Final

HALVE_AT_MOST_EVERY_SECONDS: Final = 1.0
"""Rows in flight fail together; they are one sign of overload, not many."""


class AdaptiveLimit:
    """The current limit, from 1 to ``maximum``. Starts at the maximum: the engine queues what it cannot batch."""

    def __init__(self, maximum: int) -> None:
        self._maximum = maximum
        self._limit = maximum
        self._healthy = 0
        self._halved_at = float("-inf")

    @property
    def current(self) -> int:
        """Rows that may be in flight now."""
        return self._limit

    def healthy(self) -> None:
        """A row was answered. One more is allowed after as many good answers as the limit allows in flight."""
        self._healthy += 1
        if self._healthy >= self._limit:
            self._healthy = 0
            self._limit = min(self._maximum, self._limit + 1)

    def overloaded(self, now: float) -> None:
        """The engine refused a row for load (429 or 503)."""
        self._healthy = 0
        if now - self._halved_at >= HALVE_AT_MOST_EVERY_SECONDS:
            self._halved_at = now
            self._limit = max(1, self._limit // 2)
