"""The queue as an agent uses it: leases, renewals, results. What NATS is stays in ``nats_queue``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from vllm_operator_api.queue import Shard


class QueueUnavailableError(Exception):
    """There is no connection, or no answer in time. Whether the server did what was asked is unknown."""


class GoneError(Exception):
    """The stream or the consumer that the call was about does not exist any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """A leased shard. ``handle`` is the queue's own name for this lease."""

    handle: str
    shard: Shard
    deliveries: int
    """How often the shard was delivered, this one included; clean give-backs count too."""


class WorkQueue(Protocol):
    """One LLMService's queue."""

    @property
    def connected(self) -> bool:
        """Whether calls have a chance now."""
        ...

    @property
    def max_result_bytes(self) -> int:
        """Largest payload of a result."""
        ...

    async def jobs(self) -> tuple[str, ...]:
        """Uids of the jobs that may have work, in no order; empty when the queue does not exist (yet).

        Raises:
            QueueUnavailableError: see there (of all calls here).
        """
        ...

    async def lease(self, job_uid: str) -> Delivery | None:
        """Lease a shard of the job; None when it has none now.

        Raises:
            GoneError: the job is gone.
        """
        ...

    async def renew(self, delivery: Delivery, timeout_seconds: float) -> None:
        """Start the lease anew.

        Raises:
            GoneError: the job is gone: its rows are not wanted any more.
        """
        ...

    async def give_back(self, delivery: Delivery) -> None:
        """End the lease so that another agent may have the shard at once."""
        ...

    async def publish_result(self, shard: Shard, payload: bytes) -> bool:
        """Store a shard's result; False when there is one already (somebody else's, or ours of a lost answer).

        Raises:
            GoneError: results are not wanted any more.
        """
        ...

    async def acknowledge(self, delivery: Delivery) -> None:
        """Tell that the shard's result is stored.

        Raises:
            GoneError: the job is gone.
        """
        ...
