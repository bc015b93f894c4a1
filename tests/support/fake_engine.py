"""An HTTP server that takes vLLM's command line and behaves as vLLM 0.32 does, without a model.

Run it as a process where a test needs an engine: ``python -m tests.support.fake_engine --model tiny --port 8000``, or
by path with the repository's root in ``PYTHONPATH``. What it copies was measured on the real one:

- Options are those of vLLM's own parser (``planner/data/vllm-0.32.0.json``); an unknown one ends it with argparse's
  usage error and code 2, a ``--max-model-len`` above 131072 with a traceback and vLLM's message.
- The port is bound but does not listen while it "loads"; then ``/health`` answers 200 at once.
- The first SIGTERM during the load is swallowed, the second ends it.
- SIGTERM later: with ``--shutdown-timeout 0`` requests in flight end with ``finish_reason: abort``; with more, they
  complete, ``/health`` stays 200 and new ones get 500 "cannot schedule new futures after shutdown".
- ``--middleware`` classes wrap the application in order, the last one outermost.
- ``/metrics`` has ``vllm:cache_config_info``, one sample per data-parallel rank.
- With ``--headless`` (a follower of an engine that spans nodes) there is no server; it runs until SIGTERM.

Answers are functions of the request: a chat answers ``echo: <last user message>``, an embedding is the unit vector of
the text's hash (``embedding_of``). A token is a word. The last user message may be an order: ``!sleep SECONDS``,
``!status CODE``, ``!crash``, ``!hang``.

Environment, all optional: ``VLLM_FAKE_LOAD_SECONDS``, ``VLLM_FAKE_LATENCY_SECONDS`` (of each request),
``VLLM_FAKE_START_ERROR`` (a ValueError with this text at start), ``VLLM_FAKE_KV_BLOCKS`` (KV blocks of each rank; 0: no
such metric), ``VLLM_FAKE_CRASH_AFTER_REQUESTS`` (SIGKILLs itself when that many have been answered) and
``VLLM_FAKE_REQUEST_LOG`` (a file that gets one JSON line for each request that was answered with 200).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import importlib
import json
import math
import os
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import uvicorn
from tests.support.asgi import Receive, Scope, Send, disconnected, lifespan, read_body, respond, respond_json, stream

OPTIONS_FILE = Path(__file__).parents[2] / "operator/vllm_operator/planner/data/vllm-0.32.0.json"
LONGEST_MODEL_LENGTH = 131_072
EMBEDDING_SIZE = 8
DEFAULT_MAX_MODEL_LENGTH = 2048
DEFAULT_MAX_TOKENS = 1024
DEFAULT_KV_BLOCKS = 1000
BLOCK_TOKENS = 16


def embedding_of(text: str) -> list[float]:
    """The embedding that the engine gives for ``text``: a unit vector from its hash."""
    raw = [byte - 127.5 for byte in hashlib.sha256(text.encode()).digest()[:EMBEDDING_SIZE]]
    norm = math.sqrt(sum(value * value for value in raw))
    return [round(value / norm, 6) for value in raw]


def answer_to(last_user_message: str) -> str:
    """The chat answer to a conversation that ends with ``last_user_message``."""
    return f"echo: {last_user_message}"


class RefusedError(Exception):
    """A request that is answered with an OpenAI error body."""

    def __init__(self, status: int, kind: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"message": message, "type": kind, "param": None, "code": status}}


def parse_arguments(argv: list[str]) -> argparse.Namespace:
    """Parse vLLM's command line with the options of its own parser."""
    parser = argparse.ArgumentParser(prog="api_server.py", usage="api_server.py [model_tag] [options]")
    for option in json.loads(OPTIONS_FILE.read_text())["options"]:
        flags = [flag for flag in option["flags"] if flag not in {"-h", "--help"}]
        if not flags:
            continue
        kwargs: dict[str, Any] = {}
        if not option["takesValue"]:
            kwargs["action"] = argparse.BooleanOptionalAction if flags[-1].startswith("--no-") else "store_true"
            if flags[-1].startswith("--no-"):
                flags = [flag for flag in flags if not flag.startswith("--no-")]
        else:
            kwargs["action"] = "append" if option["repeatable"] else "store"
            if option["nargs"] is not None:
                kwargs["nargs"] = int(option["nargs"]) if option["nargs"].isdigit() else option["nargs"]
            if option["choices"]:
                kwargs["choices"] = option["choices"]
            if option["type"] in {"int", "float"}:
                kwargs["type"] = int if option["type"] == "int" else float
        parser.add_argument(*flags, **kwargs)
    return parser.parse_args(argv)


