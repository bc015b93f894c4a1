"""When a lease has to be renewed and when it must be taken for lost. No I/O; times are of one monotonic clock."""

from __future__ import annotations

from typing import Final

RENEWALS_PER_LEASE: Final = 3
"""Two lost packets in a row do not lose a lease."""


class Lease:
    """One shard's lease as its holder sees it.

    The server counts from when it received a renewal, the holder from when it sent it: the holder gives up first.
    JetStream does not fence a stale holder, so after ``expired`` nothing may be acked or given back.
    """

    __slots__ = ("_lease_seconds", "_next_renewal_at", "renewed_at", "taken_at")

    def __init__(self, lease_seconds: float, asked_at: float) -> None:
        """``asked_at``: when the pull was sent that brought the shard."""
        self._lease_seconds = lease_seconds
        self.taken_at = asked_at
        self.renewed_at = asked_at
        self._next_renewal_at = asked_at + lease_seconds / RENEWALS_PER_LEASE

    @property
    def renewal_timeout_seconds(self) -> float:
        """How long to wait for the answer to a renewal."""
        return self._lease_seconds / (2 * RENEWALS_PER_LEASE)

    @property
    def wake_at(self) -> float:
        """When to look again: the next renewal or the end, whichever comes first."""
        return min(self._next_renewal_at, self.expires_at)

    @property
    def expires_at(self) -> float:
        """The holder's own deadline without a successful renewal."""
        return self.renewed_at + self._lease_seconds

    def renewal_due(self, now: float) -> bool:
        """Whether a renewal is to be sent."""
        return now >= self._next_renewal_at and not self.expired(now)

    def expired(self, now: float) -> bool:
        """Whether somebody else may hold the shard by now."""
        return now >= self.expires_at

    def renewed(self, sent_at: float) -> None:
        """The server confirmed the renewal that was sent at ``sent_at``."""
        self.renewed_at = max(self.renewed_at, sent_at)
        self._next_renewal_at = self.renewed_at + self._lease_seconds / RENEWALS_PER_LEASE

    def renewal_failed(self, now: float) -> None:
        """No confirmation came; try again soon, without flooding."""
        self._next_renewal_at = now + self.renewal_timeout_seconds / 2
