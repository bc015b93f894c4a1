"""A NATS connection that lives as long as its process, whatever happens to the server or to the credentials."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

import nats.errors
import structlog
from nats.aio.client import Client

from vllm_operator_api.nkey import read_user_seed
from vllm_operator_api.queue import AGENT_INBOX_PREFIX
from vllm_runtime.agent.work_queue import QueueUnavailableError

CONNECT_TIMEOUT_SECONDS: Final = 5
ATTEMPT_SECONDS: Final = 15.0
"""A client that is without a server for so long is replaced by one that reads the credentials again."""
PING_INTERVAL_SECONDS: Final = 10
MAX_OUTSTANDING_PINGS: Final = 2
PENDING_BYTES: Final = 64 * 1024 * 1024
"""What may wait for the socket: eight results of the largest size."""
FIRST_BACKOFF_SECONDS: Final = 0.5
MAX_BACKOFF_SECONDS: Final = 10.0
WATCH_SECONDS: Final = 0.2
REPEAT_PROBLEM_SECONDS: Final = 60.0
"""The same problem is logged once a minute."""

OnClient = Callable[[Client], Awaitable[None]]
_log: Final = structlog.get_logger(__name__)


class NatsConnection:
    """Connects in the background; nats-py reconnects by itself, and where it gives up for ever a new client is made."""

    def __init__(self, url: str, credentials_directory: str, name: str) -> None:
        self._url = url
        self._credentials_directory = credentials_directory
        self._name = name
        self._client: Client | None = None
        self._on_client: list[OnClient] = []
        self._on_available: list[Callable[[], None]] = []
        self._problem = ""
        self._problem_at = float("-inf")

    def on_client(self, callback: OnClient) -> None:
        """Run ``callback`` with every new client; before ``run``."""
        self._on_client.append(callback)

    def on_available(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` whenever there is a connection (again); before ``run``."""
        self._on_available.append(callback)

    @property
    def client(self) -> Client | None:
        """The client while it is connected."""
        client = self._client
        return client if client is not None and client.is_connected else None

    @contextlib.asynccontextmanager
    async def use(self) -> AsyncIterator[Client]:
        """The connected client, its errors turned into ours.

        Nothing is handed to a client that is not connected: it would be sent after the reconnect, when a lease that a
        late pull brings has no taker and a late give-back hits somebody else's lease.

        Raises:
            QueueUnavailableError: no connection, or no answer.
        """
        client = self.client
        if client is None:
            raise QueueUnavailableError(self._problem or "not connected")
        try:
            yield client
        except nats.errors.Error as error:
            raise QueueUnavailableError(f"{type(error).__name__}: {error}") from error
        except (TimeoutError, OSError) as error:
            raise QueueUnavailableError(f"{type(error).__name__}") from error

    async def run(self) -> None:
        """Stay connected until cancelled; then send what is pending and close."""
        backoff = FIRST_BACKOFF_SECONDS
        while True:
            seed = self._read_seed()
            if seed is not None:
                client = Client()
                try:
                    if await self._connect(client, seed):
                        backoff = FIRST_BACKOFF_SECONDS
                        await self._watch(client)
                finally:
                    self._client = None
                    await _close(client)
            await asyncio.sleep(backoff)
            backoff = min(MAX_BACKOFF_SECONDS, backoff * 2)

    def _read_seed(self) -> str | None:
        """The seed as it is now; empty without credentials; None when there should be some."""
        if not self._credentials_directory:
            return ""
        try:
            return read_user_seed(self._credentials_directory)
        except (OSError, ValueError) as error:
            self._report(str(error))
            return None

    async def _connect(self, client: Client, seed: str) -> bool:
        try:
            async with asyncio.timeout(ATTEMPT_SECONDS):
                await client.connect(
                    servers=[self._url],
                    name=self._name,
                    nkeys_seed_str=seed or None,
                    inbox_prefix=AGENT_INBOX_PREFIX,
                    error_cb=self._on_error,
                    reconnected_cb=self._on_reconnected,
                    connect_timeout=CONNECT_TIMEOUT_SECONDS,
                    max_reconnect_attempts=-1,
                    reconnect_time_wait=1,
                    ping_interval=PING_INTERVAL_SECONDS,
                    max_outstanding_pings=MAX_OUTSTANDING_PINGS,
                    pending_size=PENDING_BYTES,
                )
                for callback in self._on_client:
                    await callback(client)
        except (TimeoutError, OSError, ValueError, nats.errors.Error) as error:
            self._report(f"cannot connect to {self._url}: {error or type(error).__name__}")
            return False
        self._client = client
        await self._on_reconnected()
        return True

    async def _on_reconnected(self) -> None:
        self._problem = ""
        _log.info("queue connected", url=self._url)
        for callback in self._on_available:
            callback()

    async def _watch(self, client: Client) -> None:
        """Returns when the client is closed for good or has been without a server for long."""
        loop = asyncio.get_running_loop()
        lost_at: float | None = None
        while not client.is_closed:
            await asyncio.sleep(WATCH_SECONDS)
            if client.is_connected:
                lost_at = None
            elif lost_at is None:
                lost_at = loop.time()
                self._report("the connection was lost")
            elif loop.time() - lost_at > ATTEMPT_SECONDS:
                return
        self._report("the server closed the connection for good")

    async def _on_error(self, error: Exception) -> None:
        """What nats-py tells nobody else: denied permissions show here only, the denied request just times out."""
        self._report(f"{type(error).__name__}: {error}"[:300])

    def _report(self, problem: str) -> None:
        now = asyncio.get_running_loop().time()
        if problem != self._problem or now - self._problem_at >= REPEAT_PROBLEM_SECONDS:
            self._problem, self._problem_at = problem, now
            _log.warning("queue unavailable", url=self._url, problem=problem)


async def _close(client: Client) -> None:
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_SECONDS):
            if client.is_connected:
                await client.flush(timeout=1)
            await client.close()
    except (TimeoutError, OSError, nats.errors.Error) as error:
        _log.debug("queue client closed with an error", error=type(error).__name__)
