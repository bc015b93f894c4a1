"""Kubernetes Events on custom resources. For people; nothing depends on them."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import Any, Final, Literal

import structlog

from vllm_operator.engine.clock import Clock, SystemClock, rfc3339
from vllm_operator.kube.client import KubeClient
from vllm_operator.kube.errors import KubeError, NotFoundError
from vllm_operator.kube.kinds import Manifest, ObjectRef

EventType = Literal["Normal", "Warning"]

_MAX_MESSAGE_LENGTH: Final = 1024
"""Kubernetes' own limit for an Event's note."""
_MAX_REMEMBERED: Final = 1024
_log: Final = structlog.stdlib.get_logger(__name__)


class EventRecorder:
    """Records events; the same event again raises the count of the one that is there. Never raises."""

    def __init__(self, client: KubeClient, component: str, clock: Clock | None = None) -> None:
        self._client = client
        self._component = component
        self._clock = clock or SystemClock()
        self._recorded: OrderedDict[str, tuple[ObjectRef, int]] = OrderedDict()

    async def record(self, custom_resource: Manifest, event_type: EventType, reason: str, message: str) -> None:
        """One event on an object. Call it on transitions of conditions only; a failure is logged and forgotten."""
        message = message[:_MAX_MESSAGE_LENGTH]
        identity = "\n".join((custom_resource["metadata"]["uid"], event_type, reason, message))
        try:
            if not await self._count_up(identity):
                await self._create(custom_resource, event_type, reason, message, identity)
        except KubeError as error:
            _log.warning("event not recorded", reason=reason, error=error.message)

    async def _count_up(self, identity: str) -> bool:
        ref, count = self._recorded.pop(identity, (None, 0))
        if ref is None:
            return False
        try:
            await self._client.merge_patch(ref, {"count": count + 1, "lastTimestamp": rfc3339(self._clock.now())})
        except NotFoundError:
            return False  # the server keeps events for an hour
        self._remember(identity, ref, count + 1)
        return True

    async def _create(
        self, custom_resource: Manifest, event_type: EventType, reason: str, message: str, identity: str
    ) -> None:
        now = self._clock.now()
        metadata = custom_resource["metadata"]
        namespace = metadata.get("namespace") or "default"
        digest = hashlib.sha256(f"{identity}\n{now.isoformat()}".encode()).hexdigest()[:16]
        event: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"{metadata['name']}.{digest}", "namespace": namespace},
            "involvedObject": {
                "apiVersion": custom_resource["apiVersion"],
                "kind": custom_resource["kind"],
                "name": metadata["name"],
                "namespace": namespace,
                "uid": metadata["uid"],
                "resourceVersion": metadata.get("resourceVersion", ""),
            },
            "type": event_type,
            "reason": reason,
            "message": message,
            "count": 1,
            "firstTimestamp": rfc3339(now),
            "lastTimestamp": rfc3339(now),
            "source": {"component": self._component},
            "reportingComponent": self._component,
            "reportingInstance": "",
        }
        await self._client.create(event)
        self._remember(identity, ObjectRef.of(event), 1)

    def _remember(self, identity: str, ref: ObjectRef, count: int) -> None:
        self._recorded[identity] = (ref, count)
        if len(self._recorded) > _MAX_REMEMBERED:
            self._recorded.popitem(last=False)
