"""Workers in the status: counts, order, and times that do not cause a write with every heartbeat."""

from __future__ import annotations

from datetime import timedelta

from tests.unit.llmservice.test_drain import LEASE, NOW, beat, pod

from vllm_operator.llmservice.facts import FactsState
from vllm_operator.llmservice.observe import EnginePod, Observed
from vllm_operator.llmservice.workers import last_activity_time, leases_status, workers_status
from vllm_operator.planner.inventory.pool import Inventory
from vllm_operator.queue.view import SeenHeartbeat
from vllm_operator_api.v1alpha1.llmservice_status import WorkersStatus


def observed(pods: tuple[EnginePod, ...], *seen: SeenHeartbeat) -> Observed:
    return Observed(
        workloads=(),
        pods=pods,
        facts=FactsState(),
        inventory=Inventory(),
        leader_worker_set=False,
        quota_left=None,
        demanding_jobs=(),
        heartbeats={one.heartbeat.worker: one for one in seen},
        queue_connected=True,
    )


def status_at(seconds: float, seen: SeenHeartbeat, previous: WorkersStatus | None = None) -> WorkersStatus:
    return workers_status(observed((pod(),), seen), previous, 5.0, NOW + timedelta(seconds=seconds))


def test_a_worker_at_rest_keeps_its_time() -> None:
    first = status_at(0, beat(age=1))
    assert status_at(300, beat(age=2), first) == first
    assert status_at(601, beat(age=1), first) != first


def test_a_busy_worker_moves_every_ten_seconds() -> None:
    first = status_at(0, beat(age=1, leases=[LEASE]))
    assert first.items[0].last_heartbeat_time == "2026-01-01T11:59:50Z"
    assert status_at(12, beat(age=1, leases=[LEASE]), first).items[0].last_heartbeat_time == "2026-01-01T12:00:10Z"


def test_a_silent_worker_is_stale_at_once() -> None:
    first = status_at(0, beat(age=1))
    later = status_at(40, beat(age=38), first)
    assert later.items[0].state == "stale"
    assert later.items[0].last_heartbeat_time == "2026-01-01T12:00:00Z"
    assert (later.ready, later.stale) == (0, 1)


def test_troubled_workers_come_first_and_the_list_is_bounded() -> None:
    pods = tuple(pod(f"p{index:02}", ready=index != 7) for index in range(20))
    seen = [beat(one.name, age=60 if one.name == "p09" else 1) for one in pods if one.ready]
    status = workers_status(observed(pods, *seen), None, 5.0, NOW)
    assert [item.name for item in status.items[:3]] == ["p09", "p07", "p00"]
    assert status.items[1].state == "starting"
    assert len(status.items) == 16
    assert (status.ready, status.stale) == (18, 1)


def test_last_activity_never_goes_back() -> None:
    seen = {"p1": beat(age=1, idle=100)}
    assert last_activity_time(seen, None, NOW) == "2026-01-01T11:58:10Z"
    assert last_activity_time(seen, "2026-01-01T11:59:00Z", NOW) == "2026-01-01T11:59:00Z"
    assert last_activity_time({}, "2026-01-01T11:59:00Z", NOW) == "2026-01-01T11:59:00Z"


def test_leases() -> None:
    status = leases_status({"p1": beat(leases=[LEASE, LEASE])})
    assert (status.active, status.oldest_seconds) == (2, 0)
