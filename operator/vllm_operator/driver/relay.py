"""The driver's side of the queue: publishes shards, takes results, reports. Every call waits for the queue."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import nats.js.errors
import structlog
from nats.aio.client import Client
from nats.js import JetStreamContext

from vllm_operator.queue.connection import REQUEST_TIMEOUT_SECONDS, QueueConnection
from vllm_operator.queue.view import QueueUnavailableError
from vllm_operator_api.queue import (
    CONTENT_ENCODING_HEADER,
    MAX_MESSAGES_PER_SUBJECT_ERROR,
    ZSTD,
    JobProgress,
    output_subject,
    progress_subject,
    result_notice_subject,
    result_stream,
    result_subject,
    shard_subject,
    wake_subject,
    work_stream,
)

_MIN_BACKOFF_SECONDS: Final = 0.2
_MAX_BACKOFF_SECONDS: Final = 5.0

_Answer = TypeVar("_Answer")
_log: Final = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class StoredResult:
    """A result as the queue holds it."""

    sequence: int
    payload: bytes
    compressed: bool


@dataclass(frozen=True, slots=True)
class QueueState:
    """Which shards of the job the queue holds: waiting or leased, and answered."""

    queued: frozenset[int]
    answered: frozenset[int]


class ShardRelay:
    """Shards and results of one job. Calls are retried until the queue answers; only cancellation ends them early."""

    def __init__(self, connection: QueueConnection, queue_id: str, job_uid: str) -> None:
        self._connection = connection
        self._queue_id = queue_id
        self._job_uid = job_uid
        self._noticed: set[int] = set()
        self._notice = asyncio.Event()
        connection.add_setup(self._subscribe)

    async def publish(self, shard: int, payload: bytes, *, compressed: bool) -> bool:
        """Put a shard into the queue; one that is there already stays as it is. False: the queue is full.

        That is not waited out here: results have to be taken out meanwhile, or nobody's work would go on.
        """
        subject = shard_subject(self._queue_id, self._job_uid, shard)
        headers = {CONTENT_ENCODING_HEADER: ZSTD} if compressed else None

        async def publish(client: Client) -> bool:
            return await _publish_once(client, subject, payload, headers)

        return await self._until_done(publish)

    async def wake_agents(self) -> None:
        """Tell agents that there is new work; they find it by themselves a little later if this is lost."""
        if self._connection.connected:
            await self._send(wake_subject(self._queue_id), b"")

    async def state(self) -> QueueState:
        """What the queue holds. An agent stores a result before it acks the shard, so the shards are listed first:

        what is in neither list is lost.
        """

        async def read(client: Client) -> QueueState:
            js = _jetstream(client)
            queued = await _shards(js, work_stream(self._queue_id), shard_subject(self._queue_id, self._job_uid, "*"))
            answered = await _shards(
                js, result_stream(self._queue_id), result_subject(self._queue_id, self._job_uid, "*")
            )
            return QueueState(queued=queued, answered=answered)

        return await self._until_done(read)

    async def result(self, shard: int) -> StoredResult | None:
        """The result of a shard, if it is there."""

        async def read(client: Client) -> StoredResult | None:
            try:
                message = await _jetstream(client).get_last_msg(
                    result_stream(self._queue_id), result_subject(self._queue_id, self._job_uid, shard), direct=True
                )
            except nats.js.errors.NotFoundError:
                return None
            compressed = (message.headers or {}).get(CONTENT_ENCODING_HEADER) == ZSTD
            return StoredResult(sequence=message.seq, payload=message.data or b"", compressed=compressed)

        return await self._until_done(read)

    async def drop_result(self, sequence: int) -> None:
        """Remove a result that was written to the output, or that is wrong."""
        stream = result_stream(self._queue_id)
        request = json.dumps({"seq": sequence, "no_erase": True}).encode()

        async def drop(client: Client) -> None:
            # nats-py's own delete_msg overwrites the message on the disk first, which nobody needs.
            await client.request(f"$JS.API.STREAM.MSG.DELETE.{stream}", request, timeout=REQUEST_TIMEOUT_SECONDS)

        await self._until_done(drop)

    async def store_output(self, content: bytes) -> None:
        """Hand the finished output to the operator; the first one stays."""

        async def publish(client: Client) -> None:
            if not await _publish_once(client, output_subject(self._job_uid), content, None):
                raise QueueUnavailableError("the queue is full")

        await self._until_done(publish)

    async def report(self, progress: JobProgress) -> bool:
        """Tell the operator how far the job is; False when there is no connection to tell it by."""
        if not self._connection.connected:
            return False
        await self._send(progress_subject(self._job_uid), progress.model_dump_json().encode())
        return True

    async def next_notices(self, timeout_seconds: float) -> frozenset[int]:
        """Shards whose results were stored since the last call; waits for the first, at most so long."""
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._notice.wait()
        except TimeoutError:
            return frozenset()
        self._notice.clear()
        noticed = frozenset(self._noticed)
        self._noticed.clear()
        return noticed

    async def _subscribe(self, client: Client) -> None:
        async def on_notice(message: Any) -> None:
            token = message.subject.rpartition(".")[2]
            if token.isdecimal():
                self._noticed.add(int(token))
                self._notice.set()

        await client.subscribe(result_notice_subject(self._queue_id, self._job_uid, "*"), cb=on_notice)

    async def _send(self, subject: str, payload: bytes) -> None:
        try:
            async with self._connection.use() as client:
                await client.publish(subject, payload)
        except QueueUnavailableError as error:
            _log.debug("not sent", subject=subject, error=str(error))

    async def _until_done(self, step: Callable[[Client], Awaitable[_Answer]]) -> _Answer:
        backoff_seconds = _MIN_BACKOFF_SECONDS
        while True:
            client = await self._connection.wait_connected()
            try:
                async with self._connection.use():
                    return await step(client)
            except (QueueUnavailableError, nats.js.errors.APIError) as error:
                # A missing stream is one that the operator has not made (again) yet; a full one empties.
                _log.info("queue is waited for", error=str(error)[:300])
            await asyncio.sleep(backoff_seconds)
            backoff_seconds = min(backoff_seconds * 2, _MAX_BACKOFF_SECONDS)


def _jetstream(client: Client) -> JetStreamContext:
    return client.jetstream(timeout=REQUEST_TIMEOUT_SECONDS)


async def _publish_once(client: Client, subject: str, payload: bytes, headers: dict[str, str] | None) -> bool:
    """True when the subject has its message, this one or an earlier one; False when the stream is full."""
    try:
        await _jetstream(client).publish(subject, payload, headers=headers)
    except nats.js.errors.APIError as error:
        if error.err_code != MAX_MESSAGES_PER_SUBJECT_ERROR:
            raise
        return "per subject" in (error.description or "")  # one code for both
    return True


async def _shards(js: JetStreamContext, stream: str, subject_filter: str) -> frozenset[int]:
    info = await js.stream_info(stream, subjects_filter=subject_filter)
    tokens = (subject.rpartition(".")[2] for subject in info.state.subjects or {})
    return frozenset(int(token) for token in tokens if token.isdecimal())
