"""What a shard becomes: the message that agents lease, and the lines of the output."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, BinaryIO, Final

import orjson
import zstandard
from pydantic import ValidationError

from vllm_operator.driver.output import Totals
from vllm_operator.driver.requests import (
    INVALID_ANSWER,
    Answer,
    RequestTemplate,
    answer_line,
    build_request,
    error_line,
    read_answer,
)
from vllm_operator.driver.rows import InvalidRow, Line, parse_row, read_lines
from vllm_operator.driver.sharding import ShardPlan
from vllm_operator_api.queue import MAX_RESULT_DOCUMENT_BYTES, RowError, ShardResult

_ZSTD_LEVEL: Final = 1
_COMPRESS_FROM_BYTES: Final = 1024


class WrongResultError(Exception):
    """A result that is not the shard's: it is dropped and the shard is published again."""


@dataclass(frozen=True, slots=True)
class BuiltShard:
    """A shard and its message. Without expected rows (none is usable) it needs no agent and has no payload."""

    plan: ShardPlan
    expected_rows: tuple[int, ...]
    invalid: Mapping[int, InvalidRow]
    payload: bytes | None
    compressed: bool


def build_shard(file: BinaryIO, plan: ShardPlan, template: RequestTemplate, job_uid: str) -> BuiltShard:
    """Read the shard's rows and make its message."""
    requests: list[dict[str, Any]] = []
    rows: list[int] = []
    invalid: dict[int, InvalidRow] = {}
    for row, line in _rows(file, plan):
        fields = parse_row(line)
        size = len(line.content or b"")
        body = fields if isinstance(fields, InvalidRow) else build_request(template, fields, line.number, size)
        if isinstance(body, InvalidRow):
            invalid[row] = body
        else:
            requests.append({"row": row, "body": body})
            rows.append(row)
    expected_rows = tuple(rows)
    if not requests:
        return BuiltShard(plan, expected_rows, invalid, None, compressed=False)
    message = {
        "version": 1,
        "job_uid": job_uid,
        "shard": plan.index,
        "endpoint": template.endpoint,
        "requests": requests,
    }
    payload = orjson.dumps(message)
    if len(payload) < _COMPRESS_FROM_BYTES:
        return BuiltShard(plan, expected_rows, invalid, payload, compressed=False)
    packed = zstandard.ZstdCompressor(level=_ZSTD_LEVEL).compress(payload)
    return BuiltShard(plan, expected_rows, invalid, packed, compressed=True)


def read_result(payload: bytes, shard: BuiltShard, job_uid: str, *, compressed: bool) -> ShardResult:
    """The result in a message.

    Raises:
        WrongResultError: it is malformed, too large or another shard's, or its rows are not exactly the shard's.
    """
    try:
        content = _unpacked(payload) if compressed else payload
        result = ShardResult.model_validate_json(content)
    except (zstandard.ZstdError, ValidationError) as error:
        raise WrongResultError(f"malformed: {str(error)[:300]}") from error
    if result.job_uid != job_uid or result.shard != shard.plan.index:
        raise WrongResultError(f"it is for job {result.job_uid[:64]!r}, shard {result.shard}")
    rows = tuple(row.row for row in result.results)
    if rows != shard.expected_rows:
        raise WrongResultError(
            f"{len(rows)} rows where these {len(shard.expected_rows)} were asked for, or in another order"
        )
    if any((row.body is None) == (row.error is None) for row in result.results):
        raise WrongResultError("a row has both an answer and an error, or neither")
    return result


def render_shard(
    file: BinaryIO,
    shard: BuiltShard,
    result: ShardResult | None,
    template: RequestTemplate,
    result_key: str,
    before: Totals,
) -> tuple[bytes, Totals]:
    """The output's lines of a shard, one for each row of the input, and the totals with them."""
    plan = shard.plan
    answers = {row.row: row for row in result.results} if result is not None else {}
    lines: list[bytes] = []
    failed = prompt_tokens = completion_tokens = 0
    for row, line in _rows(file, plan):
        invalid = shard.invalid.get(row)
        if invalid is not None:
            failed += 1
            content = None if isinstance(parse_row(line), InvalidRow) else line.content
            lines.append(
                error_line(content, result_key, RowError(code=invalid.code, message=invalid.message, attempts=0))
            )
            continue
        answer = read_answer(template.endpoint, answers[row])
        assert line.content is not None
        if isinstance(answer, Answer):
            try:
                lines.append(answer_line(line.content, result_key, answer.value))
            except orjson.JSONEncodeError as error:  # a number beyond 64 bits
                answer = RowError(code=INVALID_ANSWER, message=f"the engine's answer cannot be written: {error}")
            else:
                prompt_tokens += answer.prompt_tokens
                completion_tokens += answer.completion_tokens
                continue
        failed += 1
        lines.append(error_line(line.content, result_key, answer))
    totals = replace(
        before,
        shards=plan.index + 1,
        rows=plan.next_row,
        input_offset=plan.end.offset,
        input_lines=plan.end.lines,
        failed_rows=before.failed_rows + failed,
        prompt_tokens=before.prompt_tokens + prompt_tokens,
        completion_tokens=before.completion_tokens + completion_tokens,
    )
    return b"".join(lines), totals


def _rows(file: BinaryIO, plan: ShardPlan) -> Iterator[tuple[int, Line]]:
    lines = read_lines(file, plan.start)
    for row in range(plan.first_row, plan.next_row):
        line = next(lines, None)
        if line is None:
            return
        yield row, line


def _unpacked(payload: bytes) -> bytes:
    size = zstandard.frame_content_size(payload)
    if size > MAX_RESULT_DOCUMENT_BYTES:
        raise WrongResultError(f"{size} bytes")
    unpacked: bytes = zstandard.ZstdDecompressor().decompress(payload, max_output_size=MAX_RESULT_DOCUMENT_BYTES)
    return unpacked
