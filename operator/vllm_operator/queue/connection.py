"""One connection to the queue that lasts as long as its process, whatever happens to the server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

import nats.errors
import nats.js.errors
import structlog
from nats.aio.client import Client

from vllm_operator.engine.tasks import end_tasks
from vllm_operator.queue.credentials import read_seed
from vllm_operator.queue.view import QueueUnavailableError
from vllm_operator_api.queue import MAX_PAYLOAD_BYTES

MINIMUM_SERVER_VERSION: Final = (2, 12)
"""Below it there are no atomic batches and lost messages under work-queue retention."""
REQUEST_TIMEOUT_SECONDS: Final = 5.0

_PING_INTERVAL_SECONDS: Final = 10
_MAX_OUTSTANDING_PINGS: Final = 2
"""A frozen server or a cut network is noticed in 20 to 30 s (nats-py's own default is 4 to 6 minutes)."""
_CONNECT_TIMEOUT_SECONDS: Final = 5
_ATTEMPT_SECONDS: Final = 6.0
_LOST_SECONDS: Final = 15.0
"""After this long without a connection a new client starts over with the credentials as they are in the files now."""
_MIN_BACKOFF_SECONDS: Final = 0.5
_MAX_BACKOFF_SECONDS: Final = 10.0
_POLL_SECONDS: Final = 0.5
_PENDING_BYTES: Final = 64 * 1024 * 1024
"""Outgoing bytes that may wait for the socket: several messages of the largest size."""

Setup = Callable[[Client], Awaitable[None]]

_log: Final = structlog.stdlib.get_logger(__name__)


class QueueConnection:
    """Connects in the background and reconnects for ever; ``start`` returns at once, also with the server down.

    nats-py closes a client for good on some errors (credentials refused, for instance): then, and when reconnecting
    takes long, a new client is made with the credentials read anew. Subscriptions are made by ``setup`` callbacks,
    which run on every new client.
    """

    def __init__(
        self,
        url: str,
        credentials_directory: str,
        name: str,
        *,
        inbox_prefix: str = "_INBOX",
        setup: Setup | None = None,
    ) -> None:
        """``credentials_directory``: where ``seed`` or ``entropy`` lies; empty: connect without credentials."""
        self._url = url
        self._credentials_directory = credentials_directory
        self._name = name
        self._inbox_prefix = inbox_prefix
        self._setups: list[Setup] = [setup] if setup else []
        self._client: Client | None = None
        self._task: asyncio.Task[None] | None = None
        self._problem: str | None = None
        self._last_error = ""
        self._last_error_at = float("-inf")
        self._ready = asyncio.Event()

    def add_setup(self, setup: Setup) -> None:
        """Run ``setup`` with every new client (before ``start``)."""
        self._setups.append(setup)

    async def start(self) -> None:
        """Begin to connect."""
        self._task = asyncio.create_task(self._run(), name=f"queue connection {self._name}")

    async def stop(self) -> None:
        """Close the connection; what was published before is sent."""
        if self._task is not None:
            await end_tasks(self._task)
            self._task = None

    @property
    def connected(self) -> bool:
        """Whether requests can be made now."""
        return self._client is not None and bool(self._client.is_connected) and self._ready.is_set()

    @property
    def problem(self) -> str | None:
        """Why not, in words; None while connected."""
        if self.connected:
            return None
        return self._problem or self._last_error or "not connected yet"

    async def wait_connected(self) -> Client:
        """The client, as soon as there is one that is connected."""
        while not self.connected:
            await self._ready.wait()
            if not self.connected:
                await asyncio.sleep(_POLL_SECONDS)
        assert self._client is not None
        return self._client

    @asynccontextmanager
    async def use(self) -> AsyncIterator[Client]:
        """The client for a few requests.

        Raises:
            QueueUnavailableError: there is no connection, or it went away meanwhile, or the server does not answer, or
                it refuses. What it does not find is left to the caller: ``nats.js.errors.NotFoundError``.
        """
        if not self.connected or self._client is None:
            raise QueueUnavailableError(self.problem)
        try:
            yield self._client
        except nats.js.errors.ServiceUnavailableError as error:
            raise QueueUnavailableError("the queue server does not offer JetStream now") from error
        except nats.js.errors.NotFoundError:
            raise
        except nats.js.errors.APIError as error:
            raise QueueUnavailableError(f"the queue server refused: {error.description}") from error
        except TimeoutError as error:  # nats-py's own one is a kind of it
            raise QueueUnavailableError(self._silence()) from error
        except nats.errors.Error as error:
            raise QueueUnavailableError(f"the queue does not answer: {error or type(error).__name__}") from error

    def _silence(self) -> str:
        """What a request that got no answer has met: a permission that is missing is told beside it, not instead."""
        recent = time.monotonic() - self._last_error_at <= 2 * REQUEST_TIMEOUT_SECONDS
        told = f": {self._last_error}" if recent and self._last_error else ""
        return f"the queue does not answer in time{told}"

    async def _run(self) -> None:
        backoff_seconds = _MIN_BACKOFF_SECONDS
        while True:
            try:
                seed = read_seed(self._credentials_directory) if self._credentials_directory else None
            except (OSError, ValueError) as error:
                self._report(str(error))
            else:
                if await self._serve(seed):
                    backoff_seconds = _MIN_BACKOFF_SECONDS
            await asyncio.sleep(backoff_seconds)
            backoff_seconds = min(backoff_seconds * 2, _MAX_BACKOFF_SECONDS)

    async def _serve(self, seed: str | None) -> bool:
        """One client from its begin to its end; True if it was ever connected."""
        client = Client()
        try:
            if not await self._connect(client, seed):
                return False
            await self._watch(client)
            return True
        finally:
            self._ready.clear()
            self._client = None
            await _close(client)

    async def _connect(self, client: Client, seed: str | None) -> bool:
        """True when connected and set up; otherwise ``problem`` says why not."""
        try:
            async with asyncio.timeout(_ATTEMPT_SECONDS):
                await client.connect(
                    servers=[self._url],
                    name=self._name,
                    error_cb=self._on_error,
                    nkeys_seed_str=seed,
                    inbox_prefix=self._inbox_prefix,
                    max_reconnect_attempts=-1,
                    reconnect_time_wait=1,
                    connect_timeout=_CONNECT_TIMEOUT_SECONDS,
                    ping_interval=_PING_INTERVAL_SECONDS,
                    max_outstanding_pings=_MAX_OUTSTANDING_PINGS,
                    pending_size=_PENDING_BYTES,
                )
                version = client.connected_server_version
                if (version.major, version.minor) < MINIMUM_SERVER_VERSION:
                    wanted = ".".join(map(str, MINIMUM_SERVER_VERSION))
                    self._report(
                        f"the queue server is nats-server {version.major}.{version.minor}; {wanted} or newer is needed"
                    )
                    return False
                if client.max_payload < MAX_PAYLOAD_BYTES:
                    # Rows and results beyond its limit would wait for ever, or have an error for no fault of theirs.
                    self._report(
                        f"the queue server's max_payload is {client.max_payload}; {MAX_PAYLOAD_BYTES} (8MB) is needed"
                    )
                    return False
                for setup in self._setups:
                    await setup(client)
        except (TimeoutError, OSError, ValueError, nats.errors.Error) as error:
            self._report(f"cannot connect to {self._url}: {self._last_error or error or type(error).__name__}")
            return False
        self._client = client
        self._problem = None
        self._ready.set()
        _log.info("queue connected", url=self._url, server=str(client.connected_server_version))
        return True

    async def _watch(self, client: Client) -> None:
        """Returns when this client is closed, or has been without a server for long."""
        loop = asyncio.get_running_loop()
        lost_at: float | None = None
        while not client.is_closed:
            await asyncio.sleep(_POLL_SECONDS)
            if client.is_connected:
                if lost_at is not None:
                    _log.info("queue connected again", url=self._url)
                lost_at, self._problem = None, None
            elif lost_at is None:
                lost_at = loop.time()
                self._report(self._last_error or "the connection was lost")
            elif loop.time() - lost_at > _LOST_SECONDS:
                return
        self._report(self._last_error or "the server closed the connection")

    async def _on_error(self, error: Exception) -> None:
        """Permission denials show here only: the request that was denied just times out."""
        text = f"{error or type(error).__name__}"[:300]
        if text != self._last_error:
            _log.warning("queue error", url=self._url, error=text)
        self._last_error, self._last_error_at = text, time.monotonic()
        if self._client is None:
            self._report(f"cannot connect to {self._url}: {text}")

    def _report(self, problem: str) -> None:
        if problem != self._problem:
            _log.warning("queue unavailable", url=self._url, problem=problem)
        self._problem = problem


async def _close(client: Client) -> None:
    try:
        async with asyncio.timeout(_CONNECT_TIMEOUT_SECONDS):
            await client.close()
    except (TimeoutError, OSError, AssertionError, nats.errors.Error) as error:
        # nats-py asserts when a client is closed whose connect() failed before it began (a malformed URL).
        _log.debug("queue client closed with an error", error=str(error))
