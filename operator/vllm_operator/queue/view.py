"""What the operator knows from the queue, as plain values for ``plan`` and ``status``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from vllm_operator_api.queue import Heartbeat, JobProgress


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenHeartbeat:
    """The last heartbeat of a worker and how long ago the operator received it (its own monotonic clock)."""

    heartbeat: Heartbeat
    age_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardCounts:
    """Counts of a job's consumer."""

    pending: int
    leased: int
    redelivered: int


class QueueView(Protocol):
    """In-memory view; none of these calls does I/O."""

    @property
    def connected(self) -> bool:
        """Whether the operator has a connection to the queue now."""
        ...

    @property
    def problem(self) -> str | None:
        """Why there is no connection, in words for a condition; None while connected."""
        ...

    def heartbeats(self, queue_id: str) -> tuple[SeenHeartbeat, ...]:
        """Last heartbeat of each worker of a service that was heard in the last 10 minutes, sorted by worker."""
        ...

    def progress(self, job_uid: str) -> JobProgress | None:
        """A driver's last report, None when none was heard (since the operator's start)."""
        ...

    def shard_counts(self, job_uid: str) -> ShardCounts | None:
        """Last polled counts of a job's consumer, None when unknown."""
        ...


class QueueAdmin(Protocol):
    """The operator's writes to the queue. Each raises ``QueueUnavailableError`` when there is no connection."""

    async def ensure_job(self, queue_id: str, job_uid: str, *, lease_seconds: int, max_leased: int) -> bool:
        """Make the service's streams and the job's consumer, or adjust its settings; True when it wrote something."""
        ...

    async def delete_job(self, queue_id: str, job_uid: str) -> None:
        """Remove the job's consumer, shards, results and stored output. Idempotent."""
        ...

    async def take_output(self, job_uid: str) -> bytes | None:
        """A finished ConfigMap output, None when there is none (yet)."""
        ...

    async def sweep(self, live_queue_ids: frozenset[str], live_job_uids: frozenset[str]) -> int:
        """Remove streams and consumers whose owner is gone; returns how many. Call only with complete, fresh sets."""
        ...


class QueueUnavailableError(Exception):
    """There is no connection to the queue now."""
