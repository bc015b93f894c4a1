"""What engines say of their memory, against what was predicted of it. Pure.

A running engine's KV cache tells how much it took beside weights and cache, and an engine that died for want of memory
tells it too. Both are remembered in the status by the settings and the product they hold for, and the next plan counts
with them. A pod of an earlier plan, or on a node whose product is not known, proves nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from vllm_operator.llmservice.observe import EnginePod, Observed
from vllm_operator.planner.choice.words import gib, requests
from vllm_operator.planner.record import Placement, PlanRecord
from vllm_operator_api.quantities import BYTES_PER_GIB, BYTES_PER_MIB
from vllm_operator_api.queue import KvCacheReport
from vllm_operator_api.runtime import GpuOutOfMemory, LengthTooLong, NoCacheBlocks
from vllm_operator_api.v1alpha1.llmservice_status import CalibrationStatus, ObservedUse

MISMATCH_SHARE: Final = 0.10
"""Deviation of the requests of full length that a KV cache holds from which on the user is told."""
MAX_CALIBRATIONS: Final = 8
MAX_ESCALATIONS: Final = 2
"""Plans that are made anew per spec because engines found less memory than predicted: no endless loop of rollouts."""
_MAX_DEVIATION: Final = 999.0
_MAX_DIGITS: Final = 16
"""Of a number in the status."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenCache:
    """The KV cache of an engine of the plan in force, and where it runs."""

    report: KvCacheReport
    placement: Placement


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryFailure:
    """An engine of the plan in force that died for want of memory."""

    given_up: str
    """Calibration key of what it tried."""
    learned: CalibrationStatus | None
    """What it told of its memory, where that is a measurement."""


def seen_cache(record: PlanRecord, observed: Observed) -> SeenCache | None:
    """What the engines of this plan tell, of the one that has least; on the planned product if one runs there."""
    seen = []
    for pod in observed.live_pods:
        heartbeat = observed.heartbeats.get(pod.name)
        placement = _placement(record, pod)
        if placement is not None and heartbeat is not None and heartbeat.heartbeat.kv_cache is not None:
            seen.append(SeenCache(report=heartbeat.heartbeat.kv_cache, placement=placement))
    return min(seen, key=lambda each: (each.placement.product != record.planned_for, each.report.blocks), default=None)


def _placement(record: PlanRecord, pod: EnginePod) -> Placement | None:
    """Where a pod of this plan runs; None for pods of other plans, and where it cannot be told."""
    if pod.plan_key != record.key:
        return None
    if len(record.placements) == 1:
        return record.placements[0]
    return next((placement for placement in record.placements if placement.holds(pod.node_labels)), None)


def observed_use(record: PlanRecord, seen: SeenCache) -> ObservedUse:
    """What the engine tells, beside what was predicted."""
    report, copies = seen.report, record.layout.data
    cache_bytes = _cache_bytes(record, report)
    overhead = _overhead_bytes(record, seen)
    share = deviation(record, seen)
    return ObservedUse(
        kv_cache_tokens=None if report.tokens is None else report.tokens * copies,
        max_concurrency=None if report.max_concurrency is None else _short(requests(report.max_concurrency * copies)),
        kv_cache_gib=_short(gib(cache_bytes)) if cache_bytes else None,
        overhead_gib=None if overhead is None else _short(gib(overhead)),
        deviation=None if share is None else f"{min(share * 100, _MAX_DEVIATION):+.1f} %",
    )


def _short(number: str) -> str:
    return number if len(number) <= _MAX_DIGITS else number[:_MAX_DIGITS]


def deviation(record: PlanRecord, seen: SeenCache) -> float | None:
    """Observed over predicted tokens, less one; None when one of them is not known, or is of another product."""
    if not record.predicted_tokens or seen.report.tokens is None or seen.placement.product != record.planned_for:
        return None
    return seen.report.tokens * record.layout.data / record.predicted_tokens - 1


def mismatch(record: PlanRecord, seen: SeenCache) -> str | None:
    """For the user: both numbers, when they are more than a tenth apart."""
    share = deviation(record, seen)
    if share is None or abs(share) <= MISMATCH_SHARE:
        return None
    held = (seen.report.tokens or 0) * record.layout.data
    return (
        f"the engine's KV cache holds {held} tokens, {record.predicted_tokens} were predicted "
        f"({min(share * 100, _MAX_DEVIATION):+.1f} %); what it took is remembered, and the next plan of this service "
        "counts with it"
    )


def merged_calibration(
    before: Iterable[CalibrationStatus], learned: CalibrationStatus | None
) -> list[CalibrationStatus]:
    """The remembered use of memory with a new observation, the newest first. A known one stays where it is."""
    known = list(before)
    if learned is None or learned in known:
        return known
    return [learned, *(other for other in known if other.key != learned.key)][:MAX_CALIBRATIONS]


def observed_overheads(calibration: Iterable[CalibrationStatus]) -> Mapping[str, int]:
    """Bytes per GPU by key, as the planner takes them."""
    return {entry.key: entry.overhead_mib * BYTES_PER_MIB for entry in calibration}


def learned_of_running(record: PlanRecord, seen: SeenCache) -> CalibrationStatus | None:
    """What a running engine took beside weights and KV cache; None where its cache was given."""
    overhead = _overhead_bytes(record, seen)
    return None if overhead is None else _learned(seen.placement, overhead)


def memory_failure(record: PlanRecord, observed: Observed) -> MemoryFailure | None:
    """An engine of this plan that died for want of memory; None: none did, or the size of its KV cache is given."""
    for pod in observed.live_pods:
        placement = _placement(record, pod)
        if pod.ready or pod.last_exit is None or placement is None or not placement.room_bytes:
            continue
        told = pod.last_exit.told
        fault = None if told is None else told.fault
        if isinstance(fault, LengthTooLong):
            left = int(fault.available_gib * BYTES_PER_GIB)
            learned = _learned(placement, placement.room_bytes - left) if left <= placement.room_bytes else None
            return MemoryFailure(given_up=placement.calibration_key, learned=learned)
        if isinstance(fault, NoCacheBlocks | GpuOutOfMemory):
            return MemoryFailure(given_up=placement.calibration_key, learned=None)
    return None


def _learned(placement: Placement, overhead_bytes: int) -> CalibrationStatus:
    return CalibrationStatus(key=placement.calibration_key, overhead_mib=overhead_bytes // BYTES_PER_MIB)


def _cache_bytes(record: PlanRecord, report: KvCacheReport) -> int:
    return report.blocks // report.engines * record.kv_bytes_per_block


def _overhead_bytes(record: PlanRecord, seen: SeenCache) -> int | None:
    """None where the cache was given, or is larger than there is room for: then it is not what the engine sees."""
    cache_bytes, room_bytes = _cache_bytes(record, seen.report), seen.placement.room_bytes
    return room_bytes - cache_bytes if 0 < cache_bytes < room_bytes else None
