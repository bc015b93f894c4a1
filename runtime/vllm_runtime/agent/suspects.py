"""Rows that were with the engine when it died, kept over restarts of the container.

A shard that comes back again and again is run one row at a time. Each row is written down before it is sent and crossed
out when it is answered: what is found written down at the next start was with the engine when everything ended. After
two such ends a row becomes an error row, so that one row that kills the engine cannot hold up its job for ever.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import orjson

ISOLATE_AFTER_DELIVERIES: Final = 5
MAX_ENDS: Final = 2
"""Engine ends with a row alone in flight after which the row is to blame (one may be chance)."""
MAX_ENTRIES: Final = 1000


class Suspects:
    """The file of suspects (on the pod's temporary volume, which outlives the container but not the pod)."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._ends: dict[str, int] = {}
        self._sent: str | None = None

    def load(self) -> None:
        """Read the file; a row that was still written down gets one end more. An unreadable file counts as empty."""
        try:
            document = orjson.loads(self._path.read_bytes())
            self._ends = {str(key): int(value) for key, value in dict(document["ends"]).items()}
            sent = document["sent"]
        except (OSError, ValueError, KeyError, TypeError):
            return
        if isinstance(sent, str):
            self._ends[sent] = self._ends.get(sent, 0) + 1
            self._save()

    def blamed(self, job_uid: str, row: int) -> bool:
        """Whether the row is not to be sent any more."""
        return self._ends.get(f"{job_uid}.{row}", 0) >= MAX_ENDS

    def sending(self, job_uid: str, row: int) -> None:
        """The row is about to be alone with the engine."""
        self._sent = f"{job_uid}.{row}"
        self._save()

    def answered(self) -> None:
        """The row in flight ended, in whatever way, and the engine lives."""
        self._sent = None
        self._save()

    def engine_died(self) -> None:
        """The engine died under the row in flight (and this process lives)."""
        if self._sent is not None:
            self._ends[self._sent] = self._ends.get(self._sent, 0) + 1
            self._sent = None
            self._save()

    def _save(self) -> None:
        while len(self._ends) > MAX_ENTRIES:
            self._ends.pop(next(iter(self._ends)))
        temporary = self._path.with_suffix(".new")
        try:
            temporary.write_bytes(orjson.dumps({"ends": self._ends, "sent": self._sent}))
            temporary.replace(self._path)
        except OSError:
            return  # without a writable volume nothing is remembered, and nothing else is lost
