"""A crash at any byte of what lies on the disk ends in the same output: each row once, in order."""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.rows import LocalJob

from vllm_operator.driver.output import NOTHING, OutputBusyError, PartialOutput, Totals
from vllm_operator.driver.rows import InputFacts, Line, Position
from vllm_operator.driver.sharding import CutSettings, CutStart, cut, max_rows_per_shard

ROWS = 120


def _write_input(job: LocalJob) -> None:
    job.input.write_bytes(b"".join(b'{"id":%d,"prompt":"%s"}\n' % (row, b"p" * (row % 7)) for row in range(ROWS)))


def _expected() -> bytes:
    return b"".join(
        b'{"id":%d,"prompt":"%s","answer":"echo %s"}\n' % (row, b"p" * (row % 7), b"p" * (row % 7))
        for row in range(ROWS)
    )


class _CrashError(Exception):
    """The process dies here."""


def _run_until_shard(job: LocalJob, last: int) -> None:
    """Run a driver that dies when it takes the result of shard ``last``."""
    original = job.relay.result

    async def result(shard: int) -> object:
        if shard == last:
            raise _CrashError
        return await original(shard)

    job.relay.result = result  # type: ignore[method-assign,assignment]
    with pytest.raises(_CrashError):
        asyncio.run(job.run())
    job.relay.result = original  # type: ignore[method-assign]


@settings(max_examples=30, deadline=None)
@given(last=st.integers(0, 7), cut_data=st.floats(0, 1), cut_log=st.floats(0, 1), lost=st.booleans())
def test_crash_at_any_byte(last: int, cut_data: float, cut_log: float, lost: bool) -> None:
    with tempfile.TemporaryDirectory() as name:
        job = LocalJob(Path(name))
        _write_input(job)
        _run_until_shard(job, last)
        for path, share in ((job.partial, cut_data), (job.log, cut_log)):
            os.truncate(path, int(path.stat().st_size * share))
        if lost:
            job.relay.stored.clear()
        report = asyncio.run(job.run())
        assert report.phase == "Succeeded"
        assert (report.rows_total, report.rows_completed, report.prompt_tokens) == (ROWS, ROWS, 2 * ROWS)
        assert job.output.read_bytes() == _expected()
        assert [path.name for path in job.output.parent.iterdir()] == ["answers.jsonl"]


async def test_torn_tails_are_cut_off(tmp_path: Path) -> None:
    job = LocalJob(tmp_path)
    _write_input(job)
    await asyncio.to_thread(_run_until_shard, job, 3)
    with job.partial.open("ab") as data, job.log.open("ab") as log:
        data.write(b'{"id":30,"prom')
        log.write(b'{"shards":')
    assert (await job.run()).phase == "Succeeded"
    assert [row["id"] for row in job.rows()] == list(range(ROWS))


async def test_crash_after_the_file_has_its_name(tmp_path: Path) -> None:
    job = LocalJob(tmp_path)
    _write_input(job)
    first = await job.driver().run()  # and dies before it cleans up
    second = await job.run()
    assert second == first
    assert [path.name for path in job.output.parent.iterdir()] == ["answers.jsonl"]


async def test_crash_between_the_two_removals(tmp_path: Path) -> None:
    job = LocalJob(tmp_path)
    _write_input(job)
    first = await job.driver().run()
    job.partial.unlink()
    assert await job.run() == first


async def test_input_was_changed_between_two_drivers(tmp_path: Path) -> None:
    job = LocalJob(tmp_path)
    _write_input(job)
    await asyncio.to_thread(_run_until_shard, job, 3)
    job.input.write_bytes(job.input.read_bytes().replace(b'"id":0', b'"id":9'))
    report = await job.run()
    assert (report.phase, report.reason) == ("Failed", "InputChanged")


async def test_results_of_an_earlier_driver_are_used(tmp_path: Path) -> None:
    job = LocalJob(tmp_path)
    _write_input(job)
    await asyncio.to_thread(_run_until_shard, job, 3)
    assert (await job.run()).phase == "Succeeded"
    assert job.relay.published == list(range(8))


async def test_late_results_are_removed_and_lost_shards_published_again(tmp_path: Path) -> None:
    job = LocalJob(tmp_path)
    _write_input(job)
    await asyncio.to_thread(_run_until_shard, job, 6)
    job.relay.stored.clear()
    job.relay.store(1, {"job_uid": "job-1", "shard": 1, "results": []})
    assert (await job.run()).phase == "Succeeded"
    assert job.relay.stored == {}
    assert [row["id"] for row in job.rows()] == list(range(ROWS))


