"""Where the input is cut into shards: a pure function of the input's lines and the job's settings.

A driver that starts again at a shard's end cuts the rest as the one before it did.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from vllm_operator.driver.requests import EMBEDDINGS
from vllm_operator.driver.rows import INPUT_BEGIN, Line, Position
from vllm_operator_api.queue import MAX_SHARD_BYTES, MAX_SHARD_ROWS

MIN_SHARD_ROWS: Final = 10
SHARDS_PER_WORKER: Final = 8
"""At least so many for each worker, so that workers end together and a crash costs little."""
MAX_EMBEDDING_ROWS: Final = 64
"""An embedding of 4,096 numbers is some 90 KB of JSON: 64 of them fit into one message."""
MAX_RESULT_BYTES: Final = 6 * 1024 * 1024
BYTES_PER_TOKEN: Final = 4
RESULT_OVERHEAD_BYTES: Final = 2048
"""Of one chat answer beside its text."""
UNLIMITED_ANSWER_TOKENS: Final = 8192
"""What an answer without ``max_tokens`` is taken for here."""


@dataclass(frozen=True, slots=True)
class CutSettings:
    """How large a shard may be."""

    max_rows: int
    row_overhead_bytes: int
    max_bytes: int = MAX_SHARD_BYTES


@dataclass(frozen=True, slots=True)
class ShardPlan:
    """Consecutive rows of the input."""

    index: int
    first_row: int
    rows: int
    start: Position
    end: Position

    @property
    def next_row(self) -> int:
        """Index of the first row after it."""
        return self.first_row + self.rows


@dataclass(frozen=True, slots=True)
class CutStart:
    """Where to begin (again) to cut."""

    index: int = 0
    row: int = 0
    position: Position = INPUT_BEGIN


JOB_BEGIN: Final = CutStart()


def max_rows_per_shard(total_rows: int, workers: int, endpoint: str, max_tokens: int | None) -> int:
    """Rows of a full shard: enough shards for all workers, and answers that fit into one message."""
    if endpoint == EMBEDDINGS:
        ceiling = MAX_EMBEDDING_ROWS
    else:
        answer_bytes = (max_tokens or UNLIMITED_ANSWER_TOKENS) * BYTES_PER_TOKEN + RESULT_OVERHEAD_BYTES
        ceiling = max(1, min(MAX_SHARD_ROWS, MAX_RESULT_BYTES // answer_bytes))
    wanted = total_rows // (SHARDS_PER_WORKER * workers)
    return min(max(MIN_SHARD_ROWS, wanted), ceiling)


def cut(lines: Iterable[Line], settings: CutSettings, start: CutStart = JOB_BEGIN) -> Iterator[ShardPlan]:
    """The shards of these lines, which begin at ``start``: full by rows or by bytes, at least one row each."""
    index, first_row, begin = start.index, start.row, start.position
    rows = size = 0
    end = begin
    for line in lines:
        weight = settings.row_overhead_bytes + len(line.content or b"")
        if rows and (rows >= settings.max_rows or size + weight > settings.max_bytes):
            yield ShardPlan(index, first_row, rows, begin, end)
            index, first_row, begin = index + 1, first_row + rows, end
            rows = size = 0
        rows += 1
        size += weight
        end = Position(line.end, line.number)
    if rows:
        yield ShardPlan(index, first_row, rows, begin, end)
