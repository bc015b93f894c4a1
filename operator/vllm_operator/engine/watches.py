"""What is listed and watched, and the full lists that start the cache and prune it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import structlog

from vllm_operator.engine.cache import ObjectCache
from vllm_operator.kube.client import KubeClient
from vllm_operator.kube.errors import KubeError
from vllm_operator.kube.kinds import Kind, Manifest

_log: Final = structlog.stdlib.get_logger(__name__)
_MAX_BACKOFF_SECONDS: Final = 30.0
_SETTLE_SECONDS: Final = 3.0
"""Time for the watches of all kinds to begin anew before the list that makes up for the gap."""


@dataclass(frozen=True, slots=True)
class Watch:
    """One kind, narrowed by a label selector on the server (empty: all objects)."""

    kind: Kind
    label_selector: str = ""


class Lister:
    """Full lists of everything watched: a watch never reports what was deleted while it was interrupted."""

    def __init__(
        self,
        client: KubeClient,
        cache: ObjectCache,
        watches: Iterable[Watch],
        namespaces: tuple[str, ...],
        on_change: Callable[[str, Manifest], None],
    ) -> None:
        """``namespaces``: empty for all. ``on_change`` is called with ``MODIFIED`` or ``DELETED`` and the object."""
        self._client = client
        self._cache = cache
        self._watches = tuple(watches)
        self._namespaces = namespaces
        self._on_change = on_change
        self._requested = asyncio.Event()

    async def start(self) -> None:
        """List every kind once; tried again, with a backoff, until all have answered."""
        for watch in self._watches:
            delay = 1.0
            while True:
                try:
                    await self.relist(watch)
                    break
                except KubeError as error:
                    _log.warning("first list failed", kind=watch.kind.kind, error=error.message, retry_seconds=delay)
                    await asyncio.sleep(delay)
                    delay = min(_MAX_BACKOFF_SECONDS, delay * 2)

    def request(self) -> None:
        """List everything again soon: a watch began anew, and what was deleted in between is not reported by it."""
        self._requested.set()

    async def run(self, interval_seconds: float) -> None:
        """List everything again every interval (with jitter) and when requested, for ever.

        A failed list prunes nothing.
        """
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(interval_seconds * random.uniform(0.9, 1.1)):  # noqa: S311 -- spreads load
                    await self._requested.wait()
                    await asyncio.sleep(_SETTLE_SECONDS)
            self._requested.clear()
            for watch in self._watches:
                try:
                    await self.relist(watch)
                except KubeError as error:
                    _log.warning("list failed, nothing is pruned", kind=watch.kind.kind, error=error.message)

    async def relist(self, watch: Watch) -> None:
        """List one kind in all watched namespaces, put it into the cache and drop what is gone.

        Raises:
            KubeError: a list failed; the namespaces listed before it are taken.
        """
        kind = watch.kind
        namespaces: tuple[str | None, ...] = self._namespaces if kind.namespaced and self._namespaces else (None,)
        for namespace in namespaces:
            listed = await self._client.list(kind, namespace=namespace, label_selector=watch.label_selector or None)
            taken, gone = self._cache.replace(kind.kind, listed.items, listed.resource_version, namespace)
            for manifest in taken:
                self._on_change("MODIFIED", manifest)
            for manifest in gone:
                self._on_change("DELETED", manifest)
        self._cache.mark_listed(kind.kind)
