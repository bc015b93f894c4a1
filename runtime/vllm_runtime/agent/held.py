"""A shard that this agent holds, and how far its rows are."""

from __future__ import annotations

import asyncio

from vllm_operator_api.queue import LeaseReport, RowRequest, Shard
from vllm_runtime.agent.lease import Lease
from vllm_runtime.agent.results import Outcome
from vllm_runtime.agent.work_queue import Delivery


class HeldShard:
    """Progress of one leased shard. Owned by the worker; nothing here does I/O."""

    def __init__(self, delivery: Delivery, lease: Lease, *, isolated: bool) -> None:
        self.delivery = delivery
        self.lease = lease
        self.isolated = isolated
        """Its rows run one at a time and alone in the engine."""
        self.gone = False
        """Lost or given back: no call for it may have any effect any more."""
        self.tasks: set[asyncio.Task[None]] = set()
        """Everything that runs for it, to be cancelled when it is gone."""
        self._outcomes: list[Outcome | None] = [None] * len(delivery.shard.requests)
        self._next = 0
        self._done = 0

    @property
    def shard(self) -> Shard:
        """The shard as the driver published it."""
        return self.delivery.shard

    @property
    def unsent(self) -> int:
        """Rows that no task has taken yet."""
        return len(self._outcomes) - self._next

    @property
    def complete(self) -> bool:
        """Whether every row has its outcome."""
        return self._done == len(self._outcomes)

    def take(self) -> tuple[int, RowRequest]:
        """The next row, by its index in the shard."""
        index = self._next
        self._next += 1
        return index, self.shard.requests[index]

    def settle(self, index: int, outcome: Outcome) -> None:
        """A row has its outcome."""
        if self._outcomes[index] is None:
            self._outcomes[index] = outcome
            self._done += 1

    def outcomes(self) -> list[Outcome]:
        """All outcomes in the shard's order; only when complete."""
        return [outcome for outcome in self._outcomes if outcome is not None]

    def report(self, now: float) -> LeaseReport:
        """For the heartbeat."""
        return LeaseReport(
            job_uid=self.shard.job_uid,
            shard=self.shard.shard,
            rows=len(self._outcomes),
            done=self._done,
            age_seconds=round(max(0.0, now - self.lease.taken_at), 1),
            renewed_seconds_ago=round(max(0.0, now - self.lease.renewed_at), 1),
        )
