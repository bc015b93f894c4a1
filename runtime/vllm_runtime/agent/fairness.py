"""Fair turn between jobs: each gets the same share of rows while it has work (start-time fair queueing)."""

from __future__ import annotations

from collections.abc import Collection


class FairTurn:
    """Virtual time of each job: rows it was given. The one that is furthest behind goes first."""

    def __init__(self) -> None:
        self._given: dict[str, float] = {}
        self._now = 0.0

    def keep_only(self, jobs: Collection[str]) -> None:
        """Forget all other jobs."""
        self._given = {job: given for job, given in self._given.items() if job in jobs}

    def order(self, jobs: Collection[str]) -> list[str]:
        """The jobs in the order in which to try them.

        A job that was not seen before, or had nothing to do for long, starts at the current turn: it owes nothing and
        is owed nothing for the time before.
        """
        for job in jobs:
            self._given[job] = max(self._given.get(job, self._now), self._now)
        return sorted(jobs, key=lambda job: (self._given[job], job))

    def charge(self, job: str, rows: int) -> None:
        """``job`` was given ``rows``."""
        start = self._given.get(job, self._now)
        self._now = max(self._now, start)
        self._given[job] = start + rows
