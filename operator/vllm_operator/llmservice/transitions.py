"""Which changes of conditions are worth an event. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

from vllm_operator_api.conditions import ConditionStatus, LLMServiceCondition, Reason
from vllm_operator_api.meta import Condition

_TOLD: Final = (
    LLMServiceCondition.ACCEPTED,
    LLMServiceCondition.PLANNED,
    LLMServiceCondition.READY,
    LLMServiceCondition.DEGRADED,
)
_BAD_WHEN: Final = {
    LLMServiceCondition.ACCEPTED: ConditionStatus.FALSE,
    LLMServiceCondition.PLANNED: ConditionStatus.FALSE,
    LLMServiceCondition.DEGRADED: ConditionStatus.TRUE,
}
_READY_TROUBLE: Final = frozenset(
    {Reason.UNSCHEDULABLE, Reason.IMAGE_PULL_FAILED, Reason.ENGINE_FAILED, Reason.POD_REJECTED}
)
_READY_TOLD: Final = frozenset({Reason.SERVING, Reason.ASLEEP, Reason.WAKING, Reason.DRAINING}) | _READY_TROUBLE
"""States of a service that are news; those of its conditions Accepted and Planned are told there."""


@dataclass(frozen=True, slots=True)
class Transition:
    """An event to record."""

    event_type: Literal["Normal", "Warning"]
    reason: str
    message: str


def transitions(before: Iterable[Condition], after: Iterable[Condition]) -> tuple[Transition, ...]:
    """Events for the conditions whose status or reason changed."""
    known = {condition.type: (condition.status, condition.reason) for condition in before}
    return tuple(
        transition
        for condition in after
        if known.get(condition.type) != (condition.status, condition.reason)
        and (transition := _transition(condition, known=condition.type in known)) is not None
    )


def _transition(condition: Condition, *, known: bool) -> Transition | None:
    kind = LLMServiceCondition(condition.type)
    if kind not in _TOLD:
        return None
    if kind is LLMServiceCondition.READY:
        if condition.reason not in _READY_TOLD:
            return None
        warning = condition.reason in _READY_TROUBLE
        return Transition("Warning" if warning else "Normal", condition.reason, condition.message)
    if condition.status is _BAD_WHEN[kind]:
        return Transition("Warning", condition.reason, condition.message)
    if kind is LLMServiceCondition.PLANNED and condition.status is ConditionStatus.TRUE:
        return Transition("Normal", condition.reason, condition.message)
    if known and kind is LLMServiceCondition.DEGRADED:
        return Transition("Normal", condition.reason, condition.message)
    return None
