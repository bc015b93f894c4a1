"""What a reconciler needs of the machinery, as Protocols: tests give it others."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, Literal, Protocol

from vllm_operator.engine.plan import Outcome, Plan
from vllm_operator.kube.kinds import Manifest


class PlanExecutor(Protocol):
    """Carries a plan out (``engine.executor``)."""

    async def execute(self, plan: Plan, owner_uid: str) -> Outcome: ...


class StatusSink(Protocol):
    """Writes a status when needed (``engine.status_writer``)."""

    async def write(self, custom_resource: Manifest, status: dict[str, Any], facts: Hashable) -> float | None: ...


class EventSink(Protocol):
    """Records events (``engine.events``)."""

    async def record(
        self, custom_resource: Manifest, event_type: Literal["Normal", "Warning"], reason: str, message: str
    ) -> None: ...
