"""The operator's writes to JetStream: streams of a service, consumers of jobs, and what is left of either."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final, Protocol

import nats.js.errors
import structlog
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.api import (
    AckPolicy,
    ConsumerConfig,
    DeliverPolicy,
    DiscardPolicy,
    RePublish,
    RetentionPolicy,
    StorageType,
    StreamConfig,
)

from vllm_operator.queue.connection import REQUEST_TIMEOUT_SECONDS, QueueConnection
from vllm_operator.queue.view import QueueUnavailableError
from vllm_operator_api.queue import (
    JOB_CONSUMER_PREFIX,
    MAX_PAYLOAD_BYTES,
    OUTPUT_STREAM,
    OUTPUT_SUBJECTS,
    job_consumer,
    output_subject,
    result_notice_subjects,
    result_stream,
    result_subject,
    result_subjects,
    shard_subject,
    wake_subject,
    work_stream,
    work_subjects,
)

MAX_WAITING_PULLS: Final = 4096
"""Pulls that may linger on one job's consumer: agents of the largest services (the server's default is 512)."""
MAX_STREAM_MESSAGES: Final = 4096
"""Of one stream; a full one refuses new messages and publishers wait. Drivers keep far fewer (a bounded window).
A limit in bytes would be the natural one, but JetStream reserves it: a volume would be full after a few services."""
OUTPUT_MAX_AGE_SECONDS: Final = 7 * 86400
"""Outputs that nobody took: the operator was away for a week."""

_log: Final = structlog.stdlib.get_logger(__name__)


class JobTracker(Protocol):
    """Who polls the consumers of registered jobs."""

    def track_job(self, queue_id: str, job_uid: str) -> None:
        """The consumer exists."""
        ...

    def forget_job(self, job_uid: str) -> None:
        """It does not any more."""
        ...


class JetStreamAdmin:
    """Implements ``QueueAdmin``. Every call is idempotent; nothing is remembered here."""

    def __init__(self, connection: QueueConnection, tracker: JobTracker | None = None) -> None:
        self._connection = connection
        self._tracker = tracker

    async def ensure_job(self, queue_id: str, job_uid: str, *, lease_seconds: int, max_leased: int) -> bool:
        """Make the service's streams and the job's consumer, or adjust its settings; True when something was written.

        Raises:
            QueueUnavailableError: no connection, or the server does not answer or refuses (limits of its account).
        """
        async with self._settled() as client:
            js = _jetstream(client)
            wrote = False
            for config in (output_stream_config(), work_stream_config(queue_id), result_stream_config(queue_id)):
                wrote |= await _ensure_stream(js, config)
            wrote |= await _ensure_consumer(js, queue_id, job_uid, lease_seconds, max_leased)
            if wrote:
                await client.publish(wake_subject(queue_id))
        if self._tracker is not None:
            self._tracker.track_job(queue_id, job_uid)
        return wrote

    async def delete_job(self, queue_id: str, job_uid: str) -> None:
        """Remove the job's consumer, shards, results and stored output. Idempotent.

        The consumer goes first: that is what tells agents to let go of the job's shards.
        """
        async with self._connection.use() as client:
            js = _jetstream(client)
            await _gone(js.delete_consumer(work_stream(queue_id), job_consumer(job_uid)))
            await _gone(js.purge_stream(work_stream(queue_id), subject=shard_subject(queue_id, job_uid, "*")))
            await _gone(js.purge_stream(result_stream(queue_id), subject=result_subject(queue_id, job_uid, "*")))
            await _gone(js.purge_stream(OUTPUT_STREAM, subject=output_subject(job_uid)))
        if self._tracker is not None:
            self._tracker.forget_job(job_uid)

    async def take_output(self, job_uid: str) -> bytes | None:
        """A finished ConfigMap output, None when there is none (yet)."""
        async with self._connection.use() as client:
            try:
                message = await _jetstream(client).get_last_msg(OUTPUT_STREAM, output_subject(job_uid))
            except nats.js.errors.NotFoundError:
                return None
        payload: bytes | None = message.data
        return payload if payload is not None else b""

    async def sweep(self, live_queue_ids: frozenset[str], live_job_uids: frozenset[str]) -> int:
        """Remove streams and consumers whose owner is gone; returns how many. Call only with complete, fresh sets.

        Raises:
            QueueUnavailableError: as in ``ensure_job``; what is left is removed by the next sweep.
        """
        removed = 0
        async with self._settled() as client:
            js = _jetstream(client)
            for stream in await _stream_names(js):
                prefix, _, queue_id = stream.partition("_")
                if prefix not in ("Q", "R") or not queue_id:
                    continue
                if queue_id not in live_queue_ids:
                    removed += await _gone(js.delete_stream(stream))
                elif prefix == "Q":
                    removed += await _sweep_consumers(js, queue_id, live_job_uids)
            removed += await _sweep_outputs(js, live_job_uids)
        if removed:
            _log.info("queue swept", removed=removed)
        return removed

    @asynccontextmanager
    async def _settled(self) -> AsyncIterator[Client]:
        """The client for steps that need what an earlier one has found or made."""
        async with self._connection.use() as client:
            try:
                yield client
            except nats.js.errors.NotFoundError as error:
                raise QueueUnavailableError(f"the queue changed meanwhile: {error.description}") from error


def work_stream_config(queue_id: str) -> StreamConfig:
    """Work to be leased: gone when acked; a subject takes one message, so that publishing again is harmless."""
    return StreamConfig(
        name=work_stream(queue_id),
        subjects=[work_subjects(queue_id)],
        retention=RetentionPolicy.WORK_QUEUE,
        storage=StorageType.FILE,
        discard=DiscardPolicy.NEW,
        max_msgs_per_subject=1,
        discard_new_per_subject=True,
        max_msgs=MAX_STREAM_MESSAGES,
        max_msg_size=MAX_PAYLOAD_BYTES,
    )


def result_stream_config(queue_id: str) -> StreamConfig:
    """Results of shards: the first writer wins. The server repeats each one's headers to the driver."""
    return StreamConfig(
        name=result_stream(queue_id),
        subjects=[result_subjects(queue_id)],
        retention=RetentionPolicy.LIMITS,
        storage=StorageType.FILE,
        discard=DiscardPolicy.NEW,
        max_msgs_per_subject=1,
        discard_new_per_subject=True,
        max_msgs=MAX_STREAM_MESSAGES,
        max_msg_size=MAX_PAYLOAD_BYTES,
        allow_direct=True,
        republish=RePublish(src=result_subjects(queue_id), dest=result_notice_subjects(queue_id), headers_only=True),
    )


