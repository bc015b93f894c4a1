"""Leader election by a ``coordination.k8s.io/Lease``: at most one operator writes.

As in client-go, a candidate does not compare the lease's timestamps with its own clock: it takes the lease when it has
not seen it change for the lease's duration on its own monotonic clock. A leader that cannot renew within the renew
deadline (shorter than the duration) stops before anybody else can begin.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, Final

import structlog

from vllm_operator.engine.clock import Clock, rfc3339_micro
from vllm_operator.kube.client import KubeClient
from vllm_operator.kube.errors import AlreadyExistsError, ConflictError, KubeError, NotFoundError
from vllm_operator.kube.kinds import LEASE, Manifest, ObjectRef

_log: Final = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseTimes:
    """Seconds; the defaults are controller-runtime's."""

    duration: float = 15.0
    renew_deadline: float = 10.0
    retry: float = 2.0

    @classmethod
    def of_duration(cls, duration: float) -> LeaseTimes:
        """The same proportions for another duration."""
        return cls(duration=duration, renew_deadline=duration * 2 / 3, retry=duration * 2 / 15)


@dataclass(frozen=True, slots=True)
class Acquire:
    """The lease is free: take it."""


@dataclass(frozen=True, slots=True)
class Renew:
    """The lease is ours."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Somebody else holds it, for at least so many seconds more."""

    holder: str
    seconds: float


Verdict = Acquire | Renew | Wait


@dataclass(frozen=True, slots=True)
class Sighting:
    """The holder's record (holder and renew time) as it was last seen changed, on the monotonic clock."""

    record: tuple[str, str, str]
    first_seen: float


def record_of(lease: Manifest) -> tuple[str, str, str]:
    """What a holder changes when it acquires or renews."""
    spec = lease.get("spec") or {}
    return str(spec.get("holderIdentity") or ""), str(spec.get("renewTime") or ""), str(spec.get("acquireTime") or "")


def sight(lease: Manifest, last: Sighting | None, now: float) -> Sighting:
    """The sighting after having read the lease at ``now``."""
    record = record_of(lease)
    return last if last is not None and last.record == record else Sighting(record, now)


def evaluate(lease: Manifest | None, me: str, sighting: Sighting | None, now: float) -> Verdict:
    """What to do about a lease (None: it does not exist), given since when its record has not changed."""
    if lease is None:
        return Acquire()
    holder = record_of(lease)[0]
    if holder == me:
        return Renew()
    if not holder:
        return Acquire()
    duration = float((lease.get("spec") or {}).get("leaseDurationSeconds") or 15)
    seen_for = now - sighting.first_seen if sighting is not None else 0.0
    return Acquire() if seen_for >= duration else Wait(holder, duration - seen_for)


class LeaderElector:
    """Takes and keeps one lease."""

    def __init__(self, client: KubeClient, clock: Clock, ref: ObjectRef, me: str, times: LeaseTimes) -> None:
        """``me`` must be unique among the candidates, also over restarts of one of them in place."""
        self._client = client
        self._clock = clock
        self._ref = ref
        self._me = me
        self._times = times
        self._sighting: Sighting | None = None
        self._lease: Manifest | None = None
        self._read_once = False
        self._leading = False

    @property
    def leading(self) -> bool:
        """Whether this candidate holds the lease, as far as it knows."""
        return self._leading

    @property
    def ready(self) -> bool:
        """Whether the API server has answered at least once: a standby that can take over."""
        return self._read_once

    async def acquire(self) -> None:
        """Return when the lease is ours. Errors of the API are logged and tried again."""
        holder = None
        while True:
            verdict: Verdict | None = None
            try:
                verdict = await self._try()
            except KubeError as error:
                _log.warning("lease not read or written", lease=str(self._ref), error=error.message)
            if self._leading:
                _log.info("leading", lease=str(self._ref), identity=self._me)
                return
            if isinstance(verdict, Wait) and verdict.holder != holder:
                holder = verdict.holder
                _log.info("standing by", lease=str(self._ref), leader=holder)
            await asyncio.sleep(self._times.retry)

    async def keep(self) -> None:
        """Renew until that has failed for the renew deadline or the lease is another's; then return: stop at once."""
        renewed = self._clock.monotonic()
        while True:
            await asyncio.sleep(self._times.retry)
            try:
                async with asyncio.timeout(max(0.1, renewed + self._times.renew_deadline - self._clock.monotonic())):
                    verdict = await self._try()
            except (KubeError, TimeoutError) as error:
                verdict = None
                _log.warning("lease not renewed", lease=str(self._ref), error=str(error) or type(error).__name__)
            if isinstance(verdict, Wait):
                self._leading = False
                _log.error("lease lost", lease=str(self._ref), leader=verdict.holder)
                return
            if isinstance(verdict, Renew | Acquire):
                renewed = self._clock.monotonic()
            elif self._clock.monotonic() - renewed >= self._times.renew_deadline:
                self._leading = False
                _log.error("lease lost", lease=str(self._ref), seconds_without_renewal=self._times.renew_deadline)
                return

    async def release(self) -> None:
        """Give the lease up, so that another takes over at once. Best effort, within two seconds."""
        if not self._leading:
            return
        self._leading = False
        try:
            async with asyncio.timeout(2.0):
                lease = await self._client.get(self._ref)
                if record_of(lease)[0] == self._me:
                    spec = {**lease["spec"], "holderIdentity": "", "leaseDurationSeconds": 1}
                    await self._client.replace({**lease, "spec": spec})
        except (KubeError, TimeoutError) as error:
            _log.warning("lease not released", lease=str(self._ref), error=str(error) or type(error).__name__)

    async def _try(self) -> Verdict | None:
        """One look at the lease and, where it is free or ours, one conditional write. None: somebody was faster."""
        lease = await self._read()
        now = self._clock.monotonic()
        if lease is not None:
            self._sighting = sight(lease, self._sighting, now)
        verdict = evaluate(lease, self._me, self._sighting, now)
        if isinstance(verdict, Wait):
            return verdict
        try:
            if lease is None:
                await self._client.create(self._manifest(None))
            else:
                await self._client.replace(self._manifest(lease))
        except (AlreadyExistsError, ConflictError, NotFoundError):
            return None
        self._leading = True
        return verdict

    async def _read(self) -> Manifest | None:
        try:
            lease: Manifest | None = await self._client.get(self._ref)
        except NotFoundError:
            lease = None
        self._read_once = True
        return lease

    def _manifest(self, lease: Manifest | None) -> Manifest:
        now = rfc3339_micro(self._clock.now())
        spec: dict[str, Any] = dict((lease or {}).get("spec") or {})
        if spec.get("holderIdentity") != self._me:
            spec["holderIdentity"] = self._me
            spec["acquireTime"] = now
            spec["leaseTransitions"] = int(spec.get("leaseTransitions") or 0) + (1 if lease is not None else 0)
        spec["renewTime"] = now
        spec["leaseDurationSeconds"] = max(1, round(self._times.duration))
        if lease is not None:
            return {**lease, "spec": spec}
        metadata = {"name": self._ref.name, "namespace": self._ref.namespace}
        return {"apiVersion": LEASE.api_version, "kind": LEASE.kind, "metadata": metadata, "spec": spec}
