"""What a reconcile returns."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Done:
    """Nothing to do until something changes."""


@dataclass(frozen=True, slots=True)
class RequeueAfter:
    """Look again after so many seconds, even if nothing changes."""

    seconds: float


Result = Done | RequeueAfter


def look_again(*after_seconds: float | None) -> Result:
    """The earliest of these looks; ``Done`` when none is asked for."""
    seconds = min((look for look in after_seconds if look is not None), default=None)
    return Done() if seconds is None else RequeueAfter(seconds)
