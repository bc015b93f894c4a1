"""Writes the status of custom resources: facts at once, numbers at intervals, nothing when nothing changed."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

from vllm_operator.engine.cache import ObjectCache
from vllm_operator.engine.clock import Clock
from vllm_operator.engine.containment import contains
from vllm_operator.kube.client import KubeClient
from vllm_operator.kube.errors import NotFoundError
from vllm_operator.kube.kinds import Manifest, ObjectRef


@dataclass(frozen=True, slots=True)
class _Written:
    facts: Hashable
    sent: dict[str, Any]
    stored: dict[str, Any]
    at: float


class StatusWriter:
    """The only writer of the status of the operator's custom resources.

    Remembers, per object, what it last sent and what the server made of it, until ``forget``.
    """

    def __init__(
        self,
        client: KubeClient,
        clock: Clock,
        field_manager: str,
        interval_seconds: float,
        cache: ObjectCache | None = None,
    ) -> None:
        """``cache`` gets the answers, so that the next reconcile sees its own status."""
        self._client = client
        self._clock = clock
        self._field_manager = field_manager
        self._interval_seconds = interval_seconds
        self._cache = cache
        self._written: dict[str, _Written] = {}

    async def write(self, custom_resource: Manifest, status: dict[str, Any], facts: Hashable) -> float | None:
        """Server-side apply the whole status if needed: at once when ``facts`` changed, else once an interval.

        Returns the seconds after which to come again because a change of numbers was held back, else None. An object
        that is gone meanwhile is no error.

        Raises:
            KubeError: the write failed.
        """
        metadata = custom_resource["metadata"]
        uid = str(metadata["uid"])
        wanted = without_nulls(status)
        last = self._written.get(uid)
        now = self._clock.monotonic()
        if last is None:
            if (custom_resource.get("status") or {}) == wanted:
                self._written[uid] = _Written(facts, wanted, wanted, now - self._interval_seconds)
                return None
        elif last.sent == wanted and self._still_stored(custom_resource, last):
            if last.facts != facts:
                self._written[uid] = _Written(facts, last.sent, last.stored, last.at)
            return None
        elif last.facts == facts:
            wait_seconds = last.at + self._interval_seconds - now
            if wait_seconds > 0:
                return wait_seconds
        await self._apply(custom_resource, uid, wanted, facts)
        return None

    def forget(self, uid: str) -> None:
        """The object is gone."""
        self._written.pop(uid, None)

    def _still_stored(self, custom_resource: Manifest, last: _Written) -> bool:
        """Whether nobody took away what was written. An object from before the write says nothing about that."""
        live = custom_resource
        if self._cache is not None:
            live = self._cache.get(ObjectRef.of(custom_resource)) or custom_resource
        return contains(live.get("status"), last.stored)

    async def _apply(self, custom_resource: Manifest, uid: str, wanted: dict[str, Any], facts: Hashable) -> None:
        metadata = custom_resource["metadata"]
        intent: Manifest = {
            "apiVersion": custom_resource["apiVersion"],
            "kind": custom_resource["kind"],
            # No precondition: the API server ignores the uid here. Should another object have the name by now, then its
            # own reconcile, which its creation has caused, overwrites this.
            "metadata": {"name": metadata["name"], "namespace": metadata.get("namespace") or ""},
            "status": wanted,
        }
        try:
            answer = await self._client.apply(intent, field_manager=self._field_manager, subresource="status")
        except NotFoundError:
            self.forget(uid)
            return
        stored = answer.get("status") or {}
        self._written[uid] = _Written(facts, wanted, {key: stored.get(key) for key in wanted}, self._clock.monotonic())
        if self._cache is not None:
            self._cache.put(answer)


def without_nulls(value: dict[str, Any]) -> dict[str, Any]:
    """The same without keys whose value is None, at every depth: an absent field and a null one mean the same."""
    cleaned: dict[str, Any] = _without_nulls(value)
    return cleaned


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_without_nulls(item) for item in value]
    return value
