"""Events: one per transition, the same again is counted, failures do not matter."""

from __future__ import annotations

from tests.support.clock import FakeClock
from tests.support.kube import FakeKube

from vllm_operator.engine.events import EventRecorder
from vllm_operator.kube.errors import RetryableError, TerminalError
from vllm_operator.kube.kinds import Manifest

SERVICE: Manifest = {
    "apiVersion": "inference.vllm-operator.io/v1alpha1",
    "kind": "LLMService",
    "metadata": {"name": "chat", "namespace": "ns", "uid": "u", "resourceVersion": "5"},
}


async def test_an_event_names_its_object() -> None:
    kube = FakeKube()
    await EventRecorder(kube, "vllm-operator", FakeClock()).record(SERVICE, "Warning", "EngineFailed", "x" * 5000)
    (event,) = kube.of_kind("Event")
    assert event["involvedObject"]["uid"] == "u"
    assert event["metadata"]["namespace"] == "ns"
    assert event["metadata"]["name"].startswith("chat.")
    assert (event["type"], event["reason"], event["count"]) == ("Warning", "EngineFailed", 1)
    assert event["lastTimestamp"] == "2026-01-01T00:00:00Z"
    assert len(event["message"]) == 1024


async def test_the_same_event_again_is_counted() -> None:
    kube, clock = FakeKube(), FakeClock()
    recorder = EventRecorder(kube, "vllm-operator", clock)
    for _ in range(3):
        await recorder.record(SERVICE, "Normal", "Serving", "ready")
        clock.advance(60)
    await recorder.record(SERVICE, "Normal", "Serving", "other words")
    counts = sorted(event["count"] for event in kube.of_kind("Event"))
    assert counts == [1, 3]


async def test_an_event_that_expired_is_made_anew() -> None:
    kube, clock = FakeKube(), FakeClock()
    recorder = EventRecorder(kube, "vllm-operator", clock)
    await recorder.record(SERVICE, "Normal", "Serving", "ready")
    for ref in list(kube.objects):
        kube.remove(ref)
    clock.advance(7200)
    await recorder.record(SERVICE, "Normal", "Serving", "ready")
    assert [event["count"] for event in kube.of_kind("Event")] == [1]


async def test_failures_are_not_raised() -> None:
    kube = FakeKube()
    recorder = EventRecorder(kube, "vllm-operator", FakeClock())
    kube.fail(RetryableError("timeout"), verb="create")
    kube.fail(TerminalError("forbidden", status=403), verb="create")
    await recorder.record(SERVICE, "Normal", "Serving", "ready")
    await recorder.record(SERVICE, "Normal", "Serving", "ready")
    assert kube.of_kind("Event") == []
