"""Fair turn, adaptive concurrency, judging answers, refusing requests, encoding results, suspects, heartbeats."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from vllm_operator_api.queue import (
    MAX_HEARTBEAT_BYTES,
    Heartbeat,
    LeaseReport,
    RowError,
    RowRequest,
    Shard,
    ShardResult,
)
from vllm_runtime.agent.concurrency import AdaptiveLimit
from vllm_runtime.agent.fairness import FairTurn
from vllm_runtime.agent.heartbeats import fitting
from vllm_runtime.agent.requests import CHAT, EMBEDDINGS, refuse
from vllm_runtime.agent.results import Outcome, decompress, encode
from vllm_runtime.agent.row_errors import Verdict, backoff_seconds, judge
from vllm_runtime.agent.suspects import Suspects


class TestFairTurn:
    def test_equal_rows_whatever_the_shard_sizes(self) -> None:
        turn, rows = FairTurn(), Counter[str]()
        sizes = {"a": 500, "b": 50, "c": 5}
        while sum(rows.values()) < 30_000:
            job = turn.order(sizes)[0]
            turn.charge(job, sizes[job])
            rows[job] += sizes[job]
        assert max(rows.values()) - min(rows.values()) <= 500

    def test_a_new_job_neither_waits_nor_takes_everything(self) -> None:
        turn = FairTurn()
        for _ in range(100):
            turn.charge(turn.order(["old"])[0], 100)
        order = []
        for _ in range(10):
            job = turn.order(["old", "new"])[0]
            turn.charge(job, 100)
            order.append(job)
        assert order[0] == "new" or order[1] == "new"
        assert 4 <= order.count("new") <= 6

    def test_forgets_ended_jobs(self) -> None:
        turn = FairTurn()
        turn.charge("ended", 100)
        turn.keep_only({"other"})
        assert turn.order(["ended"]) == ["ended"]


class TestAdaptiveLimit:
    def test_halves_once_for_a_burst_and_recovers_one_by_one(self) -> None:
        limit = AdaptiveLimit(64)
        for _ in range(20):
            limit.overloaded(10.0)
        assert limit.current == 32
        for _ in range(31):
            limit.healthy()
        assert limit.current == 32
        limit.healthy()
        assert limit.current == 33

    @given(st.integers(1, 512), st.lists(st.booleans(), max_size=300))
    def test_stays_in_bounds(self, maximum: int, answers: list[bool]) -> None:
        limit = AdaptiveLimit(maximum)
        for second, good in enumerate(answers):
            if good:
                limit.healthy()
            else:
                limit.overloaded(float(second * 2))
            assert 1 <= limit.current <= maximum


def openai_error(message: str, kind: str = "BadRequestError", code: object = 400) -> bytes:
    return json.dumps({"error": {"message": message, "type": kind, "param": None, "code": code}}).encode()


class TestJudge:
    @pytest.mark.parametrize(
        ("status", "body", "verdict", "code"),
        [
            (200, b'{"choices": []}', Verdict.ANSWERED, None),
            (200, b"[1]", Verdict.RETRY, "invalid_response"),
            (200, b'{"data": [NaN]}', Verdict.RETRY, "invalid_response"),
            (200, b'{"choices": [{"finish_reason": "abort"}]}', Verdict.LEAVING, "aborted"),
            (400, openai_error("too long"), Verdict.PERMANENT, "BadRequestError"),
            (400, openai_error("x", code="context_length_exceeded"), Verdict.PERMANENT, "context_length_exceeded"),
            (400, b'{"object": "error", "message": "flat", "type": "T", "code": 400}', Verdict.PERMANENT, "T"),
            (404, openai_error("no model", "NotFoundError", 404), Verdict.PERMANENT, "NotFoundError"),
            (422, b"<html>", Verdict.PERMANENT, "http_422"),
            (408, b"", Verdict.RETRY, "http_408"),
            (409, b"", Verdict.RETRY, "http_409"),
            (429, openai_error("slow down", "RateLimitError", 429), Verdict.OVERLOADED, "RateLimitError"),
            (
                503,
                openai_error("queue full", "ServiceUnavailableError", 503),
                Verdict.OVERLOADED,
                "ServiceUnavailableError",
            ),
            (503, openai_error("shutting down", "service_unavailable", 503), Verdict.LEAVING, "service_unavailable"),
            (500, openai_error("boom", "InternalServerError", 500), Verdict.RETRY, "InternalServerError"),
            (500, openai_error("cannot schedule new futures after shutdown", "E", 500), Verdict.LEAVING, "E"),
            (500, openai_error("EngineCore encountered an issue. See stack trace", "E", 500), Verdict.LEAVING, "E"),
            (502, b"", Verdict.RETRY, "http_502"),
        ],
    )
    def test_answers(self, status: int, body: bytes, verdict: Verdict, code: str | None) -> None:
        judgement = judge(status, body)
        assert judgement.verdict is verdict
        assert (judgement.error.code if judgement.error else None) == code

    @given(st.integers(100, 599), st.binary(max_size=200))
    def test_any_answer_has_a_verdict(self, status: int, body: bytes) -> None:
        judgement = judge(status, body)
        assert (judgement.verdict is Verdict.ANSWERED) == (judgement.error is None)

    def test_messages_are_bounded(self) -> None:
        error = judge(400, openai_error("x" * 100_000)).error
        assert error is not None
        assert len(error.message) == 2000

    def test_backoff_grows_to_its_bound(self) -> None:
        assert [backoff_seconds(attempt, 1.0) for attempt in (1, 2, 3, 20)] == [0.25, 0.5, 1.0, 10.0]
        assert backoff_seconds(1, 0.0) == 0.125


class TestRefuse:
    def test_ordinary_rows_pass(self) -> None:
        chat = {"model": "m", "messages": [], "temperature": 0, "max_tokens": 5, "seed": 1, "stop": ["x"], "top_p": 1}
        assert refuse(CHAT, chat) is None
        assert refuse(EMBEDDINGS, {"model": "m", "input": "x"}) is None

    @pytest.mark.parametrize(
        "field",
        [
            "stream",
            "priority",
            "kv_transfer_params",
            "vllm_xargs",
            "mm_processor_kwargs",
            "chat_template",
            "request_id",
            "logit_bias",
            "guided_regex",
            "structured_outputs",
            "response_format",
            "bad_words",
            "documents",
            "tools",
            "user",
        ],
    )
    def test_other_fields_do_not(self, field: str) -> None:
        error = refuse(CHAT, {"model": "m", "messages": [], field: 1})
        assert error is not None
        assert error.code == "invalid_request"
        assert field in error.message

    @pytest.mark.parametrize(
        "endpoint", ["/v1/completions", "/invocations", "/sleep", "http://other/v1/embeddings", ""]
    )
    def test_other_endpoints_do_not(self, endpoint: str) -> None:
        assert refuse(endpoint, {}) is not None


def shard_of(count: int) -> Shard:
    requests = [RowRequest(row=10 + index, body={}) for index in range(count)]
    return Shard(job_uid="j", shard=3, endpoint=CHAT, requests=requests)


def decoded(payload: bytes) -> ShardResult:
    return ShardResult.model_validate_json(decompress(payload, 1 << 26))


class TestResults:
    def test_round_trip_in_order(self) -> None:
        outcomes = [
            Outcome(body=b'{"a": 1}'),
            Outcome(error=RowError(code="c", message="m", status=400)),
            Outcome(body=b"{}"),
        ]
        result = decoded(encode(shard_of(3), "w", outcomes, 1 << 20))
        assert (result.job_uid, result.shard, result.worker) == ("j", 3, "w")
        assert [(row.row, row.body) for row in result.results] == [(10, {"a": 1}), (11, None), (12, {})]
        assert result.results[1].error == RowError(code="c", message="m", status=400)

    def test_the_largest_answers_give_way(self) -> None:
        import random

        noise = random.Random(1)
        sizes = [100, 60_000, 200, 50_000, 300]
        outcomes = [
            Outcome(
                body=json.dumps(
                    {"text": "".join(noise.choices("abcdefghijklmnopqrstuvwxyz0123456789", k=size))}
                ).encode()
            )
            for size in sizes
        ]
        payload = encode(shard_of(5), "w", outcomes, 45_000)
        assert len(payload) <= 45_000
        rows = decoded(payload).results
        assert [row.body is not None for row in rows] == [True, False, True, True, True]
        assert rows[1].error is not None
        assert rows[1].error.code == "result_too_large"

    def test_answers_that_repeat_themselves_give_way_too(self) -> None:
        """They compress to nearly nothing, and no driver would hold them."""
        outcomes = [Outcome(body=b'{"text": "%s"}' % (b"a" * size)) for size in (20_000_000, 10, 19_000_000)]
        rows = decoded(encode(shard_of(3), "w", outcomes, 8 << 20)).results
        assert [row.body is not None for row in rows] == [False, True, True]

    def test_bombs_are_not_unpacked(self) -> None:
        bomb = zstandard.ZstdCompressor(level=1).compress(b"\0" * 5_000_000)
        with pytest.raises(ValueError, match="larger than 1000000 bytes"):
            decompress(bomb, 1_000_000)
        with pytest.raises(ValueError, match="cannot be decompressed"):
            decompress(b"not zstd at all", 1000)


class TestSuspects:
    def test_blamed_after_two_ends_alone(self, tmp_path: Path) -> None:
        path = tmp_path / "suspects.json"
        for end in range(2):
            suspects = Suspects(path)
            suspects.load()
            assert not suspects.blamed("j", 7), end
            suspects.sending("j", 6)
            suspects.answered()
            suspects.sending("j", 7)
        suspects = Suspects(path)
        suspects.load()
        assert suspects.blamed("j", 7)
        assert not suspects.blamed("j", 6)

    def test_an_engine_that_died_counts_once_though_both_see_it(self, tmp_path: Path) -> None:
        suspects = Suspects(tmp_path / "s.json")
        suspects.sending("j", 1)
        suspects.engine_died()
        suspects.engine_died()
        again = Suspects(tmp_path / "s.json")
        again.load()
        assert not again.blamed("j", 1)

    @pytest.mark.parametrize("content", ["", "[]", '{"ends": 3, "sent": null}', '{"ends": {"a": "x"}, "sent": 1}'])
    def test_a_broken_file_is_no_fault(self, tmp_path: Path, content: str) -> None:
        path = tmp_path / "s.json"
        path.write_text(content)
        suspects = Suspects(path)
        suspects.load()
        assert not suspects.blamed("j", 1)

    def test_a_read_only_volume_is_no_fault(self, tmp_path: Path) -> None:
        suspects = Suspects(tmp_path / "missing" / "s.json")
        suspects.sending("j", 1)


def test_heartbeats_fit() -> None:
    lease = LeaseReport(job_uid="x" * 36, shard=1, rows=500, done=1, age_seconds=1.5, renewed_seconds_ago=0.5)
    heartbeat = Heartbeat(
        queue_id="q", worker="w", pod_uid="u", node="n", state="running", slots=64, sequence=1, leases=[lease] * 200
    )
    fitted = fitting(heartbeat)
    assert 10 < len(fitted.leases) < 200
    assert len(fitted.model_dump_json().encode()) <= MAX_HEARTBEAT_BYTES
    small = heartbeat.model_copy(update={"leases": [lease]})
    assert fitting(small) is small