async def test_a_full_disk_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = LocalJob(tmp_path)
    _write_input(job)
    driver = job.driver()
    write, failures = os.write, iter([True, False, True])
    seen: list[str | None] = []

    def failing_write(descriptor: int, content: bytes) -> int:
        if next(failures, False):
            write(descriptor, bytes(content)[:5])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(descriptor, content)

    monkeypatch.setattr(os, "write", failing_write)
    driver._on_phase = lambda progress: seen.append(progress.reason)
    report = await driver.run()
    assert report.phase == "Succeeded"
    assert "StorageError" in seen
    assert [row["id"] for row in job.rows()] == list(range(ROWS))


async def test_a_disk_that_stays_full_fails_the_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = LocalJob(tmp_path)
    _write_input(job)

    def no_space(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", no_space)
    report = await job.run()
    assert (report.phase, report.reason, report.message) == (
        "Failed",
        "StorageError",
        "the storage failed: No space left on device",
    )
    assert list(job.output.parent.iterdir()) == []


def test_two_drivers_of_one_job(tmp_path: Path) -> None:
    first, second = (PartialOutput(os.open(tmp_path, os.O_RDONLY), "out", "job-1") for _ in range(2))
    first.open()
    with pytest.raises(OutputBusyError):
        second.open()
    first.close()
    assert second.open() is None
    second.close()


def test_file_systems_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", no_links)
    output = PartialOutput(os.open(tmp_path, os.O_RDONLY), "out", "job-1")
    output.open()
    output.begin(InputFacts(1, "x"))
    output.append(b"{}\n", Totals(shards=1, rows=1))
    output.publish()
    assert output.check_free()
    output.remove()
    output.close()
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("out", b"{}\n")]


def test_long_names(tmp_path: Path) -> None:
    output = PartialOutput(os.open(tmp_path, os.O_RDONLY), "n" * 250, "job-1")
    output.open()
    output.begin(InputFacts(1, "x"))
    assert output.totals == NOTHING
    output.close()


lines = st.lists(st.integers(1, 4000), min_size=1, max_size=200).map(
    lambda sizes: [Line(i + 1, sum(sizes[:i]), sum(sizes[: i + 1]), b"x" * size) for i, size in enumerate(sizes)]
)


@given(rows=lines, max_rows=st.integers(1, 50), max_bytes=st.integers(1, 20_000), again=st.integers(0, 300))
@settings(max_examples=100, deadline=None)
def test_the_cut_is_whole_bounded_and_the_same_from_any_shard_on(
    rows: list[Line], max_rows: int, max_bytes: int, again: int
) -> None:
    sizes = CutSettings(max_rows=max_rows, row_overhead_bytes=10, max_bytes=max_bytes)
    plans = list(cut(rows, sizes))
    assert [plan.index for plan in plans] == list(range(len(plans)))
    assert sum(plan.rows for plan in plans) == len(rows)
    assert all(a.next_row == b.first_row and a.end == b.start for a, b in itertools.pairwise(plans))
    assert plans[-1].end == Position(rows[-1].end, rows[-1].number)
    for plan in plans:
        held = rows[plan.first_row : plan.next_row]
        assert 1 <= plan.rows <= max_rows
        assert plan.rows == 1 or sum(len(line.content or b"") + 10 for line in held) <= max_bytes
    first = plans[again % len(plans)]
    start = CutStart(first.index, first.first_row, first.start)
    assert list(cut(rows[first.first_row :], sizes, start)) == plans[first.index :]


@pytest.mark.parametrize(
    ("total", "workers", "endpoint", "max_tokens", "want"),
    [
        (1, 1, "/v1/chat/completions", 16, 10),
        (200, 1, "/v1/chat/completions", 1024, 25),
        (1_000_000, 4, "/v1/chat/completions", 256, 500),
        (1_000_000, 4, "/v1/chat/completions", 16_000_000, 1),
        (1_000_000, 4, "/v1/chat/completions", None, 180),
        (2000, 1, "/v1/embeddings", None, 64),
        (100, 1, "/v1/embeddings", None, 12),
    ],
)
def test_rows_per_shard(total: int, workers: int, endpoint: str, max_tokens: int | None, want: int) -> None:
    assert max_rows_per_shard(total, workers, endpoint, max_tokens) == want


@pytest.mark.parametrize("room", [1, 3])
async def test_a_full_queue_is_worked_off_by_taking_results(tmp_path: Path, room: int) -> None:
    """Waiting for room without taking results out would be waiting for oneself."""
    job = LocalJob(tmp_path)
    job.relay.room = room
    job.input.write_bytes(b'{"prompt": "a"}\n' * 95)
    report = await asyncio.wait_for(job.run(), 20)
    assert (report.phase, report.rows_completed) == ("Succeeded", 95)
    assert [row["answer"] for row in job.rows()] == ["echo a"] * 95
