"""The agents of a service as its status shows them. Pure.

Times are coarse on purpose: a status that moved with every heartbeat would be written with every heartbeat.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final

from vllm_operator.engine.clock import parse_rfc3339, rfc3339
from vllm_operator.llmservice.drain import stale_after_seconds
from vllm_operator.llmservice.facts import parse_time
from vllm_operator.llmservice.observe import EnginePod, Observed
from vllm_operator.queue.view import SeenHeartbeat
from vllm_operator_api.v1alpha1.llmservice_status import LeasesStatus, WorkersStatus, WorkerStatus

MAX_WORKERS: Final = 16
_BUSY_STEP_SECONDS: Final = 10
_IDLE_STEP_SECONDS: Final = 600
"""A worker at rest gets a new time this often: what it would tell is that nothing happened. One that is not heard is
shown as stale at once, with the time of its last heartbeat."""
_HEARTBEAT_GRACE_SECONDS: Final = 60.0
"""Time a running engine container has until its agent's first heartbeat."""
_STALE: Final = "stale"
_STARTING: Final = "starting"


def workers_status(
    observed: Observed, previous: WorkersStatus | None, heartbeat_seconds: float, now: datetime
) -> WorkersStatus:
    """All workers counted, the troubled ones shown first."""
    before = {item.name: item for item in previous.items} if previous is not None else {}
    limit_seconds = stale_after_seconds(heartbeat_seconds)
    items = [
        _worker(pod, observed.heartbeats.get(pod.name), before.get(pod.name), limit_seconds, now)
        for pod in observed.live_pods
    ]
    ready_names = {pod.name for pod in observed.live_pods if pod.ready}
    ready = sum(item.name in ready_names and item.state not in (_STALE, None) for item in items)
    stale = sum(item.state == _STALE for item in items)
    items.sort(key=lambda item: (item.state != _STALE, item.name in ready_names, item.name))
    return WorkersStatus(ready=ready, stale=stale, items=items[:MAX_WORKERS])


def _worker(
    pod: EnginePod,
    seen: SeenHeartbeat | None,
    before: WorkerStatus | None,
    limit_seconds: float,
    now: datetime,
) -> WorkerStatus:
    if seen is None:
        heard_at = None if before is None else before.last_heartbeat_time  # by the operator's process before this one
        state = None if pod.ready else _STARTING
        return WorkerStatus(name=pod.name, node=pod.node, state=state, last_heartbeat_time=heard_at)
    heartbeat = seen.heartbeat
    state = _STALE if seen.age_seconds > limit_seconds else heartbeat.state
    busy = bool(heartbeat.leases) or (heartbeat.engine is not None and heartbeat.engine.in_flight > 0)
    heard_at = _coarse(now - timedelta(seconds=seen.age_seconds), _BUSY_STEP_SECONDS)
    if before is not None and not busy and state == before.state != _STALE:
        heard_at = _kept(before.last_heartbeat_time, heard_at)
    return WorkerStatus(
        name=pod.name,
        node=pod.node,
        state=state,
        in_flight=None if heartbeat.engine is None else heartbeat.engine.in_flight,
        leases=len(heartbeat.leases),
        last_heartbeat_time=heard_at,
    )


def _kept(before: str | None, heard_at: str) -> str:
    """The time that the status already has, while it is not too old."""
    shown = parse_time(before)
    if shown is None:
        return heard_at
    latest = parse_rfc3339(heard_at)
    return rfc3339(shown) if latest - timedelta(seconds=_IDLE_STEP_SECONDS) < shown <= latest else heard_at


def leases_status(heartbeats: Mapping[str, SeenHeartbeat]) -> LeasesStatus:
    """Shards that the agents hold, as of their last heartbeats."""
    leases = [lease for seen in heartbeats.values() for lease in seen.heartbeat.leases]
    oldest = max((lease.age_seconds for lease in leases), default=None)
    step = _BUSY_STEP_SECONDS
    return LeasesStatus(active=len(leases), oldest_seconds=None if oldest is None else int(oldest // step * step))


def last_activity_time(heartbeats: Mapping[str, SeenHeartbeat], previous: str | None, now: datetime) -> str | None:
    """When an engine last worked, to 10 s; never earlier than what the status already says."""
    moments = [
        _coarse(now - timedelta(seconds=seen.age_seconds + seen.heartbeat.engine.idle_seconds), _BUSY_STEP_SECONDS)
        for seen in heartbeats.values()
        if seen.heartbeat.engine is not None
    ]
    if previous is not None:
        moments.append(previous)
    return max(moments, default=None)


def missing_heartbeats(
    observed: Observed, heartbeat_seconds: float, listening_since: datetime, now: datetime
) -> tuple[str, ...]:
    """Pods whose engine container runs for long enough, but whose agent is not heard (any more)."""
    limit_seconds = stale_after_seconds(heartbeat_seconds)
    return tuple(
        pod.name for pod in observed.live_pods if _is_silent(pod, observed, limit_seconds, listening_since, now)
    )


def _is_silent(
    pod: EnginePod, observed: Observed, limit_seconds: float, listening_since: datetime, now: datetime
) -> bool:
    if not pod.running or pod.running_since is None:
        return False
    grace_seconds = max(limit_seconds, _HEARTBEAT_GRACE_SECONDS)
    if (now - max(pod.running_since, listening_since)).total_seconds() <= grace_seconds:
        return False
    seen = observed.heartbeats.get(pod.name)
    return seen is None or seen.age_seconds > grace_seconds


def _coarse(moment: datetime, step_seconds: int) -> str:
    seconds = int(moment.timestamp()) // step_seconds * step_seconds
    return rfc3339(datetime.fromtimestamp(seconds, tz=moment.tzinfo))
