"""A shard's result as one message: JSON, compressed, small enough for the queue."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import orjson
import zstandard

from vllm_operator_api.queue import MAX_RESULT_DOCUMENT_BYTES, RowError, Shard

COMPRESSION_LEVEL: Final = 1
"""Costs nothing measurable and halves the server's work (measured)."""
ENVELOPE_BYTES: Final = 4096
"""Room for headers and subject beside the payload."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One row's outcome: the engine's answer as it came, checked to be a JSON object, or why there is none."""

    body: bytes | None = None
    error: RowError | None = None


def encode(shard: Shard, worker: str, outcomes: list[Outcome], max_bytes: int) -> bytes:
    """Payload of ``ShardResult`` (zstd), of at most ``max_bytes``, and no larger unpacked than a driver takes.

    A result that is too large gives up its largest answers, which become error rows ``result_too_large``.
    """
    rows = list(outcomes)
    while True:
        document = _document(shard, worker, rows)
        size, limit = len(document), MAX_RESULT_DOCUMENT_BYTES
        if size <= limit:
            payload = _compress(document)
            size, limit = len(payload), max_bytes
            if size <= limit:
                return payload
        bodies = sorted(((len(row.body), at) for at, row in enumerate(rows) if row.body is not None), reverse=True)
        if not bodies:
            raise ValueError(f"the errors of shard {shard.shard} alone are larger than {limit} bytes")
        # The share of bodies that has to go, by uncompressed size, a little more than needed.
        goal = (size - limit) * 1.1 / size * sum(body for body, _ in bodies)
        removed = 0
        for body, at in bodies:
            rows[at] = Outcome(error=_too_large(body))
            removed += body
            if removed >= goal:
                break


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