class Engine:
    """The state of the fake engine and its ASGI application."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.names: list[str] = arguments.served_model_name or [arguments.model or "model"]
        self.max_length = int(arguments.max_model_len or DEFAULT_MAX_MODEL_LENGTH)
        self.kv_blocks = int(os.environ.get("VLLM_FAKE_KV_BLOCKS", DEFAULT_KV_BLOCKS))
        self.ranks = int(arguments.data_parallel_size or 1)
        self.slots = asyncio.Semaphore(arguments.max_num_seqs or 256)
        self.latency_seconds = float(os.environ.get("VLLM_FAKE_LATENCY_SECONDS", "0"))
        self.crash_after = int(os.environ.get("VLLM_FAKE_CRASH_AFTER_REQUESTS", "0"))
        self.request_log = os.environ.get("VLLM_FAKE_REQUEST_LOG")
        self.in_flight = 0
        self.answered = 0
        self.draining = False
        self.aborted = asyncio.Event()
        self.engine_killed = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await lifespan(receive, send)
            return
        if scope["type"] != "http":
            return
        await self._http(scope, receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        route = (scope["method"], scope["path"])
        if route in {("GET", "/health"), ("GET", "/ping"), ("POST", "/ping")}:
            await respond(send, 200, b"")
        elif route == ("GET", "/version"):
            await respond_json(send, 200, {"version": "0.32.0"})
        elif route == ("GET", "/load"):
            await respond_json(send, 200, {"server_load": 0})
        elif route == ("GET", "/v1/models"):
            models = [{"id": name, "object": "model", "max_model_len": self.max_length} for name in self.names]
            await respond_json(send, 200, {"object": "list", "data": models})
        elif route == ("GET", "/metrics"):
            text = f'vllm:num_requests_running{{engine="0",model_name="{self.names[0]}"}} {self.in_flight}\n'
            await respond(send, 200, (self._cache_config() + text).encode(), content_type=b"text/plain")
        elif route == ("POST", "/v1/chat/completions"):
            await self._infer(self._chat, receive, send)
        elif route == ("POST", "/v1/embeddings"):
            await self._infer(self._embeddings, receive, send)
        else:
            await respond_json(send, 404, {"detail": "Not Found"})

    def _cache_config(self) -> str:
        """The samples of ``vllm:cache_config_info``, with a few of its labels."""
        if not self.kv_blocks:
            return ""
        tokens = self.kv_blocks * BLOCK_TOKENS
        labels = (
            f'block_size="{BLOCK_TOKENS}",cache_dtype="auto",gpu_memory_utilization="0.92",'
            f'kv_cache_max_concurrency="{tokens / self.max_length}",kv_cache_size_tokens="{tokens}",'
            f'num_gpu_blocks="{self.kv_blocks * self.ranks}"'
        )
        head = "# HELP vllm:cache_config_info Information of the LLMEngine CacheConfig\n"
        samples = [f'vllm:cache_config_info{{{labels},engine="{rank}"}} 1.0\n' for rank in range(self.ranks)]
        return head + "# TYPE vllm:cache_config_info gauge\n" + "".join(samples)

    async def _infer(
        self, handler: Callable[[dict[str, Any], Send], Awaitable[None]], receive: Receive, send: Send
    ) -> None:
        body = await read_body(receive)
        work = asyncio.ensure_future(self._answer(handler, body, send))
        gone = asyncio.ensure_future(disconnected(receive))
        try:
            await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                await work
        finally:
            for task in (work, gone):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task

    async def _answer(self, handler: Callable[[dict[str, Any], Send], Awaitable[None]], raw: bytes, send: Send) -> None:
        try:
            if self.draining:
                raise RefusedError(500, "InternalServerError", "cannot schedule new futures after shutdown")
            try:
                request = json.loads(raw)
            except ValueError as error:
                raise RefusedError(400, "BadRequestError", f"JSON decode error: {error}") from error
            if request.get("model") not in {*self.names, None}:
                raise RefusedError(404, "NotFoundError", f"The model `{request.get('model')}` does not exist.")
            self.in_flight += 1
            try:
                await handler(request, send)
            finally:
                self.in_flight -= 1
            self._count(request)
        except RefusedError as error:
            await respond_json(send, error.status, error.body)

    def _count(self, request: dict[str, Any]) -> None:
        self.answered += 1
        if self.request_log:
            with Path(self.request_log).open("a") as file:
                file.write(json.dumps(request) + "\n")
        if self.crash_after and self.answered >= self.crash_after:
            os.kill(os.getpid(), signal.SIGKILL)

    async def _work(self, order: str) -> bool:
        """Spend the time of one request; False when the engine was told to abort it."""
        seconds = self.latency_seconds
        match order.split():
            case ["!sleep", value]:
                seconds = float(value)
            case ["!status", value]:
                raise RefusedError(int(value), "Ordered", f"ordered status {value}")
            case ["!crash", *_]:
                os.kill(os.getpid(), signal.SIGKILL)
            case ["!hang", *_]:
                seconds = 3600.0
        async with self.slots:
            if seconds and not self.aborted.is_set():
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self.aborted.wait(), seconds)
        if self.engine_killed:  # clients of a killed engine get nothing and hang
            await asyncio.Event().wait()
        return not self.aborted.is_set()

    def _check_length(self, tokens: int) -> None:
        if tokens > self.max_length:
            raise RefusedError(
                400,
                "BadRequestError",
                f"This model's maximum context length is {self.max_length} tokens. However, your request has {tokens} "
                "input tokens. Please reduce the length of the input messages.",
            )

    async def _chat(self, request: dict[str, Any], send: Send) -> None:
        messages = request.get("messages")
        if not isinstance(messages, list) or not messages:
            raise RefusedError(400, "BadRequestError", "messages: Field required")
        prompt_tokens = sum(len(str(message.get("content", "")).split()) for message in messages)
        self._check_length(prompt_tokens)
        users = [str(message.get("content", "")) for message in messages if message.get("role") == "user"]
        last = users[-1] if users else ""
        finished = await self._work(last)
        words = answer_to(last).split(" ")
        limit = int(request.get("max_completion_tokens") or request.get("max_tokens") or DEFAULT_MAX_TOKENS)
        reason = "length" if len(words) > limit else "stop"
        text = " ".join(words[:limit])
        if not finished:
            reason, text = "abort", ""
        usage = {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": min(len(words), limit),
            "total_tokens": prompt_tokens + min(len(words), limit),
        }
        head = {"id": f"chatcmpl-{os.urandom(8).hex()}", "created": int(time.time()), "model": self.names[0]}
        if request.get("stream"):
            await stream(send, head, text, reason)
            return
        count = int(request.get("n") or 1)
        choices = [
            {"index": index, "message": {"role": "assistant", "content": text}, "finish_reason": reason}
            for index in range(count)
        ]
        await respond_json(send, 200, {**head, "object": "chat.completion", "choices": choices, "usage": usage})

    async def _embeddings(self, request: dict[str, Any], send: Send) -> None:
        given = request.get("input")
        if not isinstance(given, str | list) or not given:
            raise RefusedError(400, "BadRequestError", "input: Field required")
        texts = [given] if isinstance(given, str) else [str(text) for text in given]
        tokens = sum(len(text.split()) for text in texts)
        for text in texts:
            self._check_length(len(text.split()))
        await self._work(texts[-1])
        data = [
            {"object": "embedding", "index": index, "embedding": embedding_of(text)} for index, text in enumerate(texts)
        ]
        usage = {"prompt_tokens": tokens, "total_tokens": tokens, "completion_tokens": 0}
        body = {"id": f"embd-{os.urandom(8).hex()}", "object": "list", "created": int(time.time())}
        await respond_json(send, 200, {**body, "model": self.names[0], "data": data, "usage": usage})


class _Server(uvicorn.Server):
    """Uvicorn without signal handlers of its own, as in vLLM."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def follow() -> None:
    """Lend GPUs to a leader elsewhere until SIGTERM."""
    loop = asyncio.get_running_loop()
    terminated = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, terminated.set)
    await terminated.wait()


