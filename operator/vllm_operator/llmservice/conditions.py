"""Conditions of one LLMService, with the rules of their transitions. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from vllm_operator.engine.clock import rfc3339
from vllm_operator_api.conditions import ConditionStatus, LLMServiceCondition, Reason
from vllm_operator_api.meta import MAX_CONDITION_MESSAGE_LENGTH, Condition


@dataclass(frozen=True, slots=True)
class ConditionState:
    """A condition without its times."""

    type: LLMServiceCondition
    status: ConditionStatus
    reason: Reason
    message: str = ""


def merge_conditions(
    previous: Iterable[Condition], states: Iterable[ConditionState], generation: int, now: datetime
) -> list[Condition]:
    """The states as conditions: the time of transition changes when the status does, and only then."""
    before = {condition.type: condition for condition in previous}
    return [_merge(before.get(state.type), state, generation, now) for state in states]


def _merge(before: Condition | None, state: ConditionState, generation: int, now: datetime) -> Condition:
    unchanged = before is not None and before.status == state.status
    return Condition(
        type=state.type.value,
        status=state.status,
        reason=state.reason.value,
        message=state.message[:MAX_CONDITION_MESSAGE_LENGTH],
        observed_generation=generation,
        last_transition_time=before.last_transition_time if before is not None and unchanged else rfc3339(now),
    )


def find_condition(conditions: Iterable[Condition], condition_type: LLMServiceCondition) -> Condition | None:
    """The condition of this type."""
    return next((condition for condition in conditions if condition.type == condition_type.value), None)
