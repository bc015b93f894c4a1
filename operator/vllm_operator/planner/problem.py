"""Why a plan cannot be made, as a condition's reason and message."""

from __future__ import annotations

from dataclasses import dataclass

from vllm_operator.planner.layout import Layout
from vllm_operator_api.conditions import Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Considered:
    """One layout on one product that the planner looked at, for the user."""

    layout: Layout
    product: str
    fits: bool
    reason: str


@dataclass(frozen=True, slots=True)
class PlanProblem:
    """A fault that the user or the cluster's owner can mend. The message has the value, the rule and what to do."""

    reason: Reason
    message: str
    considered: tuple[Considered, ...] = ()
    legal_tensor: tuple[int, ...] = ()
