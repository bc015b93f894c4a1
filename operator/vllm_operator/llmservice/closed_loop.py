"""What engines say of their memory, against what was predicted of it. Pure.

A running engine's KV cache tells how much it took beside weights and cache, and an engine that died for want of memory
tells it too. Both are remembered in the status by the settings they hold for, and the next plan counts with them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from vllm_operator.llmservice.observe import EnginePod, Observed
from vllm_operator.planner.choice.words import gib, requests
from vllm_operator.planner.record import PlanRecord
from vllm_operator_api.quantities import BYTES_PER_GIB, BYTES_PER_MIB
from vllm_operator_api.queue import KvCacheReport
from vllm_operator_api.runtime import EngineExit, GpuOutOfMemory, LengthTooLong, NoCacheBlocks
from vllm_operator_api.v1alpha1.llmservice_status import CalibrationStatus, ObservedUse, PlanStatus

MISMATCH_SHARE: Final = 0.10
"""Deviation of the requests of full length that a KV cache holds from which on the user is told."""
MAX_CALIBRATIONS: Final = 8
MAX_ESCALATIONS: Final = 2
"""Plans that are made anew per spec because engines found less memory than predicted: no endless loop of rollouts."""


def kv_cache_report(observed: Observed) -> KvCacheReport | None:
    """What the engines of the current plan tell of their KV cache, of the one that has least; None: nothing yet."""
    current = {pod.name for pod in observed.live_pods if of_current_plan(pod, observed)}
    reports = [
        seen.heartbeat.kv_cache
        for name, seen in sorted(observed.heartbeats.items())
        if name in current and seen.heartbeat.kv_cache is not None
    ]
    return min(reports, key=lambda report: report.blocks, default=None)


def of_current_plan(pod: EnginePod, observed: Observed) -> bool:
    """Whether the pod was made from the plan that is in force, and not from an earlier one."""
    record = None if observed.workload is None else observed.workload.record
    return record is not None and pod.plan_key == record.key


def observed_use(record: PlanRecord, plan: PlanStatus, report: KvCacheReport) -> ObservedUse:
    """What the engine tells, beside what was predicted."""
    copies = record.layout.data
    blocks = report.blocks // report.engines
    cache_bytes = blocks * record.kv_bytes_per_block
    overhead = _overhead_bytes(record, cache_bytes)
    share = deviation(plan, report, copies)
    return ObservedUse(
        kv_cache_tokens=None if report.tokens is None else report.tokens * copies,
        max_concurrency=None if report.max_concurrency is None else requests(report.max_concurrency * copies),
        kv_cache_gib=gib(cache_bytes) if cache_bytes else None,
        overhead_gib=None if overhead is None else gib(overhead),
        deviation=None if share is None else f"{share * 100:+.1f} %",
    )


def deviation(plan: PlanStatus, report: KvCacheReport, copies: int) -> float | None:
    """Observed over predicted requests of full length, less one; None when one of them is not known."""
    predicted = plan.predicted.kv_cache_tokens if plan.predicted is not None else None
    if not predicted or report.tokens is None:
        return None
    return report.tokens * copies / predicted - 1


def mismatch(plan: PlanStatus) -> str | None:
    """For the user: both numbers, when they are more than a tenth apart."""
    if plan.observed is None or plan.predicted is None or plan.observed.deviation is None:
        return None
    share = float(plan.observed.deviation.removesuffix(" %")) / 100
    if abs(share) <= MISMATCH_SHARE:
        return None
    return (
        f"the engine's KV cache holds {plan.observed.kv_cache_tokens} tokens, {plan.predicted.kv_cache_tokens} were "
        f"predicted ({plan.observed.deviation}); what it took is remembered, and the next plan of this service counts "
        "with it"
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


def learned_of_running(record: PlanRecord, report: KvCacheReport) -> CalibrationStatus | None:
    """What a running engine took beside weights and KV cache; None where its cache was given."""
    overhead = _overhead_bytes(record, report.blocks // report.engines * record.kv_bytes_per_block)
    return None if overhead is None else _learned(record, overhead)


def learned_of_failed(record: PlanRecord, observed: Observed) -> CalibrationStatus | None:
    """What an engine of this plan wanted beside the weights when it died for want of memory.

    None when none died so, or where the size of the KV cache is given.
    """
    if not record.room_bytes:
        return None
    for pod in observed.live_pods:
        if pod.ready or pod.last_exit is None or not of_current_plan(pod, observed):
            continue
        wanted = _wanted_bytes(record, pod.last_exit.message)
        if wanted is not None:
            return _learned(record, wanted)
    return None


def _learned(record: PlanRecord, overhead_bytes: int) -> CalibrationStatus:
    return CalibrationStatus(key=record.calibration_key, overhead_mib=max(0, overhead_bytes) // BYTES_PER_MIB)


def _wanted_bytes(record: PlanRecord, message: str) -> int | None:
    try:
        fault = EngineExit.model_validate_json(message).fault
    except ValueError:
        return None
    if isinstance(fault, LengthTooLong):
        return record.room_bytes - int(fault.available_gib * BYTES_PER_GIB)
    if isinstance(fault, NoCacheBlocks | GpuOutOfMemory):  # of the latter the engine's own count was wrong, too
        return record.room_bytes
    return None


def _overhead_bytes(record: PlanRecord, cache_bytes: int) -> int | None:
    if not record.room_bytes or not cache_bytes:
        return None
    return max(0, record.room_bytes - cache_bytes)
