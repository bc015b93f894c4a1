"""Work queue of keys: each key at most once in it, and never with two workers at the same time."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable
from typing import Final

from vllm_operator.kube.kinds import Key

MIN_BACKOFF_SECONDS: Final = 1.0
MAX_BACKOFF_SECONDS: Final = 60.0


class KeyedWorkQueue:
    """Keys to reconcile, as in controller-runtime: ``dirty`` are to be done, ``busy`` are being done.

    A key that is added while it is busy is done once more when its worker has finished, however often it was added.
    Its size is bounded by the number of keys. Belongs to one event loop.
    """

    def __init__(self, *, jitter: Callable[[], float] = random.random) -> None:
        """``jitter`` returns a number in [0, 1): a retry waits between half of its backoff and all of it."""
        self._jitter = jitter
        self._ready: deque[Key] = deque()
        self._dirty: dict[Key, float] = {}
        self._busy: set[Key] = set()
        self._timers: dict[Key, asyncio.TimerHandle] = {}
        self._failures: dict[Key, int] = {}
        self._getters: deque[asyncio.Future[None]] = deque()

    def __len__(self) -> int:
        """Keys that wait for a worker."""
        return len(self._dirty)

    @property
    def busy(self) -> frozenset[Key]:
        """Keys that a worker has."""
        return frozenset(self._busy)

    def add(self, key: Key) -> None:
        """This key needs work now."""
        if key in self._dirty:
            return
        self._dirty[key] = asyncio.get_running_loop().time()
        if key not in self._busy:
            self._offer(key)

    def add_after(self, key: Key, seconds: float) -> None:
        """This key needs work after so many seconds, or earlier if it was asked for earlier."""
        if seconds <= 0:
            self.add(key)
            return
        loop = asyncio.get_running_loop()
        timer = self._timers.get(key)
        when = loop.time() + seconds
        if timer is not None:
            if timer.when() <= when:
                return
            timer.cancel()
        self._timers[key] = loop.call_at(when, self._on_timer, key)

    def retry(self, key: Key) -> float:
        """This key's work failed: add it after its backoff, which doubles up to a minute. Returns the seconds."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        ceiling = min(MAX_BACKOFF_SECONDS, MIN_BACKOFF_SECONDS * (1 << min(failures, 16)))
        seconds = max(MIN_BACKOFF_SECONDS, ceiling * (0.5 + 0.5 * self._jitter()))
        self.add_after(key, seconds)
        return seconds

    def reset_backoff(self, key: Key) -> None:
        """This key's work succeeded."""
        self._failures.pop(key, None)

    def forget(self, key: Key) -> None:
        """This key is gone: no timer and no backoff of it stays."""
        self.reset_backoff(key)
        self._cancel_timer(key)

    async def get(self) -> tuple[Key, float]:
        """The next key and the seconds it has waited; the caller must call ``done`` with it."""
        loop = asyncio.get_running_loop()
        while not self._ready:
            getter: asyncio.Future[None] = loop.create_future()
            self._getters.append(getter)
            try:
                await getter
            except asyncio.CancelledError:
                if getter in self._getters:
                    self._getters.remove(getter)
                elif self._ready:
                    self._wake()
                raise
        key = self._ready.popleft()
        since = self._dirty.pop(key)
        self._busy.add(key)
        # What is done now covers what was to be done later; the work says anew when it wants to come again.
        self._cancel_timer(key)
        return key, loop.time() - since

    def done(self, key: Key) -> None:
        """The worker has finished with this key."""
        self._busy.discard(key)
        if key in self._dirty:
            self._offer(key)

    def close(self) -> None:
        """Cancel all timers."""
        for key in list(self._timers):
            self._cancel_timer(key)

    def _offer(self, key: Key) -> None:
        self._ready.append(key)
        self._wake()

    def _wake(self) -> None:
        while self._getters:
            getter = self._getters.popleft()
            if not getter.done():
                getter.set_result(None)
                return

    def _on_timer(self, key: Key) -> None:
        self._timers.pop(key, None)
        self.add(key)

    def _cancel_timer(self, key: Key) -> None:
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()
