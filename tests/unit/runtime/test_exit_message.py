"""What is made of the engine's output; the samples are what vLLM 0.32.0 really wrote."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_operator_api.runtime import (
    MAX_TERMINATION_MESSAGE_BYTES,
    EngineExit,
    EngineFault,
    GpuOutOfMemory,
    IllegalParallelism,
    LengthTooLong,
    NoCacheBlocks,
)
from vllm_runtime.exit_message import OutputTail, container_exit_code, engine_error, engine_exit, render

SAMPLES = Path(__file__).parent / "engine_output"


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        ("flag", "unrecognized arguments: --nope"),
        ("type", "argument --max-model-len: invalid human_readable_int_or_auto value: 'abc'"),
        ("len", "User-specified max_model_len (99999999) is greater than the derived max_model_len "),
        ("quant", "Cannot find the config file for awq"),
        ("tp", "Total number of attention heads (4) must be divisible by tensor parallel size (3)."),
        (
            "seqs",
            "max_num_batched_tokens: Input should be greater than or equal to 1; max_num_seqs: Input should be greater",
        ),
        ("model", "HFValidationError: Repo id must use alphanumeric chars, "),
        ("kv", "No available memory for the cache blocks. Try increasing `gpu_memory_utilization` "),
        ("length", "To serve at least one request with the model's max seq len (2048), (0.0 GiB KV cache is needed, "),
    ],
)
def test_the_error_a_user_wants_to_read(sample: str, message: str) -> None:
    found = engine_error((SAMPLES / f"{sample}.txt").read_text().splitlines())
    assert found is not None
    assert found.startswith(message)
    assert "[type=" not in found
    assert "Traceback" not in found


@pytest.mark.parametrize(
    ("sample", "fault"),
    [
        ("flag", None),
        ("seqs", None),
        ("tp", IllegalParallelism()),
        ("kv", NoCacheBlocks()),
        ("length", LengthTooLong(length_tokens=2048, needed_gib=0.0, available_gib=0.0, longest_tokens=384)),
    ],
)
def test_the_fault_in_numbers(sample: str, fault: EngineFault | None) -> None:
    document = engine_exit("start", 1, (SAMPLES / f"{sample}.txt").read_text().splitlines())
    assert document.fault == fault
    assert EngineExit.model_validate_json(render(document)) == document


def test_a_fault_counts_before_what_follows_from_it() -> None:
    lines = [
        "(Worker_TP0 pid=1) Traceback (most recent call last):",
        "(Worker_TP0 pid=1) torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.",
        "(Worker_TP1 pid=2) Traceback (most recent call last):",
        "(Worker_TP1 pid=2) torch.distributed.DistBackendError: NCCL error: remote process exited",
    ]
    document = engine_exit("start", 1, lines)
    assert document.message == "OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB."
    assert document.fault == GpuOutOfMemory(tried_gib=2.0)


def test_an_assertion_without_a_message_is_quoted() -> None:
    lines = [
        "Traceback (most recent call last):",
        '  File "/opt/vllm/vllm/model_executor/models/llama.py", line 145, in __init__',
        "    assert self.total_num_heads % tp_size == 0",
        "           ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^",
        "AssertionError",
    ]
    document = engine_exit("start", 1, lines)
    assert document.message == "assertion failed: self.total_num_heads % tp_size == 0"
    assert document.fault == IllegalParallelism()


def test_the_fault_of_a_newer_runtime_leaves_the_message() -> None:
    content = '{"stage": "start", "exit_code": 1, "message": "x", "fault": {"kind": "too_hot", "degrees": 99}}'
    assert EngineExit.model_validate_json(content) == EngineExit(stage="start", exit_code=1, message="x")


def test_without_a_traceback_the_last_logged_error_counts() -> None:
    lines = [
        "(APIServer pid=1) ERROR 11-21 10:50:19 [launcher.py:1] first",
        "(APIServer pid=1) ERROR 11-21 10:50:20 [launcher.py:1] CUDA error: out of memory",
        "(APIServer pid=1) INFO 11-21 10:50:20 [launcher.py:1] Shutting down",
    ]
    assert engine_error(lines) == "CUDA error: out of memory"
    assert engine_error(["nothing", ""]) is None


def test_workers_that_write_at_the_same_time() -> None:
    def worker(number: int, text: str) -> str:
        return f"(Worker_TP{number} pid={number}) ERROR 11-21 10:50:19 [multiproc_executor.py:1] {text}"

    lines = [
        worker(0, "WorkerProc failed to start."),
        worker(0, "Traceback (most recent call last):"),
        worker(1, "Traceback (most recent call last):"),
        worker(0, '  File "x", line 1'),
        "(Worker_TP2 pid=2) INFO 11-21 10:50:19 [x.py:1] Route: /health, Methods: GET",
        worker(1, '  File "x", line 1'),
        worker(0, "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB."),
        worker(1, "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.00 GiB."),
        "(EngineCore pid=9) ERROR 11-21 10:50:20 [core.py:1] Traceback (most recent call last):",
        "(EngineCore pid=9) ERROR 11-21 10:50:20 [core.py:1] Exception: WorkerProc initialization failed",
        "(APIServer pid=8) Traceback (most recent call last):",
        "(APIServer pid=8) RuntimeError: Engine core initialization failed. See root cause above.",
    ]
    assert engine_error(lines) == "OutOfMemoryError: CUDA out of memory. Tried to allocate 1.00 GiB."


@pytest.mark.parametrize(
    ("engine_code", "container_code", "words"),
    [(0, 1, "ended by itself with code 0"), (3, 3, "code 3"), (-9, 137, "SIGKILL"), (-11, 139, "SIGSEGV")],
)
def test_exit_codes_are_never_zero(engine_code: int, container_code: int, words: str) -> None:
    assert container_exit_code(engine_code) == container_code
    document = engine_exit("serve", engine_code, [])
    assert document.exit_code == container_code
    assert words in document.message


def test_a_signal_and_its_last_error_are_both_told() -> None:
    document = engine_exit("serve", -6, ["Traceback (most recent call last):", '  File "x"', "RuntimeError: NCCL died"])
    assert document.message == "the engine was ended by SIGABRT; its last error: NCCL died"


@given(st.text(max_size=20_000))
def test_the_document_always_fits_and_parses(message: str) -> None:
    content = render(EngineExit(stage="start", exit_code=1, message=message))
    assert len(content) <= MAX_TERMINATION_MESSAGE_BYTES
    parsed = EngineExit.model_validate_json(content)
    assert parsed.message == message or parsed.message.endswith("…")


def test_long_messages_keep_their_beginning() -> None:
    parsed = EngineExit.model_validate_json(render(EngineExit(stage="start", exit_code=1, message="é\n" * 5000)))
    assert parsed.message.startswith("é\né")
    assert len(parsed.message) > 1000


@given(st.lists(st.binary(max_size=300)))
def test_tail_is_bounded_and_keeps_the_end(chunks: list[bytes]) -> None:
    tail = OutputTail(max_bytes=500)
    for chunk in chunks:
        tail.feed(chunk)
    lines = tail.lines()
    everything = b"".join(chunks).split(b"\n")
    if everything[-1] == b"":
        everything.pop()
    expected = [line.decode(errors="replace").rstrip("\r") for line in everything]
    assert expected[len(expected) - len(lines) :] == lines
    assert sum(map(len, lines[:-1])) <= 500


def test_a_signal_without_a_name() -> None:
    assert engine_exit("serve", -40, []).message == "the engine was ended by signal 40"
    assert engine_exit("serve", -15, []).message == "the engine was ended by SIGTERM"