async def serve(arguments: argparse.Namespace) -> None:
    """Load, serve and end as vLLM does."""
    # With the protocol named, asyncio sets TCP_NODELAY, as vLLM's uvloop does without.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((arguments.host or "127.0.0.1", int(arguments.port or 8000)))
    loop = asyncio.get_running_loop()
    terminated: asyncio.Queue[None] = asyncio.Queue()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, terminated.put_nowait, None)

    await _load(terminated)
    engine = Engine(arguments)
    application: Any = engine
    for name in arguments.middleware or []:
        module, _, attribute = name.rpartition(".")
        application = getattr(importlib.import_module(module), attribute)(application)
    config = uvicorn.Config(application, log_level="warning", lifespan="on", access_log=False)
    server = _Server(config)
    serving = asyncio.ensure_future(server.serve(sockets=[listener]))
    print("INFO: Application startup complete.", flush=True)
    stop = asyncio.ensure_future(terminated.get())
    await asyncio.wait({serving, stop}, return_when=asyncio.FIRST_COMPLETED)
    await _drain(engine, float(arguments.shutdown_timeout or 0))
    server.should_exit = True
    await serving


async def _load(terminated: asyncio.Queue[None]) -> None:
    deadline = time.monotonic() + float(os.environ.get("VLLM_FAKE_LOAD_SECONDS", "0"))
    swallowed = False
    while (left := deadline - time.monotonic()) > 0:
        try:
            await asyncio.wait_for(terminated.get(), left)
        except TimeoutError:
            return
        if swallowed:
            raise SystemExit(143)
        swallowed = True


async def _drain(engine: Engine, timeout_seconds: float) -> None:
    engine.draining = True
    if timeout_seconds <= 0:
        engine.aborted.set()
    deadline = time.monotonic() + timeout_seconds
    while engine.in_flight and time.monotonic() < deadline:
        await asyncio.sleep(0.01)
    if engine.in_flight:
        engine.engine_killed = timeout_seconds > 0
        engine.aborted.set()
        await asyncio.sleep(0.05)


def main() -> None:
    """Command line, as ``python -m vllm.entrypoints.openai.api_server``."""
    arguments = parse_arguments(sys.argv[1:])
    if arguments.max_model_len and int(arguments.max_model_len) > LONGEST_MODEL_LENGTH:
        raise ValueError(
            f"User-specified max_model_len ({arguments.max_model_len}) is greater than the derived max_model_len "
            f"(max_position_embeddings={LONGEST_MODEL_LENGTH}.0 or model_max_length=None in model's config.json)."
        )
    if error := os.environ.get("VLLM_FAKE_START_ERROR"):
        raise ValueError(error)
    asyncio.run(follow() if arguments.headless else serve(arguments))


if __name__ == "__main__":
    main()
