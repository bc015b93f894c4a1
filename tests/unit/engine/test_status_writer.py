"""Status writes: facts at once, numbers at intervals, nothing when nothing changed."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.clock import FakeClock
from tests.support.kube import FakeKube, make_cache

from vllm_operator.engine.status_writer import StatusWriter, without_nulls
from vllm_operator.kube.errors import RetryableError
from vllm_operator.kube.kinds import Manifest, ObjectRef

REF = ObjectRef("LLMService", "ns", "chat")


class Bench:
    def __init__(self, status: dict[str, Any] | None = None) -> None:
        self.cache = make_cache()
        self.kube = FakeKube(self.cache)
        self.clock = FakeClock()
        manifest: Manifest = {
            "apiVersion": "inference.vllm-operator.io/v1alpha1",
            "kind": "LLMService",
            "metadata": {"name": "chat", "namespace": "ns"},
            "spec": {},
        }
        self.kube.seed({**manifest, **({"status": status} if status is not None else {})})
        self.writer = self.make()

    def make(self) -> StatusWriter:
        return StatusWriter(self.kube, self.clock, "vllm-operator-status", 5.0, self.cache)

    async def write(self, status: dict[str, Any], facts: object) -> float | None:
        live = self.cache.get(REF)
        assert live is not None
        return await self.writer.write(live, status, facts)

    @property
    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = self.kube.objects[REF]["status"]
        return found


async def test_first_status_is_written_at_once_and_then_nothing() -> None:
    bench = Bench()
    assert await bench.write({"phase": "A", "n": 1, "none": None}, "a") is None
    assert bench.status == {"phase": "A", "n": 1}
    bench.kube.reset_calls()
    for _ in range(3):
        assert await bench.write({"phase": "A", "n": 1, "none": None}, "a") is None
    assert bench.kube.calls == []


async def test_a_new_process_writes_nothing_when_the_object_has_it_already() -> None:
    bench = Bench(status={"phase": "A", "n": 1})
    assert await bench.write({"phase": "A", "n": 1}, "a") is None
    assert bench.kube.writes == []


async def test_numbers_wait_for_the_interval() -> None:
    bench = Bench()
    await bench.write({"n": 1}, "a")
    bench.clock.advance(2)
    assert await bench.write({"n": 2}, "a") == pytest.approx(3)
    assert bench.status == {"n": 1}
    bench.clock.advance(3)
    assert await bench.write({"n": 3}, "a") is None
    assert bench.status == {"n": 3}


async def test_facts_do_not_wait() -> None:
    bench = Bench()
    await bench.write({"n": 1}, "a")
    assert await bench.write({"n": 2}, "b") is None
    assert bench.status == {"n": 2}


async def test_a_dropped_field_goes() -> None:
    bench = Bench()
    await bench.write({"n": 1, "eta": 5}, "a")
    await bench.write({"n": 1}, "b")
    assert bench.status == {"n": 1}


async def test_what_others_own_in_the_status_is_left_and_no_reason_to_write() -> None:
    bench = Bench()
    await bench.write({"n": 1}, "a")
    bench.kube.edit(REF, lambda live: live["status"].update(activation={"requestedAt": "now"}))
    bench.kube.reset_calls()
    await bench.write({"n": 1}, "a")
    assert bench.kube.writes == []


async def test_a_status_that_somebody_changed_is_written_again() -> None:
    bench = Bench()
    await bench.write({"n": 1}, "a")
    bench.kube.set_status(REF, {"n": 7})
    bench.clock.advance(5)
    assert await bench.write({"n": 1}, "a") is None
    assert bench.status == {"n": 1}


async def test_what_the_server_prunes_is_not_written_for_ever() -> None:
    class Pruning(FakeKube):
        async def apply(self, manifest: Manifest, *, field_manager: str, subresource: str | None = None) -> Manifest:
            kept = {key: value for key, value in manifest["status"].items() if key != "unknown"}
            return await super().apply({**manifest, "status": kept}, field_manager=field_manager, subresource="status")

    bench = Bench()
    pruning = Pruning(bench.cache)
    pruning.seed(bench.kube.objects[REF])
    writer = StatusWriter(pruning, bench.clock, "m", 0.0, bench.cache)
    live = pruning.objects[REF]
    await writer.write(live, {"n": 1, "unknown": 2}, "a")
    pruning.reset_calls()
    await writer.write(pruning.objects[REF], {"n": 1, "unknown": 2}, "a")
    assert pruning.writes == []


async def test_a_failed_write_is_tried_again_at_once() -> None:
    bench = Bench()
    bench.kube.fail(RetryableError("timeout"), verb="apply")
    with pytest.raises(RetryableError):
        await bench.write({"n": 1}, "a")
    assert await bench.write({"n": 1}, "a") is None
    assert bench.status == {"n": 1}


async def test_an_object_that_is_gone_is_no_error() -> None:
    bench = Bench()
    live = bench.kube.objects[REF]
    bench.kube.remove(REF)
    assert await bench.writer.write(live, {"n": 1}, "a") is None


def test_nulls_go_at_every_depth() -> None:
    assert without_nulls({"a": None, "b": [{"c": None, "d": 0}], "e": {"f": None}}) == {"b": [{"d": 0}], "e": {}}
