"""Queue contract: names of JetStream objects and the messages that operator, driver and agents exchange.

``queue_id`` is the uid of the LLMService, ``job_uid`` that of the InferenceJob: never a name, so that a re-created
object never meets the state of the one before. Payloads are JSON; a payload whose
NATS header ``Content-Encoding`` is ``zstd`` is compressed.

Who owns what: the operator makes and deletes streams and consumers; a driver publishes the shards of its job and
reads its results; an agent leases shards, publishes results and heartbeats.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

TOKEN_PATTERN: Final = re.compile(r"^[A-Za-z0-9_-]{1,64}$")
"""What may become part of a subject or of a JetStream name: one token without wildcards."""

CONTENT_ENCODING_HEADER: Final = "Content-Encoding"
ZSTD: Final = "zstd"
EXPECTED_LAST_SUBJECT_SEQUENCE_HEADER: Final = "Nats-Expected-Last-Subject-Sequence"
"""With value 0: publish only when the subject holds no message yet; the server answers error 10071 otherwise."""
WRONG_LAST_SEQUENCE_ERROR: Final = 10071
MAX_MESSAGES_PER_SUBJECT_ERROR: Final = 10077

MAX_PAYLOAD_BYTES: Final = 8 * 1024 * 1024
"""``max_payload`` of the chart's nats-server (``queue/server_config.py``)."""
MAX_HEARTBEAT_BYTES: Final = 8 * 1024
"""Larger heartbeats are dropped unread."""
MAX_SHARD_ROWS: Final = 500
"""Nothing is gained above (measured: 500 rows or 128-256 KiB a shard, whichever is less)."""
MAX_SHARD_BYTES: Final = 256 * 1024
MAX_ROW_BYTES: Final = 6 * 1024 * 1024
"""A row whose request is larger becomes an error row: it has to fit into one message with room for the envelope."""


MAX_RESULT_DOCUMENT_BYTES: Final = 32 * 1024 * 1024
"""Of a shard's result before compression, which shrinks an answer that repeats itself to nearly nothing: a driver has
to hold it several times over."""
MAX_COUNT: Final = 10**12
"""Of rows, shards and tokens; more is no count but a fault, and a status has no room for it."""


def checked_token(value: str) -> str:
    """Return ``value`` when it is safe as one subject token.

    Raises:
        ValueError: it is empty, too long, or holds a character outside ``[A-Za-z0-9_-]``.
    """
    if not TOKEN_PATTERN.match(value):
        raise ValueError(f"{value!r} cannot be a token of a queue subject")
    return value


def work_stream(queue_id: str) -> str:
    """Stream of leasable work of one LLMService (work-queue retention, one message per subject)."""
    return f"Q_{checked_token(queue_id)}"


def result_stream(queue_id: str) -> str:
    """Stream of shard results of one LLMService (limits retention, one message per subject)."""
    return f"R_{checked_token(queue_id)}"


def work_subjects(queue_id: str) -> str:
    """Subjects of the work stream."""
    return f"q.{checked_token(queue_id)}.>"


def result_subjects(queue_id: str) -> str:
    """Subjects of the result stream."""
    return f"r.{checked_token(queue_id)}.>"


def shard_subject(queue_id: str, job_uid: str, shard: int | str) -> str:
    """Subject of one shard to be leased (``shard`` may be ``*`` for a filter)."""
    return f"q.{checked_token(queue_id)}.b.{checked_token(job_uid)}.{shard}"


def result_subject(queue_id: str, job_uid: str, shard: int | str) -> str:
    """Subject of one shard's result; the first writer wins (``shard`` may be ``*`` for a filter)."""
    return f"r.{checked_token(queue_id)}.{checked_token(job_uid)}.{shard}"


def result_notice_subject(queue_id: str, job_uid: str, shard: int | str) -> str:
    """Core subject on which the server repeats the headers of each stored result: a driver needs no consumer."""
    return f"rn.{checked_token(queue_id)}.{checked_token(job_uid)}.{shard}"


def result_notice_subjects(queue_id: str) -> str:
    """Subjects of the notices of one LLMService's results."""
    return f"rn.{checked_token(queue_id)}.>"


OPERATOR_INBOX_PREFIX: Final = "_INBOX_operator"
AGENT_INBOX_PREFIX: Final = "_INBOX_agent"
DRIVER_INBOX_PREFIX: Final = "_INBOX_driver"
"""``inbox_prefix`` that a client of each role must connect with: it may subscribe to no other inbox."""

JOB_CONSUMER_PREFIX: Final = "b_"


def job_consumer(job_uid: str) -> str:
    """Durable pull consumer of one job on the work stream. Its existence is the job's registration with the agents."""
    return f"{JOB_CONSUMER_PREFIX}{checked_token(job_uid)}"


def heartbeat_subject(queue_id: str, worker: str) -> str:
    """Core (not stored) subject of an agent's heartbeats; ``worker`` is the pod's name, dots replaced."""
    return f"hb.{checked_token(queue_id)}.{checked_token(worker.replace('.', '_')[:64])}"


HEARTBEAT_FILTER: Final = "hb.*.*"


def wake_subject(queue_id: str) -> str:
    """Core subject on which agents are told that there is new work."""
    return f"ctl.{checked_token(queue_id)}.wake"


def progress_subject(job_uid: str) -> str:
    """Core subject of a driver's progress reports."""
    return f"jp.{checked_token(job_uid)}"


