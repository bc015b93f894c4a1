"""The state machine of going to zero: each step, and what holds for all inputs."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_operator.llmservice.drain import DrainDecision, DrainInputs, Wakefulness, decide, stale_after_seconds
from vllm_operator.llmservice.observe import EnginePod
from vllm_operator.queue.view import SeenHeartbeat
from vllm_operator_api.queue import EngineReport, Heartbeat, LeaseReport

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
LONG_AGO = NOW - timedelta(hours=1)
IDLE, QUIET, BEAT = 300.0, 8.0, 5.0


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def pod(name: str = "p1", **changes: Any) -> EnginePod:
    base: dict[str, Any] = {
        "name": name,
        "uid": f"uid-{name}",
        "node": "node-1",
        "ready": True,
        "ready_since": LONG_AGO,
        "routable": True,
        "fenced_at": None,
        "terminating": False,
    }
    return EnginePod(**{**base, **changes})


def fenced(seconds_ago: float, name: str = "p1") -> EnginePod:
    return pod(name, routable=False, fenced_at=ago(seconds_ago))


def beat(
    name: str = "p1", *, age: float = 1.0, idle: float = 1000.0, in_flight: int = 0, **changes: Any
) -> SeenHeartbeat:
    engine = EngineReport(ready=True, in_flight=in_flight, idle_seconds=idle, requests_total=3)
    base: dict[str, Any] = {
        "queue_id": "q", "worker": name, "pod_uid": f"uid-{name}", "node": "node-1", "state": "running", "slots": 4,
        "sequence": 1, "engine": engine, "leases": [],
    }  # fmt: skip
    return SeenHeartbeat(heartbeat=Heartbeat(**{**base, **changes}), age_seconds=age)


LEASE = LeaseReport(job_uid="j", shard=1, rows=2, done=0, age_seconds=1, renewed_seconds_ago=1)


def inputs(*pods: EnginePod, beats: tuple[SeenHeartbeat, ...] | None = None, **changes: Any) -> DrainInputs:
    seen = beats if beats is not None else tuple(beat(p.name) for p in pods)
    base: dict[str, Any] = {
        "now": NOW,
        "operator_started_at": LONG_AGO,
        "min_replicas": 0,
        "idle_after_seconds": IDLE,
        "quiet_seconds": QUIET,
        "heartbeat_seconds": BEAT,
        "current_replicas": 1,
        "pods": pods,
        "heartbeats": {one.heartbeat.worker: one for one in seen},
        "demand": False,
    }
    return DrainInputs(**{**base, **changes})


def test_starts_awake() -> None:
    assert decide(inputs(current_replicas=None)).replicas == 1
    assert decide(inputs(current_replicas=None, min_replicas=3)).replicas == 3


def test_idle_pods_are_fenced_first() -> None:
    decision = decide(inputs(pod()))
    assert decision.wakefulness is Wakefulness.DRAINING
    assert [one.name for one in decision.fence] == ["p1"]
    assert decision.replicas == 1


def test_commits_after_quiet_observation() -> None:
    decision = decide(inputs(fenced(20), beats=(beat(age=1),)))
    assert (decision.wakefulness, decision.replicas) == (Wakefulness.ASLEEP, 0)


@pytest.mark.parametrize(
    ("drained", "seen"),
    [
        (fenced(5), beat(age=0)),  # the window is not over
        (fenced(9), beat(age=2)),  # the heartbeat is of before its end
    ],
)
def test_waits_for_the_whole_window(drained: EnginePod, seen: SeenHeartbeat) -> None:
    decision = decide(inputs(drained, beats=(seen,)))
    assert decision.wakefulness is Wakefulness.DRAINING
    assert decision.fence == ()
    assert decision.look_again_seconds == 1.0


def test_another_process_takes_a_fresh_window() -> None:
    drained = fenced(600)
    assert decide(inputs(drained, operator_started_at=ago(5))).wakefulness is Wakefulness.DRAINING
    assert decide(inputs(drained, operator_started_at=ago(60))).wakefulness is Wakefulness.ASLEEP


@pytest.mark.parametrize("mark", [None, NOW + timedelta(hours=1)], ids=["lost", "of the future"])
def test_a_fence_without_a_usable_time_is_set_again(mark: datetime | None) -> None:
    decision = decide(inputs(pod(routable=False, fenced_at=mark)))
    assert [one.name for one in decision.fence] == ["p1"]


@pytest.mark.parametrize(
    ("changes", "because"),
    [
        ({"idle_after_seconds": None}, "it is never to sleep"),
        ({"min_replicas": 1}, "it is never to sleep"),
        ({"demand": True}, "a job has work for it"),
        ({"beats": ()}, "no heartbeat of p1 is known"),
        ({"beats": (beat(pod_uid="another"),)}, "no heartbeat of p1 is known"),
        ({"beats": (beat(age=stale_after_seconds(BEAT) + 1),)}, "the last heartbeat of p1 is old"),
        ({"beats": (beat(engine=None),)}, "does not tell what it does"),
        ({"beats": (beat(state="draining"),)}, "the agent of p1 is draining"),
        ({"beats": (beat(in_flight=1, idle=0),)}, "p1 works on requests"),
        ({"beats": (beat(leases=[LEASE]),)}, "p1 holds leases"),
        ({"beats": (beat(idle=10),)}, "active less than idleAfter ago"),
    ],
)
def test_vetoes_lift_the_fence(changes: dict[str, Any], because: str) -> None:
    decision = decide(inputs(fenced(60), **changes))
    assert decision.wakefulness is Wakefulness.AWAKE
    assert decision.replicas == 1
    assert [one.name for one in decision.unfence] == ["p1"]
    assert because in decision.because
    assert decide(inputs(pod(), **changes)).unfence == ()


def test_minimum_time_warm() -> None:
    assert decide(inputs(pod(ready_since=ago(100)))).wakefulness is Wakefulness.AWAKE
    assert decide(inputs(pod(ready_since=ago(100)))).look_again_seconds == 200
    assert decide(inputs(pod(ready_since=ago(301)))).wakefulness is Wakefulness.DRAINING


def test_every_pod_must_be_idle() -> None:
    both = (pod("p1"), pod("p2"))
    awake = decide(inputs(*both, beats=(beat("p1"),)))
    assert awake.wakefulness is Wakefulness.AWAKE


def test_pods_being_changed_are_left_alone() -> None:
    assert decide(inputs()).because == "its pods are being changed"
    assert decide(inputs(pod(ready=False, ready_since=None))).wakefulness is Wakefulness.AWAKE


@pytest.mark.parametrize(
    ("changes", "replicas"),
    [({}, 0), ({"demand": True}, 1), ({"min_replicas": 2}, 2), ({"idle_after_seconds": None}, 1)],
)
def test_what_wakes(changes: dict[str, Any], replicas: int) -> None:
    assert decide(inputs(current_replicas=0, **changes)).replicas == replicas


# ---- for all inputs

SECONDS = st.floats(0, 2000, allow_nan=False)
NAMES = ("p1",)


@st.composite
def pods(draw: st.DrawFn) -> EnginePod:
    return pod(
        ready=draw(st.booleans()),
        ready_since=draw(st.none() | SECONDS.map(ago)),
        routable=draw(st.booleans()),
        fenced_at=draw(st.none() | st.floats(-100, 2000).map(ago)),
    )


@st.composite
def beats(draw: st.DrawFn) -> SeenHeartbeat:
    in_flight = draw(st.sampled_from([0, 0, 0, 1]))
    report = EngineReport(ready=draw(st.booleans()), in_flight=in_flight, idle_seconds=draw(SECONDS), requests_total=0)
    return beat(
        age=draw(st.floats(0, 60)),
        engine=draw(st.sampled_from([report, report, None])),
        leases=draw(st.sampled_from([[], [], [LEASE]])),
        state=draw(st.sampled_from(["running", "running", "starting", "draining", "stopping"])),
        pod_uid=draw(st.sampled_from(["uid-p1", "uid-p1", "another"])),
    )


@st.composite
def any_inputs(draw: st.DrawFn) -> DrainInputs:
    return inputs(
        *draw(st.lists(pods(), max_size=1)),
        beats=tuple(draw(st.lists(beats(), max_size=1))),
        operator_started_at=ago(draw(SECONDS)),
        min_replicas=draw(st.integers(0, 2)),
        idle_after_seconds=draw(st.none() | st.sampled_from([1.0, 20.0, 300.0])),
        quiet_seconds=draw(st.sampled_from([1.0, 8.0])),
        demand=draw(st.booleans()),
    )


@given(any_inputs())
def test_never_sleeps_without_complete_and_fresh_data(given_inputs: DrainInputs) -> None:
    decision = decide(given_inputs)
    if decision.replicas > 0:
        return
    assert not given_inputs.demand
    assert given_inputs.min_replicas == 0
    assert given_inputs.idle_after_seconds is not None
    assert given_inputs.pods
    for one in given_inputs.pods:
        seen = given_inputs.heartbeats[one.name]
        engine = seen.heartbeat.engine
        assert one.ready
        assert not one.routable
        assert one.fenced_at is not None
        assert seen.age_seconds <= stale_after_seconds(BEAT)
        assert seen.heartbeat.pod_uid == one.uid
        assert engine is not None
        assert engine.in_flight == 0
        assert not seen.heartbeat.leases
        last_active_at = ago(seen.age_seconds + engine.idle_seconds)
        taken_at = ago(seen.age_seconds)
        quiet = timedelta(seconds=given_inputs.quiet_seconds)
        assert taken_at >= max(one.fenced_at, given_inputs.operator_started_at) + quiet
        assert last_active_at <= taken_at - quiet
        assert (NOW - last_active_at).total_seconds() >= given_inputs.idle_after_seconds - 1e-3


@given(any_inputs())
def test_one_step_leads_to_a_state_that_needs_no_further_patch(given_inputs: DrainInputs) -> None:
    after = carried_out(given_inputs, decide(given_inputs))
    again = decide(after)
    assert again.fence == ()
    assert again.unfence == () or after.current_replicas == 0


@given(any_inputs())
def test_an_idle_service_sleeps_in_the_end(given_inputs: DrainInputs) -> None:
    state = replace(
        given_inputs,
        demand=False,
        min_replicas=0,
        idle_after_seconds=300.0,
        pods=tuple(replace(one, ready=True, ready_since=LONG_AGO) for one in given_inputs.pods) or (pod(),),
    )
    for step in range(30):
        now = NOW + timedelta(seconds=10 * step)
        state = replace(state, now=now, heartbeats={"p1": beat(age=0.5, idle=1000.0 + 10 * step)})
        decision = decide(state)
        if decision.replicas == 0:
            return
        state = carried_out(state, decision)
    pytest.fail("it never slept")


def carried_out(before: DrainInputs, decision: DrainDecision) -> DrainInputs:
    """The inputs after the decision's patches."""
    changed = {
        **{one.name: replace(one, routable=False, fenced_at=before.now) for one in decision.fence},
        **{one.name: replace(one, routable=True, fenced_at=None) for one in decision.unfence},
    }
    return replace(
        before,
        pods=tuple(changed.get(one.name, one) for one in before.pods),
        current_replicas=decision.replicas,
    )
