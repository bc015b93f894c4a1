"""What an engine's answer means for a row: an answer, an error, another try, or an engine that is going away."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Final

import orjson

from vllm_operator_api.queue import RowError

MAX_MESSAGE_CHARACTERS: Final = 2000
MAX_ATTEMPTS: Final = 3
"""Attempts of a row whose request failed for no fault of its own."""
MAX_OVERLOAD_ATTEMPTS: Final = 60
"""Attempts of a row that the engine refused for load: with the backoff below some seven minutes. Batch work
can wait, and an error row says that the row is at fault."""
_FIRST_BACKOFF_SECONDS: Final = 0.25
_MAX_BACKOFF_SECONDS: Final = 10.0

OVERLOAD_STATUSES: Final = frozenset({429, 503})
_RETRY_STATUSES: Final = frozenset({408, 409})
_SHUTDOWN_MESSAGE: Final = "cannot schedule new futures after shutdown"
"""vLLM's 500 to new requests while it drains (measured on vLLM 0.32.0)."""
_DRAIN_TYPE: Final = "service_unavailable"
"""The type of our middleware's 503 while it drains."""
_ENGINE_DEAD: Final = ("EngineCore encountered an issue", "EngineDeadError")


class Verdict(Enum):
    """What to do with a row after an answer."""

    ANSWERED = auto()
    PERMANENT = auto()
    """The row's own fault: it becomes an error row."""
    RETRY = auto()
    OVERLOADED = auto()
    """Try again later, with less in flight."""
    LEAVING = auto()
    """The engine is shutting down or dead: give the whole shard back."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict, with the error that the row would get if this was the last attempt."""

    verdict: Verdict
    error: RowError | None = None


def judge(status: int, body: bytes) -> Judgement:
    """Judge an engine's HTTP answer."""
    if status == 200:
        answer = _parse(body)
        if isinstance(answer, dict):
            if _aborted(answer):
                return Judgement(Verdict.LEAVING, RowError(code="aborted", message="the engine aborted the request"))
            return Judgement(Verdict.ANSWERED)
        return Judgement(
            Verdict.RETRY,
            RowError(code="invalid_response", message="the engine's answer is not a JSON object", status=200),
        )
    error = _error_of(status, body)
    if _is_leaving(error, status):
        return Judgement(Verdict.LEAVING, error)
    if status in OVERLOAD_STATUSES:
        return Judgement(Verdict.OVERLOADED, error)
    if status >= 500 or status in _RETRY_STATUSES:
        return Judgement(Verdict.RETRY, error)
    return Judgement(Verdict.PERMANENT, error)


def _aborted(answer: dict[str, Any]) -> bool:
    """VLLM without a shutdown timeout answers 200 with a cut text and this finish reason."""
    choices = answer.get("choices")
    return isinstance(choices, list) and any(
        isinstance(choice, dict) and choice.get("finish_reason") == "abort" for choice in choices
    )


def _is_leaving(error: RowError, status: int) -> bool:
    if status == 503:
        return error.code == _DRAIN_TYPE
    return status == 500 and (_SHUTDOWN_MESSAGE in error.message or any(dead in error.message for dead in _ENGINE_DEAD))


def _parse(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return None


def _error_of(status: int, body: bytes) -> RowError:
    """Code and message from an OpenAI error body, which vLLM has nested or flat; else what the status says."""
    answer = _parse(body)
    detail = answer.get("error", answer) if isinstance(answer, dict) else None
    code, message = f"http_{status}", ""
    if isinstance(detail, dict):
        given = detail.get("code")
        code = given if isinstance(given, str) and given else str(detail.get("type") or code)
        message = str(detail.get("message") or detail.get("detail") or "")
    elif isinstance(detail, str):
        message = detail
    if not message:
        message = body[:200].decode(errors="replace") or f"the engine answered with status {status}"
    return RowError(code=code[:128], message=message[:MAX_MESSAGE_CHARACTERS], status=status)


def backoff_seconds(attempt: int, jitter: float) -> float:
    """Wait after the ``attempt``-th attempt (from 1); ``jitter`` (0 to 1) spreads rows that failed together."""
    longest = min(_MAX_BACKOFF_SECONDS, _FIRST_BACKOFF_SECONDS * 2.0 ** (attempt - 1))
    return longest * (0.5 + jitter / 2)
