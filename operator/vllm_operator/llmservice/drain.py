"""When a service goes to zero and when it comes back. Pure; the state lies on the pods and on the Deployment.

Awake -> fenced -> asleep -> awake. A request can leave a client after any observation, so nothing counts but what is
observed after the fence: first the pods leave routing, then each engine must tell, in a heartbeat taken at least the
quiet time after the fence, that it did nothing for the quiet time. Activity, work, or missing or old data lift the
fence: ignorance never puts a service to sleep.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from vllm_operator.llmservice.observe import EnginePod
from vllm_operator.queue.view import SeenHeartbeat

STALE_HEARTBEATS: Final = 3
"""A heartbeat is old after so many of its intervals (and some seconds of transport)."""
STALE_MARGIN_SECONDS: Final = 2.0
_LOOK_AGAIN_SECONDS: Final = 10.0
_DRAIN_LOOK_SECONDS: Final = 1.0
_CLOCK_SKEW: Final = timedelta(seconds=5)


class Wakefulness(StrEnum):
    """What the operator wants of a service."""

    AWAKE = "awake"
    DRAINING = "draining"
    ASLEEP = "asleep"


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainInputs:
    """Everything the decision depends on. Durations are seconds."""

    now: datetime
    operator_started_at: datetime
    """Fences from before count from here: this process has seen nothing of the time before."""
    min_replicas: int
    idle_after_seconds: float | None
    quiet_seconds: float
    heartbeat_seconds: float
    current_replicas: int | None
    """Of the Deployment; None: there is none yet."""
    pods: tuple[EnginePod, ...]
    """Those that are not being deleted."""
    heartbeats: Mapping[str, SeenHeartbeat]
    demand: bool
    """There is work for the service in the queue."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainDecision:
    """What to do now."""

    wakefulness: Wakefulness
    replicas: int
    fence: tuple[EnginePod, ...] = ()
    unfence: tuple[EnginePod, ...] = ()
    look_again_seconds: float | None = None
    because: str = ""
    """Why the service is not (yet) put to sleep. For people; has no number that changes by itself."""


@dataclass(frozen=True, slots=True)
class _Veto:
    because: str
    look_again_seconds: float | None = _LOOK_AGAIN_SECONDS


def stale_after_seconds(heartbeat_seconds: float) -> float:
    """Age from which a heartbeat says nothing any more."""
    return STALE_HEARTBEATS * heartbeat_seconds + STALE_MARGIN_SECONDS


def fenced_pods(pods: Iterable[EnginePod]) -> tuple[EnginePod, ...]:
    """Pods that are out of routing or marked so."""
    return tuple(pod for pod in pods if not pod.routable or pod.fenced_at is not None)


def decide(inputs: DrainInputs) -> DrainDecision:
    """The next step of the state machine, from observed state only: any process can take it over at any point."""
    wanted = max(1, inputs.min_replicas)
    if inputs.current_replicas is None:
        return DrainDecision(wakefulness=Wakefulness.AWAKE, replicas=wanted, because="it starts")
    if inputs.current_replicas == 0:
        return _asleep(inputs, wanted)
    veto = _veto(inputs)
    if veto is not None:
        return DrainDecision(
            wakefulness=Wakefulness.AWAKE,
            replicas=wanted,
            unfence=fenced_pods(inputs.pods),
            look_again_seconds=veto.look_again_seconds,
            because=veto.because,
        )
    return _drain(inputs, wanted)


def _asleep(inputs: DrainInputs, wanted: int) -> DrainDecision:
    if inputs.demand:
        return DrainDecision(wakefulness=Wakefulness.AWAKE, replicas=wanted, because="a job has work for it")
    if inputs.min_replicas > 0 or inputs.idle_after_seconds is None:
        return DrainDecision(wakefulness=Wakefulness.AWAKE, replicas=wanted, because="it is never to sleep")
    return DrainDecision(wakefulness=Wakefulness.ASLEEP, replicas=0)


def _drain(inputs: DrainInputs, wanted: int) -> DrainDecision:
    horizon = inputs.now + _CLOCK_SKEW
    to_fence = tuple(pod for pod in inputs.pods if pod.routable or pod.fenced_at is None or pod.fenced_at > horizon)
    quiet_from = max([inputs.operator_started_at, *(pod.fenced_at for pod in inputs.pods if pod.fenced_at is not None)])
    observed_from = quiet_from + timedelta(seconds=inputs.quiet_seconds)
    if not to_fence and all(_quiet_since(inputs, pod, observed_from) for pod in inputs.pods):
        return DrainDecision(wakefulness=Wakefulness.ASLEEP, replicas=0)
    return DrainDecision(
        wakefulness=Wakefulness.DRAINING,
        replicas=wanted,
        fence=to_fence,
        look_again_seconds=_DRAIN_LOOK_SECONDS,
        because="a last look before it sleeps",
    )


def _quiet_since(inputs: DrainInputs, pod: EnginePod, observed_from: datetime) -> bool:
    seen = inputs.heartbeats[pod.name]
    engine = seen.heartbeat.engine
    taken_at = inputs.now - timedelta(seconds=seen.age_seconds)
    return engine is not None and taken_at >= observed_from and engine.idle_seconds >= inputs.quiet_seconds


def _veto(inputs: DrainInputs) -> _Veto | None:
    """Why the service must stay awake and in routing, None when every engine is known to be idle for long enough."""
    if inputs.idle_after_seconds is None or inputs.min_replicas > 0:
        return _Veto("it is never to sleep", None)
    if inputs.demand:
        return _Veto("a job has work for it", None)
    if len(inputs.pods) != max(1, inputs.min_replicas):
        return _Veto("its pods are being changed")
    vetoes = [veto for pod in inputs.pods if (veto := _pod_veto(inputs, pod, inputs.idle_after_seconds)) is not None]
    return vetoes[0] if vetoes else None


def _pod_veto(inputs: DrainInputs, pod: EnginePod, idle_after_seconds: float) -> _Veto | None:
    if not pod.ready or pod.ready_since is None:
        return _Veto(f"{pod.name} is not ready", None)
    seen = inputs.heartbeats.get(pod.name)
    if seen is None or seen.heartbeat.pod_uid != pod.uid:
        return _Veto(f"no heartbeat of {pod.name} is known")
    if seen.age_seconds > stale_after_seconds(inputs.heartbeat_seconds):
        return _Veto(f"the last heartbeat of {pod.name} is old")
    engine = seen.heartbeat.engine
    if engine is None or not engine.ready:
        return _Veto(f"the engine of {pod.name} does not tell what it does")
    if seen.heartbeat.state != "running":
        return _Veto(f"the agent of {pod.name} is {seen.heartbeat.state}")
    if engine.in_flight > 0:
        return _Veto(f"{pod.name} works on requests")
    if seen.heartbeat.leases:
        return _Veto(f"{pod.name} holds leases")
    warm_seconds = (inputs.now - pod.ready_since).total_seconds()
    remaining = idle_after_seconds - min(engine.idle_seconds + seen.age_seconds, warm_seconds)
    if remaining > 0 or engine.idle_seconds < min(idle_after_seconds, inputs.quiet_seconds):
        return _Veto(f"{pod.name} was active less than idleAfter ago", max(remaining, _DRAIN_LOOK_SECONDS))
    return None
