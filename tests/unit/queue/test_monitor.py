"""The operator's view: what it keeps of heartbeats and reports, what it drops, and whom it tells."""

from __future__ import annotations

import asyncio
import json

import pytest
from tests.support.clock import FakeClock

from vllm_operator.queue import monitor as monitor_module
from vllm_operator.queue.connection import QueueConnection
from vllm_operator.queue.monitor import QueueMonitor
from vllm_operator_api.queue import (
    EngineReport,
    Heartbeat,
    JobProgress,
    KvCacheReport,
    LeaseReport,
    heartbeat_subject,
    progress_subject,
)


class Watched:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.services: list[str] = []
        self.jobs: list[str] = []
        self.monitor = QueueMonitor(
            QueueConnection("nats://127.0.0.1:1", "", "test"),
            on_service_changed=self.services.append,
            on_job_changed=self.jobs.append,
            clock=self.clock,
        )

    def beat(self, worker: str = "pod-0", queue_id: str = "q", **changes: object) -> None:
        heartbeat = Heartbeat.model_validate(
            {
                "queue_id": queue_id,
                "worker": worker,
                "pod_uid": "p",
                "node": "n",
                "state": "running",
                "slots": 4,
                "sequence": 1,
                **changes,
            }
        )
        self.monitor.observe_heartbeat(heartbeat_subject(queue_id, worker), heartbeat.model_dump_json().encode())


@pytest.fixture
def watched() -> Watched:
    return Watched()


def test_the_last_heartbeat_of_each_worker(watched: Watched) -> None:
    watched.beat("pod-1")
    watched.clock.advance(3)
    watched.beat("pod-0", sequence=7)
    seen = watched.monitor.heartbeats("q")
    assert [(s.heartbeat.worker, s.age_seconds) for s in seen] == [("pod-0", 0.0), ("pod-1", 3.0)]
    assert watched.monitor.heartbeats("other") == ()
    watched.clock.advance(598)
    assert [s.heartbeat.worker for s in watched.monitor.heartbeats("q")] == ["pod-0"]


def test_facts_are_told_and_numbers_are_not(watched: Watched) -> None:
    lease = LeaseReport(job_uid="job", shard=1, rows=5, done=0, age_seconds=1, renewed_seconds_ago=0)
    engine = EngineReport(ready=True, in_flight=1, idle_seconds=0, requests_total=5)
    watched.beat()
    assert watched.services == ["q"]
    watched.beat(sequence=2)
    assert watched.services == ["q"]
    watched.beat(engine=engine)
    watched.beat(engine=engine, leases=[lease])
    assert (len(watched.services), watched.jobs) == (3, ["job"])
    watched.beat(engine=engine, leases=[lease.model_copy(update={"done": 4, "age_seconds": 9})])
    assert (len(watched.services), watched.jobs) == (3, ["job"])
    watched.beat(engine=engine)
    assert (len(watched.services), watched.jobs) == (4, ["job", "job"])


def test_the_size_of_an_engines_kv_cache_is_told_once(watched: Watched) -> None:
    report = KvCacheReport(blocks=100, block_tokens=16, tokens=1600, max_concurrency=3.1)
    for beat in ({}, {"kv_cache": report}, {"kv_cache": report}):
        watched.beat(**beat)
    assert len(watched.services) == 2
    assert watched.monitor.heartbeats("q")[0].heartbeat.kv_cache == report
    watched.beat(kv_cache=report.model_copy(update={"tokens": 1500}))
    assert len(watched.services) == 3


@pytest.mark.parametrize(
    ("subject", "payload"),
    [
        ("hb.q.pod-0", b"{}"),
        ("hb.q.pod-0", b"not json"),
        ("hb.q.pod-0", b" " * 9000),
        ("hb.q.pod-1", None),
        ("hb.other.pod-0", None),
        (
            "hb.q.pod-0",
            b'{"queue_id":"q","worker":"*","pod_uid":"p","node":"n","state":"running","slots":1,"sequence":1}',
        ),
        (
            "hb.q.pod-0",
            b'{"queue_id":"q","worker":"pod-0","pod_uid":"p","node":"n","state":"odd","slots":1,"sequence":1}',
        ),
    ],
)
def test_malformed_and_forged_heartbeats_are_dropped(watched: Watched, subject: str, payload: bytes | None) -> None:
    good = Heartbeat(queue_id="q", worker="pod-0", pod_uid="p", node="n", state="running", slots=1, sequence=1)
    watched.monitor.observe_heartbeat(subject, payload or good.model_dump_json().encode())
    assert watched.services == []
    assert watched.monitor.heartbeats("q") == ()


def test_progress(watched: Watched) -> None:
    report = JobProgress(job_uid="job", phase="Running", rows_total=3)
    for _ in range(2):
        watched.monitor.observe_progress(progress_subject("job"), report.model_dump_json().encode())
    watched.monitor.observe_progress(progress_subject("another"), report.model_dump_json().encode())
    assert watched.monitor.progress("job") == report
    assert watched.monitor.progress("another") is None
    assert watched.jobs == ["job"]
    watched.monitor.forget_job("job")
    assert watched.monitor.progress("job") is None


def test_the_maps_are_bounded(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitor_module, "MAX_WORKERS", 3)
    monkeypatch.setattr(monitor_module, "MAX_JOBS", 3)
    for number in range(10):
        watched.beat(f"pod-{number}")
        report = JobProgress(job_uid=f"job-{number}", phase="Running")
        watched.monitor.observe_progress(progress_subject(report.job_uid), report.model_dump_json().encode())
        watched.monitor.track_job("q", f"job-{number}")
    assert [s.heartbeat.worker for s in watched.monitor.heartbeats("q")] == ["pod-7", "pod-8", "pod-9"]
    assert [watched.monitor.progress(f"job-{n}") is not None for n in (0, 6, 7, 9)] == [False, False, True, True]


def test_not_connected_says_why(watched: Watched) -> None:
    assert not watched.monitor.connected
    assert watched.monitor.problem == "not connected yet"


async def test_a_connection_that_comes_or_goes_is_told_once() -> None:
    connection = QueueConnection("nats://127.0.0.1:1", "", "test")
    told = asyncio.Event()
    calls: list[bool] = []

    def on_change() -> None:
        calls.append(monitor.connected)
        told.set()

    class Switched(QueueMonitor):
        up = True

        @property
        def connected(self) -> bool:
            return self.up

    monitor = Switched(connection, on_connection_changed=on_change, poll_seconds=0.01)
    await monitor.start()
    try:
        for up in (True, False):
            monitor.up = up
            told.clear()
            async with asyncio.timeout(5):
                await told.wait()
    finally:
        await monitor.stop()
    assert calls == [True, False]


@pytest.mark.parametrize(
    "nonsense", [{"rows_total": -1}, {"rows_completed": 10**13}, {"output_sha256": "x" * 65}, {"prompt_tokens": -7}]
)
def test_reports_that_no_status_can_hold_are_dropped(watched: Watched, nonsense: dict[str, object]) -> None:
    report = {"job_uid": "job", "phase": "Running", **nonsense}
    watched.monitor.observe_progress(progress_subject("job"), json.dumps(report).encode())
    assert watched.monitor.progress("job") is None
