"""``WorkQueue`` on NATS JetStream."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import nats.errors
import orjson
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from pydantic import ValidationError

from vllm_operator_api import queue as names
from vllm_operator_api.queue import Heartbeat, Shard
from vllm_runtime.agent.nats_connection import NatsConnection
from vllm_runtime.agent.pull_inbox import PullInbox
from vllm_runtime.agent.results import ENVELOPE_BYTES, decompress
from vllm_runtime.agent.work_queue import Delivery, GoneError, QueueUnavailableError

REQUEST_TIMEOUT_SECONDS: Final = 5.0
MAX_SHARD_DOCUMENT_BYTES: Final = 64 * 1024 * 1024
"""Of a shard after decompression: eight times the largest message."""
MAX_JOBS: Final = 4096
UNREADABLE_DELAY_SECONDS: Final = 60
"""A shard that this agent cannot read (of a newer driver) is left to others for so long."""

_PULL: Final = orjson.dumps({"batch": 1, "no_wait": True})
_log: Final = structlog.get_logger(__name__)


class NatsQueue:
    """Streams and consumers of one queue id, over a connection that comes and goes."""

    def __init__(self, connection: NatsConnection, queue_id: str) -> None:
        self._connection = connection
        self._queue_id = queue_id
        self._stream = names.work_stream(queue_id)
        self._inbox: PullInbox | None = None
        self._retired_inbox: PullInbox | None = None
        """The inbox before, kept for a while: what comes late is given back."""

    def watch_wakes(self, woken: Callable[[], None]) -> None:
        """Call ``woken`` whenever the queue tells of new work or is back; before the connection starts."""

        async def on_message(_: Msg) -> None:
            woken()

        async def subscribe(client: Client) -> None:
            await client.subscribe(names.wake_subject(self._queue_id), cb=on_message)

        self._connection.on_client(subscribe)
        self._connection.on_available(woken)

    @property
    def connected(self) -> bool:
        """As in ``WorkQueue``."""
        return self._connection.client is not None

    @property
    def max_result_bytes(self) -> int:
        """As in ``WorkQueue``: the server's limit, which an external server may have lower than ours."""
        client = self._connection.client
        limit = names.MAX_PAYLOAD_BYTES if client is None else min(names.MAX_PAYLOAD_BYTES, int(client.max_payload))
        return limit - ENVELOPE_BYTES

    async def jobs(self) -> tuple[str, ...]:
        """As in ``WorkQueue``."""
        found: list[str] = []
        while len(found) < MAX_JOBS:
            try:
                message = await self._request(
                    f"$JS.API.CONSUMER.NAMES.{self._stream}",
                    orjson.dumps({"offset": len(found)}),
                    REQUEST_TIMEOUT_SECONDS,
                )
            except GoneError as error:
                raise QueueUnavailableError("JetStream is not ready") from error
            page = orjson.loads(message.data)
            consumers = page.get("consumers") or []  # an error (no such stream yet) has none
            found += consumers
            if not consumers or len(found) >= page.get("total", 0):
                break
        prefix = names.JOB_CONSUMER_PREFIX
        return tuple(name.removeprefix(prefix) for name in found if name.startswith(prefix))

    async def lease(self, job_uid: str) -> Delivery | None:
        """As in ``WorkQueue``."""
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{self._stream}.{names.job_consumer(job_uid)}"
        message = await self._pull(subject)
        if message is None:
            return None
        try:
            content = message.data
            if (message.headers or {}).get(names.CONTENT_ENCODING_HEADER) == names.ZSTD:
                content = decompress(content, MAX_SHARD_DOCUMENT_BYTES)
            shard = Shard.model_validate_json(content)
        except (ValueError, ValidationError) as error:
            _log.error("a shard cannot be read", job=job_uid, subject=message.subject, error=type(error).__name__)
            await self._publish(message.reply, b'-NAK {"delay": %d}' % (UNREADABLE_DELAY_SECONDS * 10**9))
            return None
        return Delivery(handle=message.reply, shard=shard, deliveries=message.metadata.num_delivered or 1)

    async def renew(self, delivery: Delivery, timeout_seconds: float) -> None:
        """As in ``WorkQueue``."""
        await self._request(delivery.handle, b"+WPI", timeout_seconds)

    async def give_back(self, delivery: Delivery) -> None:
        """As in ``WorkQueue``."""
        await self._publish(delivery.handle, b"-NAK")

    async def publish_result(self, shard: Shard, payload: bytes) -> bool:
        """As in ``WorkQueue``."""
        subject = names.result_subject(self._queue_id, shard.job_uid, shard.shard)
        headers = {
            names.EXPECTED_LAST_SUBJECT_SEQUENCE_HEADER: "0",
            names.CONTENT_ENCODING_HEADER: names.ZSTD,
        }
        message = await self._request(subject, payload, REQUEST_TIMEOUT_SECONDS, headers)
        error = orjson.loads(message.data).get("error")
        if error is None:
            return True
        if error.get("err_code") == names.WRONG_LAST_SEQUENCE_ERROR:
            return False
        raise QueueUnavailableError(f"the result was refused: {error.get('description')} ({error.get('err_code')})")

    async def acknowledge(self, delivery: Delivery) -> None:
        """As in ``WorkQueue``."""
        await self._request(delivery.handle, b"+ACK", REQUEST_TIMEOUT_SECONDS)

    async def publish_heartbeat(self, heartbeat: Heartbeat) -> None:
        """Send a heartbeat; nobody answers.

        Raises:
            QueueUnavailableError: there is no connection.
        """
        subject = names.heartbeat_subject(self._queue_id, heartbeat.worker)
        await self._publish(subject, heartbeat.model_dump_json().encode())

    async def flush(self, timeout_seconds: float) -> None:
        """Wait until the server has what was published."""
        async with self._connection.use() as client:
            await client.flush(timeout=max(1, round(timeout_seconds)))

    async def _pull(self, subject: str) -> Msg | None:
        async with self._connection.use() as client:
            if self._inbox is None or self._inbox.client is not client or not self._inbox.usable:
                retired, self._retired_inbox = self._retired_inbox, self._inbox
                self._inbox = None
                inbox = PullInbox(client)
                await inbox.open()
                self._inbox = inbox
                if retired is not None and retired.client is client:
                    await retired.close()
            try:
                return await self._inbox.pull(subject, _PULL, REQUEST_TIMEOUT_SECONDS)
            except nats.errors.NoRespondersError as error:
                raise GoneError(subject) from error

    async def _request(
        self, subject: str, payload: bytes, timeout_seconds: float, headers: dict[str, str] | None = None
    ) -> Msg:
        async with self._connection.use() as client:
            try:
                return await client.request(subject, payload, timeout=timeout_seconds, headers=headers)
            except nats.errors.NoRespondersError as error:
                raise GoneError(subject) from error

    async def _publish(self, subject: str, payload: bytes) -> None:
        async with self._connection.use() as client:
            await client.publish(subject, payload)