def output_stream_config() -> StreamConfig:
    """Finished outputs on their way into a ConfigMap."""
    return StreamConfig(
        name=OUTPUT_STREAM,
        subjects=[OUTPUT_SUBJECTS],
        retention=RetentionPolicy.LIMITS,
        storage=StorageType.FILE,
        discard=DiscardPolicy.NEW,
        max_msgs_per_subject=1,
        discard_new_per_subject=True,
        max_msgs=MAX_STREAM_MESSAGES,
        max_msg_size=MAX_PAYLOAD_BYTES,
        max_age=OUTPUT_MAX_AGE_SECONDS,
    )


def consumer_config(queue_id: str, job_uid: str, lease_seconds: int, max_leased: int) -> ConsumerConfig:
    """A job's leases: redelivered for ever (agents count crashes, the server must not hide a shard)."""
    return ConsumerConfig(
        durable_name=job_consumer(job_uid),
        filter_subject=shard_subject(queue_id, job_uid, "*"),
        ack_policy=AckPolicy.EXPLICIT,
        deliver_policy=DeliverPolicy.ALL,
        ack_wait=lease_seconds,
        max_deliver=-1,
        max_ack_pending=max_leased,
        max_waiting=MAX_WAITING_PULLS,
    )


def _jetstream(client: Client) -> JetStreamContext:
    return client.jetstream(timeout=REQUEST_TIMEOUT_SECONDS)


async def _ensure_stream(js: JetStreamContext, config: StreamConfig) -> bool:
    try:
        await js.stream_info(config.name)
    except nats.js.errors.NotFoundError:
        await js.add_stream(config)
        return True
    return False


async def _ensure_consumer(
    js: JetStreamContext, queue_id: str, job_uid: str, lease_seconds: int, max_leased: int
) -> bool:
    try:
        info = await js.consumer_info(work_stream(queue_id), job_consumer(job_uid))
        if info.config.ack_wait == lease_seconds and info.config.max_ack_pending == max_leased:
            return False
    except nats.js.errors.NotFoundError:
        _log.info("job registered with the queue", queue_id=queue_id, job=job_uid)
    await js.add_consumer(work_stream(queue_id), consumer_config(queue_id, job_uid, lease_seconds, max_leased))
    return True


async def _sweep_consumers(js: JetStreamContext, queue_id: str, live_job_uids: frozenset[str]) -> int:
    removed = 0
    for info in await js.consumers_info(work_stream(queue_id)):
        job_uid = info.name.removeprefix(JOB_CONSUMER_PREFIX)
        if info.name.startswith(JOB_CONSUMER_PREFIX) and job_uid not in live_job_uids:
            removed += await _gone(js.delete_consumer(work_stream(queue_id), info.name))
            await _gone(js.purge_stream(work_stream(queue_id), subject=shard_subject(queue_id, job_uid, "*")))
            await _gone(js.purge_stream(result_stream(queue_id), subject=result_subject(queue_id, job_uid, "*")))
            await _gone(js.purge_stream(OUTPUT_STREAM, subject=output_subject(job_uid)))
    return removed


async def _sweep_outputs(js: JetStreamContext, live_job_uids: frozenset[str]) -> int:
    if not live_job_uids:
        return await _gone(js.delete_stream(OUTPUT_STREAM))
    try:
        info = await js.stream_info(OUTPUT_STREAM, subjects_filter=OUTPUT_SUBJECTS)
    except nats.js.errors.NotFoundError:
        return 0
    kept = {output_subject(job_uid) for job_uid in live_job_uids}
    removed = 0
    for subject in info.state.subjects or {}:
        if subject not in kept:
            removed += await _gone(js.purge_stream(OUTPUT_STREAM, subject=subject))
    return removed


async def _stream_names(js: JetStreamContext) -> list[str]:
    names: list[str] = []
    while True:
        page = [info.config.name for info in await js.streams_info(offset=len(names))]
        if not page:
            return names
        names.extend(page)


async def _gone(deletion: Any) -> int:
    """Carry out a deletion; 1 when there was something to delete."""
    try:
        await deletion
    except nats.js.errors.NotFoundError:
        return 0
    return 1
