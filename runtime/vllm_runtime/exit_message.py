"""Why the engine ended, in its own words, for the container's termination message."""

from __future__ import annotations

import re
import signal
from collections import deque
from collections.abc import Iterable
from typing import Final, Literal

from vllm_operator_api.runtime import MAX_TERMINATION_MESSAGE_BYTES, EngineExit
from vllm_runtime.engine_fault import fault_in

MAX_TAIL_BYTES: Final = 256 * 1024
"""Enough for the tracebacks of eight workers and of the server that follow each other at a failed start."""
MAX_LINE_BYTES: Final = 8 * 1024
MAX_DETAILS: Final = 64
"""Lines of one validation error."""

_PROCESS: Final = re.compile(r"^\([A-Za-z0-9_]+ pid=\d+\) ?")
_LOG: Final = re.compile(r"^(DEBUG|INFO|WARNING|ERROR|CRITICAL) \d\d-\d\d \d\d:\d\d:\d\d(?:\.\d+)? \[[^\]]*\] ?")
_EXCEPTION: Final = re.compile(r"^(?:[A-Za-z_][\w.]*\.)?([A-Za-z_]\w*(?:Error|Exception|Interrupt|Exit)?)(?:: (.*))?$")
_USAGE: Final = re.compile(r"^[\w.-]+: error: (.+)$")
_PYDANTIC_HEAD: Final = re.compile(r"^\d+ validation errors? for (\w+)$")
_PYDANTIC_DETAIL: Final = re.compile(r" \[type=\w+, input_value=.*\]?$")
_POINTERS: Final = ("See root cause above", "EngineCore encountered an issue", "WorkerProc initialization failed")
"""Errors that only point at another one."""
_ASSERTION: Final = re.compile(r"^ {4}assert (.+)$")
"""Source line of an assertion: where it has no message, the only thing that tells what was wrong."""
_PLAIN: Final = frozenset({"ValueError", "RuntimeError", "AssertionError", "Exception"})
"""Exception names that tell a user nothing."""


