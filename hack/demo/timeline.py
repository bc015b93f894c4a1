"""Steps with their durations, as the demo prints them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Timeline:
    """Prints each step as it begins and ends, and a table of all at the end."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._steps: list[tuple[str, float]] = []

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Time what happens inside; a step that raises is printed as failed."""
        print(f"\n==> {title}", flush=True)
        begun = time.monotonic()
        try:
            yield
        except BaseException:
            print(f"    FAILED after {time.monotonic() - begun:.1f} s", flush=True)
            raise
        seconds = time.monotonic() - begun
        self._steps.append((title, seconds))
        print(f"    {seconds:.1f} s", flush=True)

    def summary(self) -> str:
        """All steps with their seconds, and the total."""
        width = max((len(title) for title, _ in self._steps), default=10)
        lines = [f"  {title:<{width}}  {seconds:7.1f} s" for title, seconds in self._steps]
        lines.append(f"  {'total':<{width}}  {time.monotonic() - self._started:7.1f} s")
        return "\n".join(lines)
