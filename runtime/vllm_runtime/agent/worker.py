"""The agent's work: lease shards in fair turn, keep the leases, run rows, publish results."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Final

import structlog

from vllm_operator_api.queue import LeaseReport, RowError, RowRequest
from vllm_runtime.agent.concurrency import AdaptiveLimit
from vllm_runtime.agent.fairness import FairTurn
from vllm_runtime.agent.held import HeldShard
from vllm_runtime.agent.lease import Lease
from vllm_runtime.agent.results import Outcome, encode
from vllm_runtime.agent.rows import EngineLeavingError, RowRunner
from vllm_runtime.agent.suspects import ISOLATE_AFTER_DELIVERIES, Suspects
from vllm_runtime.agent.work_queue import Delivery, GoneError, QueueUnavailableError, WorkQueue

POLL_FIRST_SECONDS: Final = 0.05
POLL_MAX_SECONDS: Final = 5.0
"""Between looks into an empty queue the pause doubles up to this; a wake-up message ends it at once."""
DISCOVERY_SECONDS: Final = 0.5
"""Least time between two lists of the jobs."""
RETRY_SECONDS: Final = 0.5
"""Pause before a queue call is tried again while its lease lasts."""
DONE: Final = "done"
DONE_BEFORE: Final = "result was there already"

_log: Final = structlog.get_logger(__name__)


class Worker:
    """Holds up to ``slots`` shards. ``changed`` is called whenever its leases change."""

    def __init__(
        self,
        *,
        name: str,
        queue: WorkQueue,
        rows: RowRunner,
        limit: AdaptiveLimit,
        suspects: Suspects,
        slots: int,
        lease_seconds: float,
        changed: Callable[[], None],
        engine_leaving: Callable[[], None],
    ) -> None:
        self._name = name
        self._queue = queue
        self._rows = rows
        self._limit = limit
        self._suspects = suspects
        self._slots = slots
        self._lease_seconds = lease_seconds
        self._changed = changed
        self._engine_leaving = engine_leaving
        self._held: dict[str, HeldShard] = {}
        self._in_flight = 0
        self._alone = False
        """A row of an isolated shard is in flight."""
        self._turn = FairTurn()
        self._jobs: set[str] = set()
        """Jobs that may have a shard to lease."""
        self._discovered_at = float("-inf")
        self._open = False
        self._woken = asyncio.Event()
        """The queue may have work."""
        self._room = asyncio.Event()
        """There may be room for a further shard."""
        self._quiet = asyncio.Event()
        self._quiet.set()

    # What the process tells the worker

    def open(self) -> None:
        """Lease from now on: the engine is ready."""
        self._open = True
        self.wake()

    def close(self) -> None:
        """Lease nothing from now on; what is held goes on."""
        self._open = False

    def wake(self) -> None:
        """There may be new work."""
        self._woken.set()
        self._room.set()

    async def finish(self) -> None:
        """Wait until nothing is held."""
        await self._quiet.wait()

    async def give_all_back(self) -> None:
        """End all leases at once, their rows in flight too."""
        await asyncio.gather(*(self._give_back(held, "stopping") for held in list(self._held.values())))

    async def engine_died(self) -> None:
        """End all leases: the engine that ran their rows is gone."""
        self._suspects.engine_died()
        await asyncio.gather(*(self._give_back(held, "engine gone") for held in list(self._held.values())))

    def leases(self) -> list[LeaseReport]:
        """What is held now."""
        now = self._now()
        return [held.report(now) for held in self._held.values()]

    # Leasing

    async def run(self) -> None:
        """Lease for ever, whenever there is room."""
        pause = POLL_FIRST_SECONDS
        while True:
            self._room.clear()
            if not self._has_room():
                await _wait(self._room, POLL_MAX_SECONDS)
                continue
            self._woken.clear()
            if await self._leased() or await _wait(self._woken, pause):
                pause = POLL_FIRST_SECONDS
            else:
                pause = min(POLL_MAX_SECONDS, pause * 2)

    async def _leased(self) -> bool:
        try:
            return await self._lease_one()
        except QueueUnavailableError as error:
            _log.info("the queue does not answer", error=str(error))
            return False

    def _has_room(self) -> bool:
        """A further shard is leased only when its rows would be sent at once."""
        if not self._open or not self._queue.connected or len(self._held) >= self._slots:
            return False
        unsent = sum(held.unsent for held in self._held.values())
        isolated = any(held.isolated for held in self._held.values())
        return not isolated and unsent < self._limit.current - self._in_flight

    async def _lease_one(self) -> bool:
        if self._now() - self._discovered_at >= DISCOVERY_SECONDS:
            self._jobs = set(await self._queue.jobs())
            self._turn.keep_only(self._jobs)
            self._discovered_at = self._now()
        for job in self._turn.order(self._jobs):
            asked_at = self._now()
            try:
                delivery = await self._queue.lease(job)
            except GoneError:
                self._jobs.discard(job)
                continue
            if delivery is not None:
                self._turn.charge(job, len(delivery.shard.requests))
                self._hold(delivery, asked_at)
                return True
        return False

    def _hold(self, delivery: Delivery, asked_at: float) -> None:
        isolated = delivery.deliveries > ISOLATE_AFTER_DELIVERIES
        held = HeldShard(delivery, Lease(self._lease_seconds, asked_at), isolated=isolated)
        self._held[delivery.handle] = held
        self._quiet.clear()
        _log.debug("leased", **self._about(held), rows=held.unsent, deliveries=delivery.deliveries, isolated=isolated)
        self._start(held, self._keep(held))
        if held.complete:
            self._start(held, self._conclude(held))
        self._changed()
        self._dispatch()

    def _start(self, held: HeldShard, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        held.tasks.add(task)
        task.add_done_callback(lambda ended: self._ended(held, ended))
        return task

    def _ended(self, held: HeldShard, task: asyncio.Task[None]) -> None:
        held.tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("a shard failed; its lease will end", **self._about(held), exc_info=error)
            self._drop(held, "internal error")

    # Keeping leases

    async def _keep(self, held: HeldShard) -> None:
        """Renew until the shard is gone; drop it when the lease is lost or its job is gone."""
        lease = held.lease
        while not held.gone:
            await asyncio.sleep(max(0.0, lease.wake_at - self._now()))
            sent_at = self._now()
            if lease.expired(sent_at):
                self._drop(held, "lease lost")
            elif lease.renewal_due(sent_at):
                try:
                    await self._queue.renew(held.delivery, lease.renewal_timeout_seconds)
                    lease.renewed(sent_at)
                except GoneError:
                    self._drop(held, "job gone")
                except QueueUnavailableError as error:
                    lease.renewal_failed(self._now())
                    _log.warning("a lease was not renewed", **self._about(held), error=str(error))

    def _drop(self, held: HeldShard, why: str) -> None:
        """Forget a shard without a word to the queue, and abort its requests."""
        if held.gone:
            return
        held.gone = True
        self._held.pop(held.delivery.handle, None)
        current = asyncio.current_task()
        for task in held.tasks:
            if task is not current:
                task.cancel()
        if not self._held:
            self._quiet.set()
        level = logging.DEBUG if why in {DONE, DONE_BEFORE} else logging.INFO
        _log.log(level, "released", **self._about(held), why=why)
        self._changed()
        self.wake()

    async def _give_back(self, held: HeldShard, why: str) -> None:
        expired = held.gone or held.lease.expired(self._now())
        self._drop(held, why)
        if expired:
            return
        try:
            await self._queue.give_back(held.delivery)
        except QueueUnavailableError as error:
            _log.warning("a shard was not given back; its lease will end", **self._about(held), error=str(error))

    # Rows

    def _dispatch(self) -> None:
        """Send rows, of the oldest shard first, as long as the limit allows."""
        while self._in_flight < self._limit.current and not self._alone:
            held = next((held for held in self._held.values() if held.unsent), None)
            if held is None or (held.isolated and self._in_flight):
                return
            index, request = held.take()
            self._in_flight += 1
            self._alone = held.isolated
            # Not in the row's own code: a task that is cancelled before its first step runs none of it.
            self._start(held, self._run_row(held, index, request)).add_done_callback(self._row_ended)

    def _row_ended(self, _: asyncio.Task[None]) -> None:
        self._in_flight -= 1
        self._alone = False
        self._dispatch()
        self._room.set()

    async def _run_row(self, held: HeldShard, index: int, request: RowRequest) -> None:
        try:
            held.settle(index, await self._outcome(held, request))
            if held.complete:
                self._start(held, self._conclude(held))
        except EngineLeavingError as error:
            _log.warning("the engine is leaving", error=str(error)[:300])
            self._engine_leaving()
            await self._give_back(held, "engine leaving")

    async def _outcome(self, held: HeldShard, request: RowRequest) -> Outcome:
        endpoint, job = held.shard.endpoint, held.shard.job_uid
        if not held.isolated:
            return await self._rows.run(endpoint, request)
        if self._suspects.blamed(job, request.row):
            message = "the engine died each time it worked on this row alone"
            return Outcome(error=RowError(code="worker_crashed", message=message))
        self._suspects.sending(job, request.row)
        try:
            outcome = await self._rows.run(endpoint, request)
        except EngineLeavingError as error:
            if error.died:
                self._suspects.engine_died()
            else:
                self._suspects.answered()
            raise
        except asyncio.CancelledError:
            self._suspects.answered()
            raise
        self._suspects.answered()
        return outcome

    async def _conclude(self, held: HeldShard) -> None:
        """Store the result, then acknowledge: never the other way round, and nothing after the lease was lost."""
        shard = held.shard
        payload = await asyncio.to_thread(encode, shard, self._name, held.outcomes(), self._queue.max_result_bytes)
        first = False
        while not held.gone:
            try:
                first = await self._queue.publish_result(shard, payload)
                break
            except GoneError:
                await self._give_back(held, "results not wanted")
            except QueueUnavailableError as error:
                _log.warning("a result was not stored yet", **self._about(held), error=str(error))
                await asyncio.sleep(RETRY_SECONDS)
        while not held.gone:
            try:
                await self._queue.acknowledge(held.delivery)
                self._drop(held, DONE if first else DONE_BEFORE)
            except GoneError:
                self._drop(held, "job gone")
            except QueueUnavailableError as error:
                _log.warning("a result was not acknowledged yet", **self._about(held), error=str(error))
                await asyncio.sleep(RETRY_SECONDS)

    @staticmethod
    def _about(held: HeldShard) -> dict[str, object]:
        return {"job": held.shard.job_uid, "shard": held.shard.shard}

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()


async def _wait(event: asyncio.Event, seconds: float) -> bool:
    """Whether the event came within ``seconds``."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True