class OutputTail:
    """The last lines of a process's output, bounded. Fed by one thread; read when that has ended."""

    def __init__(self, max_bytes: int = MAX_TAIL_BYTES) -> None:
        self._max_bytes = max_bytes
        self._lines: deque[bytes] = deque()
        self._bytes = 0
        self._partial = b""

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes of output."""
        *lines, partial = (self._partial + chunk).split(b"\n")
        self._partial = partial[:MAX_LINE_BYTES]
        for line in lines:
            self._lines.append(line[:MAX_LINE_BYTES])
            self._bytes += min(len(line), MAX_LINE_BYTES)
        while self._bytes > self._max_bytes:
            self._bytes -= len(self._lines.popleft())

    def lines(self) -> list[str]:
        """The lines, oldest first."""
        whole = [*self._lines, self._partial] if self._partial else list(self._lines)
        return [line.decode(errors="replace").rstrip("\r") for line in whole]


def engine_error(lines: Iterable[str]) -> str | None:
    """The error that a user would want to read in vLLM's output; None when there is none.

    It is the last one that is about memory or parallelism (what follows it is other processes' end), else the last
    exception that does not merely point at another one, or argparse's error, or the last line that was logged as an
    error.
    """
    by_process: dict[str, list[tuple[int, str]]] = {}
    logged_error: str | None = None
    for position, line in enumerate(lines):
        process = _PROCESS.match(line)
        text = line[process.end() :] if process else line
        log = _LOG.match(text)
        text = text[log.end() :] if log else text
        if log and log[1] in {"ERROR", "CRITICAL"} and text.strip() and not text.startswith((" ", "Traceback")):
            logged_error = text.strip()
        by_process.setdefault(process[0] if process else "", []).append((position, text))
    # Workers write at the same time: each one's lines are read on their own.
    positioned = sorted(error for own in by_process.values() for error in _errors(own))
    found = [message for _, message in positioned]
    for error in reversed(found):
        if fault_in(error) is not None:
            return error
    telling = [error for error in found if not any(pointer in error for pointer in _POINTERS)]
    if telling:
        return telling[-1]
    return found[-1] if found else logged_error


def _errors(lines: list[tuple[int, str]]) -> list[tuple[int, str]]:
    """The messages of one process's tracebacks and usage errors, each with its position."""
    found: list[tuple[int, str]] = []
    in_traceback = False
    asserted = ""
    index = 0
    while index < len(lines):
        position, line = lines[index]
        index += 1
        if line.startswith("Traceback (most recent call last):"):
            in_traceback = True
            asserted = ""
        elif usage := _USAGE.match(line):
            found.append((position, usage[1]))
        elif in_traceback and line and not line.startswith(" "):
            in_traceback = False
            match = _EXCEPTION.match(line)
            if match is None:
                continue
            details: list[str] = []
            if _PYDANTIC_HEAD.match(match[2] or ""):
                while index < len(lines) and len(details) < MAX_DETAILS and _belongs_to_pydantic(lines[index][1]):
                    details.append(lines[index][1])
                    index += 1
            message = match[2] or (asserted if match[1] == "AssertionError" else "")
            found.append((position, _pydantic(details) if details else _plain(match[1], message)))
        elif in_traceback and (assertion := _ASSERTION.match(line)):
            asserted = f"assertion failed: {assertion[1]}"
    return found


def _belongs_to_pydantic(line: str) -> bool:
    """Indented lines are details; a bare word with dots or brackets is a field's path."""
    return line.startswith("  ") or re.match(r"^[A-Za-z_][\w.\[\]-]*$", line) is not None


def _plain(name: str, message: str) -> str:
    if not message:
        return name
    return message if name in _PLAIN else f"{name}: {message}"


def _pydantic(details: list[str]) -> str:
    """``field: what is wrong`` of each of a validation error's details."""
    found = []
    field = ""
    for line in details:
        if not line.startswith(" "):
            field = line.strip()
        elif not line.startswith("    For further information"):
            message = _PYDANTIC_DETAIL.sub("", line.strip())
            message = re.sub(r"^(Value|Assertion) error, ", "", message)
            found.append(f"{field}: {message}" if field else message)
            field = ""
    return "; ".join(found)


def describe_end(exit_code: int) -> str:
    """A sentence for an end without any error in the output. Negative codes are signals, as in ``subprocess``."""
    if exit_code == -signal.SIGKILL:
        return "the engine was killed (SIGKILL), most often because the container ran out of memory"
    if exit_code < 0:
        names = {number.value: number.name for number in signal.Signals}  # most real-time signals have none
        return f"the engine was ended by {names.get(-exit_code, f'signal {-exit_code}')}"
    return f"the engine ended by itself with code {exit_code} and without an error message"


def container_exit_code(exit_code: int) -> int:
    """The container's code for an engine that ended unexpectedly: never 0; 128 + signal as a shell gives it."""
    if exit_code < 0:
        return 128 - exit_code
    return exit_code or 1


def engine_exit(stage: Literal["start", "serve"], exit_code: int, lines: Iterable[str]) -> EngineExit:
    """The document for an engine that ended with ``exit_code`` (negative: a signal)."""
    message = engine_error(lines)
    ended = describe_end(exit_code)
    if message is None:
        message = ended
    elif exit_code < 0:
        message = f"{ended}; its last error: {message}"
    return EngineExit(stage=stage, exit_code=container_exit_code(exit_code), message=message, fault=fault_in(message))


def render(document: EngineExit) -> bytes:
    """JSON of at most 4096 bytes: the kubelet cuts off the rest."""
    message = document.message
    while True:
        content = document.model_copy(update={"message": message}).model_dump_json().encode()
        excess = len(content) - MAX_TERMINATION_MESSAGE_BYTES
        if excess <= 0:
            return content
        message = message[: max(0, len(message) - max(excess // 4, 1) - 1)].rstrip("… ") + "…"