PROGRESS_FILTER: Final = "jp.*"

OUTPUT_STREAM: Final = "OUTPUTS"
"""Stream of finished outputs that go into a ConfigMap; the operator takes them from there (a driver has no API
token)."""
OUTPUT_SUBJECTS: Final = "out.*"


def output_subject(job_uid: str) -> str:
    """Subject of a job's finished ConfigMap output."""
    return f"out.{checked_token(job_uid)}"


class Message(BaseModel):
    """Base of all messages: unknown fields of a newer peer are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class RowRequest(Message):
    """One row, as the request body that the engine gets."""

    row: Annotated[int, Field(ge=0)]
    """Index in the job's input, from 0."""
    body: dict[str, Any]


class Shard(Message):
    """Consecutive rows that are leased together. Rows that were invalid in the input are not among them."""

    version: Literal[1] = 1
    job_uid: str
    shard: Annotated[int, Field(ge=0)]
    endpoint: str
    requests: list[RowRequest]


class RowError(Message):
    """Why a row has no answer."""

    code: str
    """An OpenAI error code or type where the engine gave one, else one of ours (snake_case)."""
    message: str
    status: Annotated[int, Field(ge=0, le=999)] | None = None
    """HTTP status of the engine's answer, if there was one."""
    attempts: Annotated[int, Field(ge=0, le=1_000_000)] = 1


class RowResult(Message):
    """One row's outcome: exactly one of ``body`` and ``error``."""

    row: Annotated[int, Field(ge=0)]
    body: dict[str, Any] | None = None
    """The engine's answer, whole."""
    error: RowError | None = None


class ShardResult(Message):
    """All rows of a shard, in the shard's order. The driver refuses one whose rows are not the shard's."""

    version: Literal[1] = 1
    job_uid: str
    shard: Annotated[int, Field(ge=0)]
    worker: str
    results: list[RowResult]


Seconds = Annotated[float, Field(ge=0, le=1e9)]
"""A duration; more than thirty years of it, infinity and NaN are no durations, and arithmetic on times would fail."""


class LeaseReport(Message):
    """A shard that an agent holds."""

    job_uid: str
    shard: int
    rows: int
    done: int
    age_seconds: Seconds
    renewed_seconds_ago: Seconds


WorkerState = Literal["starting", "running", "draining", "stopping"]


class EngineReport(Message):
    """What the middleware inside the engine counts. Durations are of the pod's monotonic clock: no clock skew."""

    ready: bool
    in_flight: Annotated[int, Field(ge=0)]
    """HTTP requests for inference whose response has not ended, the agent's own included. Exact."""
    idle_seconds: Seconds
    """Time since the last such request began or ended; 0 while one is in flight."""
    requests_total: Annotated[int, Field(ge=0)]
    """Inference requests since the engine's start: catches those wholly between two heartbeats."""


class KvCacheReport(Message):
    """The KV cache that the engine made at its start: labels of its metric ``vllm:cache_config_info``."""

    engines: Annotated[int, Field(ge=1, le=4096)] = 1
    """Data-parallel engines behind the one HTTP server."""
    blocks: Annotated[int, Field(ge=0, le=MAX_COUNT)]
    """``num_gpu_blocks``: the sum over ``engines`` (v1/engine/core_client.py:853)."""
    block_tokens: Annotated[int, Field(ge=1, le=MAX_COUNT)]
    """``block_size``; of a hybrid model as the engine enlarged it."""
    tokens: Annotated[int, Field(ge=0, le=MAX_COUNT)] | None = None
    """``kv_cache_size_tokens``, of one engine (v1/engine/core_client.py:861). None: a vLLM that does not tell it."""
    max_concurrency: Annotated[float, Field(ge=0, le=1e9)] | None = None
    """``kv_cache_max_concurrency``: requests of full length that one engine holds at a time. None: not told."""


class Heartbeat(Message):
    """Sent by an agent every ``heartbeatSeconds`` and at once when its state or its leases change."""

    version: Literal[1] = 1
    queue_id: str
    worker: str
    """Name of the pod."""
    pod_uid: str
    node: str
    state: WorkerState
    slots: int
    sequence: Annotated[int, Field(ge=0)]
    engine: EngineReport | None = None
    """None: the engine does not answer (it loads, hangs or is gone); never a reason to call it idle."""
    kv_cache: KvCacheReport | None = None
    """None: not read yet, or an engine without one. Read once per start of the engine."""
    leases: list[LeaseReport] = []


Count = Annotated[int, Field(ge=0, le=MAX_COUNT)]
"""A report comes from the user's namespace: what is beyond the bounds is no report."""
DriverPhase = Literal["Validating", "Running", "Finalizing", "Succeeded", "Failed"]


class JobProgress(Message):
    """A driver's report: on every change of phase, else at most every 2 s. The last is also its exit message."""

    version: Literal[1] = 1
    job_uid: str
    phase: DriverPhase
    reason: str | None = None
    """A value of ``conditions.Reason`` when Failed."""
    message: str = ""
    rows_total: Count | None = None
    rows_completed: Count = 0
    rows_failed: Count = 0
    shards_total: Count | None = None
    shards_committed: Count = 0
    prompt_tokens: Count = 0
    completion_tokens: Count = 0
    output_bytes: Annotated[int, Field(ge=0, le=2**62)] | None = None
    output_sha256: Annotated[str, Field(max_length=64)] | None = None
