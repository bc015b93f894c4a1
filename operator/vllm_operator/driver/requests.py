"""From a row to the request body that the engine gets, and from the engine's answer to the output row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import orjson

from vllm_operator.driver.rows import INVALID_ROW, ROW_TOO_LARGE, InvalidRow
from vllm_operator_api.queue import MAX_COUNT, MAX_ROW_BYTES, RowError, RowResult

CHAT: Final = "/v1/chat/completions"
EMBEDDINGS: Final = "/v1/embeddings"
INVALID_ANSWER: Final = "invalid_answer"

_ROLES: Final = frozenset({"system", "developer", "user", "assistant", "tool"})
_MAX_ERROR_MESSAGE: Final = 2048


@dataclass(frozen=True, slots=True)
class RequestTemplate:
    """What all requests of a job have in common."""

    endpoint: str
    model: str
    message_key: str
    system_prompt: str | None
    sampling: Mapping[str, float | int | list[str]]

    @property
    def overhead_bytes(self) -> int:
        """By how much a request may be longer than its row."""
        return 128 + len(orjson.dumps(self.system_prompt or "")) + len(orjson.dumps(dict(self.sampling)))


def build_request(
    template: RequestTemplate, row: Mapping[str, Any], line: int, row_bytes: int
) -> dict[str, Any] | InvalidRow:
    """The request body of a row, or why it cannot have one. ``line`` is for the message.

    ``row_bytes`` is the length of the row's text: a body is never longer than that and the template together.
    """
    if template.message_key not in row:
        return InvalidRow(INVALID_ROW, f"line {line}: no key {template.message_key!r}")
    value = row[template.message_key]
    if template.endpoint == EMBEDDINGS:
        if not isinstance(value, str):
            return _wrong(line, template.message_key, "must be a string")
        body: dict[str, Any] = {"model": template.model, "input": value, "encoding_format": "float"}
    else:
        messages = _messages(template, value, line)
        if isinstance(messages, InvalidRow):
            return messages
        body = {"model": template.model, "messages": messages, **template.sampling}
    if row_bytes + template.overhead_bytes > MAX_ROW_BYTES and len(orjson.dumps(body)) > MAX_ROW_BYTES:
        return InvalidRow(ROW_TOO_LARGE, f"line {line}: its request has more than {MAX_ROW_BYTES} bytes")
    return body


def _messages(template: RequestTemplate, value: Any, line: int) -> list[dict[str, Any]] | InvalidRow:
    key = template.message_key
    if isinstance(value, str):
        messages: list[dict[str, Any]] = [{"role": "user", "content": value}]
    elif isinstance(value, list) and value:
        for message in value:
            problem = _message_problem(message)
            if problem is not None:
                return _wrong(line, key, problem)
        messages = value
    else:
        return _wrong(line, key, "must be a string or a list of messages")
    if template.system_prompt is not None and messages[0]["role"] != "system":
        messages = [{"role": "system", "content": template.system_prompt}, *messages]
    return messages


def _message_problem(message: Any) -> str | None:
    """Text only: an engine would fetch the address of an image from inside the cluster."""
    role = message.get("role") if isinstance(message, dict) else None
    if not isinstance(role, str) or role not in _ROLES:
        return f"each message must be an object with a role of {', '.join(sorted(_ROLES))}"
    content = message.get("content")
    if content is None or isinstance(content, str):
        return None
    if isinstance(content, list) and all(
        isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str) for part in content
    ):
        return None
    return "a message's content must be a string or a list of text parts"


def _wrong(line: int, key: str, problem: str) -> InvalidRow:
    return InvalidRow(INVALID_ROW, f"line {line}: key {key!r}: {problem}")


@dataclass(frozen=True, slots=True)
class Answer:
    """A row's value under the result key."""

    value: Any
    prompt_tokens: int = 0
    completion_tokens: int = 0


def read_answer(endpoint: str, result: RowResult) -> Answer | RowError:
    """The part of the engine's answer that goes into the output."""
    if result.error is not None:
        return result.error
    body = result.body or {}
    try:
        if endpoint == EMBEDDINGS:
            value = body["data"][0]["embedding"]
            wanted: type = list
        else:
            value = body["choices"][0]["message"]["content"]
            value = "" if value is None else value
            wanted = str
        if not isinstance(value, wanted):
            raise TypeError(f"a {type(value).__name__} where a {wanted.__name__} is expected")
    except (KeyError, IndexError, TypeError) as error:
        return RowError(code=INVALID_ANSWER, message=f"the engine's answer is not one of {endpoint}: {error!r}")
    usage = body.get("usage")
    tokens = usage if isinstance(usage, dict) else {}
    return Answer(value, _count(tokens, "prompt_tokens"), _count(tokens, "completion_tokens"))


def _count(usage: Mapping[str, Any], key: Literal["prompt_tokens", "completion_tokens"]) -> int:
    value = usage.get(key)
    return value if isinstance(value, int) and 0 < value <= MAX_COUNT else 0


def error_key(result_key: str) -> str:
    """Key under which an error row says why."""
    return f"{result_key}_error"


def answer_line(content: bytes, result_key: str, value: Any) -> bytes:
    """The row's own text with the answer added, newline included. ``content`` is a valid JSON object."""
    return _extended(content, {result_key: value}, (result_key, error_key(result_key)))


def error_line(content: bytes | None, result_key: str, error: RowError) -> bytes:
    """The row's own text, if it has a usable one, with ``null`` for an answer and the error beside it."""
    described = error.model_dump(exclude_none=True)
    described["message"] = error.message[:_MAX_ERROR_MESSAGE]
    key = error_key(result_key)
    return _extended(content or b"{}", {result_key: None, key: described}, (result_key, key))


def _extended(content: bytes, fields: dict[str, Any], replaced: tuple[str, str]) -> bytes:
    """Append ``fields`` to an object as text: its keys, numbers and escapes stay as the user wrote them.

    Only a row that has one of the ``replaced`` keys already is taken apart.
    """
    if any(orjson.dumps(key) in content for key in replaced):
        row = orjson.loads(content)
        for key in replaced:
            row.pop(key, None)
        return orjson.dumps({**row, **fields}, option=orjson.OPT_APPEND_NEWLINE)
    tail = orjson.dumps(fields, option=orjson.OPT_APPEND_NEWLINE)[1:]
    head = content[:-1].rstrip()
    return head + tail if head == b"{" else head + b"," + tail
