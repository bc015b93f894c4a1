"""HTTP to the engine in the same pod."""

from __future__ import annotations

import asyncio
from enum import Enum, auto
from typing import Final, Protocol

import aiohttp
from pydantic import ValidationError

from vllm_operator_api.queue import EngineReport, KvCacheReport
from vllm_runtime.agent.cache_config import CacheConfigScan
from vllm_runtime.middleware import ACTIVITY_PATH, TOKEN_HEADER

KEEP_ALIVE_SECONDS: Final = 3.0
"""Shorter than vLLM's 5 s: a connection that the engine is about to close is never used (measured on vLLM 0.32.0)."""
PROBE_TIMEOUT_SECONDS: Final = 2.0
METRICS_TIMEOUT_SECONDS: Final = 10.0
CONNECT_TIMEOUT_SECONDS: Final = 5.0
TIMEOUT_CODE: Final = "timeout"
"""Code of a row that the engine had no answer for in its time."""


class Health(Enum):
    """What ``/health`` says."""

    UP = auto()
    DOWN = auto()
    """Refuses connections (loading, or gone) or says itself that it is dead."""
    UNKNOWN = auto()
    """No answer in time: busy or hanging."""


class EngineConnectionError(Exception):
    """No whole answer: refused, reset or timed out. The message is for an error row."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Engine(Protocol):
    """What the worker needs of an engine."""

    async def post(self, path: str, body: bytes) -> tuple[int, bytes]:
        """Status and body of the answer to a POST.

        Raises:
            EngineConnectionError: there was no whole answer.
        """
        ...

    async def health(self) -> Health:
        """The engine's health now."""
        ...

    async def activity(self) -> EngineReport | None:
        """The middleware's counts; None when it does not answer."""
        ...


class HttpEngine:
    """The engine over loopback, with one connection pool."""

    def __init__(self, port: int, control_token: str, row_timeout_seconds: float) -> None:
        self._base = f"http://127.0.0.1:{port}"
        self._control_headers = {TOKEN_HEADER.decode(): control_token}
        self._row_timeout = aiohttp.ClientTimeout(total=row_timeout_seconds, sock_connect=CONNECT_TIMEOUT_SECONDS)
        self._metrics_timeout = aiohttp.ClientTimeout(total=METRICS_TIMEOUT_SECONDS)
        self._probe_timeout = aiohttp.ClientTimeout(total=PROBE_TIMEOUT_SECONDS)
        self._session: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        """Make the connection pool."""
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_SECONDS)
        self._session = aiohttp.ClientSession(
            connector=connector, cookie_jar=aiohttp.DummyCookieJar(), headers={"content-type": "application/json"}
        )

    async def stop(self) -> None:
        """Close all connections; vLLM aborts what was in flight."""
        if self._session is not None:
            await self._session.close()

    @property
    def _pool(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise RuntimeError("start() was not called")
        return self._session

    async def post(self, path: str, body: bytes) -> tuple[int, bytes]:
        """As in ``Engine``."""
        try:
            async with self._pool.post(self._base + path, data=body, timeout=self._row_timeout) as answer:
                return answer.status, await answer.read()
        except TimeoutError as error:
            raise EngineConnectionError(TIMEOUT_CODE, "the engine did not answer in time") from error
        except (aiohttp.ClientError, OSError) as error:
            raise EngineConnectionError("connection_error", f"the engine's connection failed: {error}") from error

    async def health(self) -> Health:
        """As in ``Engine``."""
        try:
            async with self._pool.get(f"{self._base}/health", timeout=self._probe_timeout) as answer:
                return Health.UP if answer.status == 200 else Health.DOWN
        except TimeoutError:
            return Health.UNKNOWN
        except (aiohttp.ClientError, OSError):
            return Health.DOWN

    async def activity(self) -> EngineReport | None:
        """As in ``Engine``."""
        try:
            async with self._pool.get(
                self._base + ACTIVITY_PATH, headers=self._control_headers, timeout=self._probe_timeout
            ) as answer:
                if answer.status != 200:
                    return None
                return EngineReport.model_validate_json(await answer.read())
        except (TimeoutError, aiohttp.ClientError, OSError, ValidationError, asyncio.IncompleteReadError):
            return None

    async def kv_cache(self) -> KvCacheReport | None:
        """What ``/metrics`` says of the KV cache; None when it says nothing.

        Raises:
            EngineConnectionError: there was no answer in time.
        """
        scan = CacheConfigScan()
        try:
            async with self._pool.get(f"{self._base}/metrics", timeout=self._metrics_timeout) as answer:
                if answer.status != 200:
                    return None
                async for chunk in answer.content.iter_any():
                    if scan.feed(chunk):
                        break
        except TimeoutError as error:
            raise EngineConnectionError(TIMEOUT_CODE, "the engine did not answer in time") from error
        except (aiohttp.ClientError, OSError) as error:
            raise EngineConnectionError("connection_error", f"the engine's connection failed: {error}") from error
        return scan.report()
