"""Every bad input of a job: what the user sees in the output or on the object, and that nothing else is harmed."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.rows import LocalJob

from vllm_operator_api.runtime import DriverOutput, VolumeInput

GOOD = b'{"prompt": "a"}'
LONG_TEXT = b"x" * 5_000_000


@pytest.fixture
def job(tmp_path: Path) -> LocalJob:
    return LocalJob(tmp_path)


@pytest.mark.parametrize(
    ("content", "want_answers", "want_errors"),
    [
        pytest.param(GOOD + b"\n", ["echo a"], {}, id="one row"),
        pytest.param(GOOD, ["echo a"], {}, id="no final newline"),
        pytest.param(b"\xef\xbb\xbf" + GOOD + b"\n", ["echo a"], {}, id="byte order mark"),
        pytest.param(GOOD + b"\r\n" + GOOD + b"\r\n", ["echo a", "echo a"], {}, id="CRLF"),
        pytest.param(b"\n" + GOOD + b"\n  \n\r\n" + GOOD, ["echo a", "echo a"], {}, id="blank lines are not counted"),
        pytest.param(GOOD + b"\n{not json}\n", ["echo a", None], {1: "line 2: not valid JSON"}, id="invalid JSON"),
        pytest.param(
            b"\n[1]\n" + GOOD, [None, "echo a"], {0: "line 2: an array where a JSON object"}, id="not an object"
        ),
        pytest.param(b"null", [None], {0: "null where a JSON object"}, id="null"),
        pytest.param(b'{"text": "a"}', [None], {0: "line 1: no key 'prompt'"}, id="missing key"),
        pytest.param(b'{"prompt": 7}', [None], {0: "must be a string or a list of messages"}, id="key of a wrong type"),
        pytest.param(b'{"prompt": []}', [None], {0: "must be a string or a list of messages"}, id="no messages"),
        pytest.param(b'{"prompt": [{"role": "boss"}]}', [None], {0: "with a role of"}, id="unknown role"),
        pytest.param(b'{"prompt": [{"role": ["user"]}]}', [None], {0: "with a role of"}, id="role of a wrong type"),
        pytest.param(b'{"prompt": [null, 7]}', [None], {0: "with a role of"}, id="messages of a wrong type"),
        pytest.param(
            b'{"prompt": [{"role":"user","content":[{"type":["text"],"text":"a"}]}]}',
            [None],
            {0: "a string or a list of text parts"},
            id="part of a wrong type",
        ),
        pytest.param(
            b'{"prompt": [{"role":"user","content":[{"type":"image_url","image_url":{"url":"http://169.254.169.254/"}}]}]}',
            [None],
            {0: "a string or a list of text parts"},
            id="an image's address",
        ),
        pytest.param(
            b'{"prompt": "\xff\xfe"}\n' + GOOD, [None, "echo a"], {0: "line 1: not UTF-8 (byte 12)"}, id="not UTF-8"
        ),
        pytest.param(GOOD.decode().encode("utf-16"), [None], {0: "not UTF-8"}, id="UTF-16"),
        pytest.param(b'{"prompt": "\\ud800"}', [None], {0: "not valid JSON"}, id="lone surrogate"),
        pytest.param(b'{"prompt": NaN}', [None], {0: "not valid JSON"}, id="NaN"),
        pytest.param(b'{"prompt": "a", "x": ' + b"[" * 65 + b"]" * 65 + b"}", [None], {0: "deeper than 64"}, id="deep"),
        pytest.param(b"[" * 100_000, [None], {0: "not valid JSON"}, id="very deep"),
        pytest.param(
            b'{"prompt": "' + LONG_TEXT + b'"}\n' + GOOD,
            [f"echo {LONG_TEXT.decode()}", "echo a"],
            {},
            id="a line of 5 MB",
        ),
        pytest.param(
            GOOD + b'\n{"prompt": "' + b"x" * 7_000_000 + b'"}\n' + GOOD,
            ["echo a", None, "echo a"],
            {1: "line 2: 7000015 bytes; a row may have 6291456"},
            id="a line of 7 MB",
        ),
        pytest.param(b'{"prompt": "fail me"}', [None], {0: "too long: fail me"}, id="longer than the model's context"),
    ],
)
async def test_rows(job: LocalJob, content: bytes, want_answers: list[str | None], want_errors: dict[int, str]) -> None:
    job.input.write_bytes(content)
    report = await job.run()
    assert report.phase == "Succeeded"
    assert (report.rows_total, report.rows_failed) == (len(want_answers), len(want_errors))
    rows = job.rows()
    assert [row["answer"] for row in rows] == want_answers
    errors = {index: row["answer_error"] for index, row in enumerate(rows) if "answer_error" in row}
    assert errors.keys() == want_errors.keys()
    for index, text in want_errors.items():
        assert text in errors[index]["message"]
    assert sorted(path.name for path in job.output.parent.iterdir()) == ["answers.jsonl"]


async def test_a_row_keeps_what_the_user_wrote(job: LocalJob) -> None:
    job.input.write_bytes(
        b'{"n": 12345678901234567890123, "f": 1.10, "s": "\\u00e4", "prompt": "a"}\n{ }\n{"prompt":"b","answer":1}\n'
    )
    await job.run()
    assert job.output.read_bytes().splitlines() == [
        b'{"n": 12345678901234567890123, "f": 1.10, "s": "\\u00e4", "prompt": "a","answer":"echo a"}',
        b'{"answer":null,"answer_error":{"code":"invalid_row","message":"line 2: no key \'prompt\'","attempts":0}}',
        b'{"prompt":"b","answer":"echo b"}',
    ]


async def test_an_error_of_the_engine_is_a_row(job: LocalJob) -> None:
    job.input.write_bytes(b'{"id": 1, "prompt": "fail"}\n')
    await job.run()
    error = {"code": "context_length_exceeded", "message": "too long: fail", "status": 400, "attempts": 1}
    assert job.rows() == [{"id": 1, "prompt": "fail", "answer": None, "answer_error": error}]


async def test_embeddings(job: LocalJob) -> None:
    job.changes = {"endpoint": "/v1/embeddings", "sampling": {}}
    job.input.write_bytes(b'{"prompt": "abc"}\n{"prompt": ["a", "b"]}\n')
    await job.run()
    assert job.rows()[0] == {"prompt": "abc", "answer": [3.0, 0.5]}
    assert "must be a string" in str(job.rows()[1]["answer_error"])


@pytest.mark.parametrize("content", [b"", b"\n\n", b"\xef\xbb\xbf", b"  \r\n\t"], ids=repr)
async def test_empty_input(job: LocalJob, content: bytes) -> None:
    job.input.write_bytes(content)
    report = await job.run()
    assert (report.phase, report.reason) == ("Failed", "InputEmpty")
    assert "no row" in report.message
    assert list(job.output.parent.iterdir()) == []


async def test_missing_input(job: LocalJob) -> None:
    report = await job.run()
    assert (report.phase, report.reason, report.message) == (
        "Failed",
        "InputNotFound",
        "the input has no file 'in.jsonl'",
    )


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _directory(path: Path) -> None:
    path.mkdir()


def _link_out(path: Path) -> None:
    (path.parent.parent / "secret").write_text("token")
    path.symlink_to("../secret")


def _absolute_link(path: Path) -> None:
    path.symlink_to("/etc/hostname")


def _device(path: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("make", [_fifo, _directory, _link_out, _absolute_link, _device])
async def test_input_is_no_regular_file_of_the_volume(job: LocalJob, make: object) -> None:
    make(job.input)  # type: ignore[operator]
    report = await job.run()
    assert (report.phase, report.reason) == ("Failed", "InputNotRegularFile")


@pytest.mark.parametrize("path", ["../secret", "a/../../secret"])
async def test_input_path_leads_out(job: LocalJob, path: str) -> None:
    (job.root / "secret").write_text("token")
    (job.root / "input" / "a").mkdir()
    job.changes = {"input": VolumeInput(path=path)}
    report = await job.run()
    assert (report.phase, report.reason) == ("Failed", "InputNotRegularFile")


async def test_a_config_map_volume_is_read_through_its_links(job: LocalJob) -> None:
    data = job.root / "input" / "..2026_01_01"
    data.mkdir()
    (data / "in.jsonl").write_bytes(GOOD)
    (job.root / "input" / "..data").symlink_to("..2026_01_01")
    job.input.symlink_to("..data/in.jsonl")
    assert (await job.run()).phase == "Succeeded"


async def test_output_exists(job: LocalJob) -> None:
    job.input.write_bytes(GOOD)
    job.output.write_bytes(b"precious")
    report = await job.run()
    assert (report.phase, report.reason) == ("Failed", "OutputExists")
    assert "'answers.jsonl' exists already and is not overwritten" in report.message
    assert job.output.read_bytes() == b"precious"
    assert job.relay.published == []


async def test_output_appears_meanwhile(job: LocalJob) -> None:
    job.input.write_bytes(GOOD)
    job.relay.answering = False
    original = job.relay.publish

    async def publish(shard: int, payload: bytes, *, compressed: bool) -> None:
        job.output.write_bytes(b"precious")
        job.relay.answering = True
        await original(shard, payload, compressed=compressed)

    job.relay.publish = publish  # type: ignore[method-assign]
    report = await job.run()
    assert (report.phase, report.reason) == ("Failed", "OutputExists")
    assert job.output.read_bytes() == b"precious"


@pytest.mark.parametrize("path", ["link/answers.jsonl", "file/answers.jsonl"])
async def test_output_directory_is_none(job: LocalJob, path: str) -> None:
    job.input.write_bytes(GOOD)
    (job.root / "output" / "link").symlink_to("/tmp")
    (job.root / "output" / "file").write_text("")
    job.changes = {"output": DriverOutput(path=path, result_key="answer")}
    report = await job.run()
    assert (report.phase, report.reason) == ("Failed", "StorageError")
    assert "is not a directory" in report.message


async def test_output_directories_are_made(job: LocalJob) -> None:
    job.input.write_bytes(GOOD)
    job.changes = {"output": DriverOutput(path="a/b/c.jsonl", result_key="answer")}
    assert (await job.run()).phase == "Succeeded"
    assert (job.root / "output" / "a" / "b" / "c.jsonl").is_file()


async def test_input_changes_while_the_job_runs(job: LocalJob) -> None:
    job.input.write_bytes(b"".join(b'{"prompt": "%d"}\n' % row for row in range(200)))
    original = job.relay.publish

    async def publish(shard: int, payload: bytes, *, compressed: bool) -> None:
        await original(shard, payload, compressed=compressed)
        if shard == 4:
            job.input.write_bytes(GOOD)

    job.relay.publish = publish  # type: ignore[method-assign]
    report = await job.run()
    assert (report.phase, report.reason) == ("Failed", "InputChanged")
    assert list(job.output.parent.iterdir()) == []


async def test_output_for_a_config_map_is_too_large(job: LocalJob) -> None:
    job.changes = {"output": DriverOutput(path=None, result_key="answer")}
    job.input.write_bytes(b'{"prompt": "' + b"x" * 500_000 + b'"}\n')
    report = await job.run()
    assert (report.phase, report.reason) == ("Failed", "OutputTooLarge")
    assert "use a PersistentVolumeClaim" in report.message
    assert job.relay.output is None


async def test_output_for_a_config_map(job: LocalJob) -> None:
    job.changes = {"output": DriverOutput(path=None, result_key="answer")}
    job.input.write_bytes(GOOD)
    report = await job.run()
    assert job.relay.output == b'{"prompt": "a","answer":"echo a"}\n'
    assert report.output_bytes == len(job.relay.output)


async def test_results_that_are_never_right(job: LocalJob) -> None:
    job.input.write_bytes(GOOD)
    job.relay.answer = lambda message: job.relay.store(0, {"job_uid": "job-1", "shard": 0, "results": []})  # type: ignore[method-assign]
    report = await job.run()
    assert (report.phase, report.reason) == ("Failed", "DriverFailed")
    assert "shard 0 was answered wrongly 5 times, last: 0 rows where these 1 were asked for" in report.message


async def test_an_answer_that_no_file_can_hold(job: LocalJob) -> None:
    """A number beyond 64 bits: that row has an error, and the driver lives."""
    job.changes = {"endpoint": "/v1/embeddings"}
    job.input.write_bytes(GOOD)
    body = {"data": [{"embedding": [1]}], "usage": {"prompt_tokens": 3}}
    job.relay.store(0, {"job_uid": "job-1", "shard": 0, "results": [{"row": 0, "body": body}]})
    stored = job.relay.stored[0]
    job.relay.stored[0] = replace(stored, payload=stored.payload.replace(b"[1]", b"[%d]" % 10**30))
    report = await job.run()
    assert (report.phase, report.rows_failed, report.prompt_tokens) == ("Succeeded", 1, 0)
    assert job.rows()[0]["answer_error"]["code"] == "invalid_answer"  # type: ignore[index]


async def test_an_output_directory_that_is_not_the_jobs(job: LocalJob, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may write everywhere, so the kernel's answer is given here."""

    def denied(path: str, *_: object, **__: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied", path)

    job.input.write_bytes(GOOD)
    job.changes = {"output": DriverOutput(path="deep/answers.jsonl", result_key="answer")}
    monkeypatch.setattr("vllm_operator.driver.storage.os.mkdir", denied)
    report = await job.run()
    assert (report.phase, report.reason) == ("Failed", "StorageError")
    assert "Permission denied: 'deep' (the job's user has uid" in report.message
