"""Leader election: the decision as a table, and candidates against each other on a loop with its own time."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.support.kube import FakeKube

from vllm_operator.engine.lease import (
    Acquire,
    LeaderElector,
    LeaseTimes,
    Renew,
    Sighting,
    Verdict,
    Wait,
    evaluate,
    record_of,
    sight,
)
from vllm_operator.kube.errors import RetryableError
from vllm_operator.kube.kinds import Manifest, ObjectRef

REF = ObjectRef("Lease", "system", "vllm-operator")


class LoopClock:
    """The loop's time as clock."""

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self.monotonic())

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()


def lease(holder: str, renewed: str = "2026-01-01T00:00:00.000000Z", duration: int = 15) -> Manifest:
    spec = {"holderIdentity": holder, "renewTime": renewed, "leaseDurationSeconds": duration}
    return {"kind": "Lease", "metadata": {"name": REF.name, "namespace": REF.namespace}, "spec": spec}


def seen(manifest: Manifest, at: float) -> Sighting:
    return Sighting(record_of(manifest), at)


@pytest.mark.parametrize(
    ("manifest", "first_seen", "now", "want"),
    [
        (None, None, 0.0, Acquire()),
        (lease("me"), 0.0, 100.0, Renew()),
        (lease(""), 0.0, 0.0, Acquire()),
        (lease("other"), 0.0, 0.0, Wait("other", 15.0)),
        (lease("other"), 0.0, 14.0, Wait("other", 1.0)),
        (lease("other"), 0.0, 15.0, Acquire()),
        (lease("other", duration=60), 0.0, 15.0, Wait("other", 45.0)),
        (lease("other", renewed="1999-01-01T00:00:00Z"), 0.0, 1.0, Wait("other", 14.0)),
    ],
)
def test_evaluate(manifest: Manifest | None, first_seen: float | None, now: float, want: Verdict) -> None:
    sighting = seen(manifest, first_seen) if manifest is not None and first_seen is not None else None
    assert evaluate(manifest, "me", sighting, now) == want


def test_a_renewal_restarts_the_waiting_and_no_renewal_does_not() -> None:
    first = sight(lease("other", "t1"), None, 5.0)
    assert sight(lease("other", "t1"), first, 9.0) == first
    assert sight(lease("other", "t2"), first, 9.0).first_seen == 9.0


def elector(kube: FakeKube, me: str, times: LeaseTimes | None = None) -> LeaderElector:
    return LeaderElector(kube, LoopClock(), REF, me, times or LeaseTimes())


@pytest.mark.looptime
async def test_one_of_many_leads() -> None:
    kube = FakeKube()
    electors = [elector(kube, f"candidate-{number}") for number in range(5)]
    tasks = [asyncio.create_task(each.acquire()) for each in electors]
    await asyncio.sleep(60)
    # The one that acquired does not renew here, so the lease passes on every 15 s and more; never two at a time.
    holders = kube.objects[REF]["spec"]
    assert holders["leaseTransitions"] >= 1
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.looptime
async def test_a_standby_takes_over_after_the_leader_vanished_and_not_before() -> None:
    kube = FakeKube()
    first, second = elector(kube, "first"), elector(kube, "second")
    loop = asyncio.get_running_loop()
    await first.acquire()
    keeping = asyncio.create_task(first.keep())
    waiting = asyncio.create_task(second.acquire())
    await asyncio.sleep(300)
    assert (first.leading, second.leading, second.ready) == (True, False, True)
    keeping.cancel()
    vanished = loop.time()
    await waiting
    assert 13.0 <= loop.time() - vanished <= 19.0
    assert kube.objects[REF]["spec"]["holderIdentity"] == "second"
    assert kube.objects[REF]["spec"]["leaseTransitions"] == 1


@pytest.mark.looptime
async def test_released_lease_passes_on_at_once() -> None:
    kube = FakeKube()
    first, second = elector(kube, "first"), elector(kube, "second")
    await first.acquire()
    waiting = asyncio.create_task(second.acquire())
    await asyncio.sleep(5)
    begun = asyncio.get_running_loop().time()
    await first.release()
    await waiting
    assert asyncio.get_running_loop().time() - begun <= 2.0
    assert not first.leading


@pytest.mark.looptime
async def test_a_leader_without_an_answer_stops_before_another_can_begin() -> None:
    """Split brain: the first loses the API server, the second does not."""
    kube = FakeKube()
    cut: dict[str, bool] = {"first": False}

    class Link(FakeKube):
        def __init__(self) -> None:
            super().__init__()
            self.objects = kube.objects

        async def get(self, ref: ObjectRef) -> Manifest:
            self._check()
            return await kube.get(ref)

        async def replace(self, manifest: Manifest) -> Manifest:
            self._check()
            return await kube.replace(manifest)

        async def create(self, manifest: Manifest, *, dry_run: bool = False) -> Manifest:
            self._check()
            return await kube.create(manifest)

        def _check(self) -> None:
            if cut["first"]:
                raise RetryableError("no answer")

    first, second = elector(Link(), "first"), elector(kube, "second")
    loop = asyncio.get_running_loop()
    leading: dict[str, Any] = {}

    async def lead(name: str, candidate: LeaderElector) -> None:
        await candidate.acquire()
        leading[name] = [loop.time(), None]
        await candidate.keep()
        leading[name][1] = loop.time()

    tasks = [asyncio.create_task(lead("first", first))]
    await asyncio.sleep(10)
    tasks.append(asyncio.create_task(lead("second", second)))
    await asyncio.sleep(30)
    cut["first"] = True
    await asyncio.sleep(40)
    assert leading["first"][1] is not None
    assert leading["first"][1] < leading["second"][0]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.looptime
async def test_a_call_that_hangs_does_not_outlast_the_renew_deadline() -> None:
    kube = FakeKube()

    class Hanging(FakeKube):
        hangs = False

        async def get(self, ref: ObjectRef) -> Manifest:
            if self.hangs:
                await asyncio.sleep(3600)
            return await super().get(ref)

    kube = Hanging()
    candidate = elector(kube, "me")
    await candidate.acquire()
    kube.hangs = True
    begun = asyncio.get_running_loop().time()
    await candidate.keep()
    assert asyncio.get_running_loop().time() - begun <= 12.1
    assert not candidate.leading


@pytest.mark.looptime
async def test_a_lease_taken_by_another_ends_the_leading() -> None:
    kube = FakeKube()
    candidate = elector(kube, "me")
    await candidate.acquire()
    kube.edit(REF, lambda manifest: manifest["spec"].update(holderIdentity="other"))
    await candidate.keep()
    assert not candidate.leading
    await candidate.release()
    assert kube.objects[REF]["spec"]["holderIdentity"] == "other"


def test_proportions_of_other_durations() -> None:
    assert LeaseTimes.of_duration(15.0) == LeaseTimes(duration=15.0, renew_deadline=10.0, retry=2.0)
