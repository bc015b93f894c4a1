"""A shard's result as one message: JSON, compressed, small enough for the queue."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import orjson
import zstandard

from vllm_operator_api.queue import RowError, Shard

COMPRESSION_LEVEL: Final = 1
"""Costs nothing measurable and halves the server's work (http_and_queue_bench.md C)."""
ENVELOPE_BYTES: Final = 4096
"""Room for headers and subject beside the payload."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One row's outcome: the engine's answer as it came, checked to be a JSON object, or why there is none."""

    body: bytes | None = None
    error: RowError | None = None


def encode(shard: Shard, worker: str, outcomes: list[Outcome], max_bytes: int) -> bytes:
    """Payload of ``ShardResult`` (zstd), of at most ``max_bytes``.

    A result that is too large gives up its largest answers, which become error rows ``result_too_large``.
    """
    rows = list(outcomes)
    payload = _compress(_document(shard, worker, rows))
    while len(payload) > max_bytes:
        sizes = sorted(((len(row.body), index) for index, row in enumerate(rows) if row.body is not None), reverse=True)
        if not sizes:
            raise ValueError(f"the errors of shard {shard.shard} alone are larger than {max_bytes} bytes")
        # The share of bodies that has to go, by uncompressed size, a little more than needed.
        goal = (len(payload) - max_bytes) * 1.1 / len(payload) * sum(size for size, _ in sizes)
        removed = 0
        for size, index in sizes:
            rows[index] = Outcome(error=_too_large(size))
            removed += size
            if removed >= goal:
                break
        payload = _compress(_document(shard, worker, rows))
    return payload


def _document(shard: Shard, worker: str, rows: list[Outcome]) -> bytes:
    return orjson.dumps({
        "version": 1,
        "job_uid": shard.job_uid,
        "shard": shard.shard,
        "worker": worker,
        "results": [_row(request.row, row) for request, row in zip(shard.requests, rows, strict=True)],
    })  # fmt: skip


def _row(row: int, outcome: Outcome) -> dict[str, Any]:
    if outcome.body is not None:
        return {"row": row, "body": orjson.Fragment(outcome.body)}
    error = outcome.error or RowError(code="internal", message="the row was not run")
    return {"row": row, "error": error.model_dump(mode="json")}


def _compress(document: bytes) -> bytes:
    return bytes(zstandard.ZstdCompressor(level=COMPRESSION_LEVEL).compress(document))


def _too_large(size: int) -> RowError:
    return RowError(
        code="result_too_large",
        message=f"the answer ({size} bytes) does not fit into one queue message with those of the rows beside it",
        status=200,
    )


def decompress(payload: bytes, max_bytes: int) -> bytes:
    """Undo zstd, of at most ``max_bytes``.

    Raises:
        ValueError: it is not zstd, or would be larger.
    """
    try:
        with zstandard.ZstdDecompressor().stream_reader(payload) as reader:
            content: bytes = reader.read(max_bytes + 1)
    except zstandard.ZstdError as error:
        raise ValueError(f"cannot be decompressed: {error}") from error
    if len(content) > max_bytes:
        raise ValueError(f"is larger than {max_bytes} bytes when decompressed")
    return content
