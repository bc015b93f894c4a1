"""``kubectl-llm plan kv``: the engine's start-up line before there is an engine."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.cli.commands import Commands
from tests.unit.cli.model_files import DENSE, write

TOKEN_BYTES = 32 * 2 * 8 * 128 * 2
"""Layers, keys and values, KV heads, width of a head, bytes of a bfloat16."""


def arguments(config: Path, gib: object, length: int, *more: object) -> list[object]:
    required = ["--model-config", config, "--available-gib", gib, "--max-length", length]
    return ["plan", "kv", *required, *([] if "--tensor" in more else ["--tensor", 1]), *more]


@pytest.mark.parametrize(
    ("more", "bytes_per_block", "blocks_per_request"),
    [
        ((), 16 * TOKEN_BYTES, 512),
        (("--tensor", 4), 16 * TOKEN_BYTES // 4, 512),
        (("--tensor", 16), 16 * TOKEN_BYTES // 8, 512),
        (("--pipeline", 2), 16 * TOKEN_BYTES // 2, 512),
        (("--block-size", 32), 32 * TOKEN_BYTES, 256),
        (("--kv-cache-dtype", "fp8"), 16 * TOKEN_BYTES // 2, 512),
        (("--dtype", "float32"), 16 * TOKEN_BYTES * 2, 512),
        (("--device", "cpu"), 128 * TOKEN_BYTES, 64),
    ],
)
def test_blocks(
    llm: Commands, tmp_path: Path, more: tuple[object, ...], bytes_per_block: int, blocks_per_request: int
) -> None:
    answer = llm(*arguments(write(tmp_path, DENSE), 8, 8192, *more, "-o", "json"))
    found = answer.document
    blocks = (8 << 30) // bytes_per_block
    assert answer.status == 0
    assert (found["bytesPerBlock"], found["blocksPerRequest"]) == (bytes_per_block, blocks_per_request)
    assert found["blocks"] == blocks
    assert found["tokens"] == int(blocks / blocks_per_request * 8192)
    assert found["concurrency"] == round(blocks / blocks_per_request, 2)
    assert found["exact"]


def test_windows_keep_what_is_in_flight(llm: Commands, tmp_path: Path) -> None:
    config = write(tmp_path, DENSE, model_type="mistral", architectures=["MistralForCausalLM"], sliding_window=1024)

    def per_request(budget: int) -> int:
        question = arguments(config, 8, 32768, "--max-num-batched-tokens", budget, "-o", "json")
        number: int = llm(*question).document["blocksPerRequest"]
        return number

    assert per_request(2048) == -(-(1023 + 2 * 2048) // 16) + 1
    assert per_request(4096) == -(-(1023 + 2 * 4096) // 16) + 1


def test_the_line_is_the_engines_own(llm: Commands, tmp_path: Path) -> None:
    config = write(tmp_path, DENSE)
    on_gpu = llm(*arguments(config, "19.92", 32768)).out.splitlines()[0]
    on_cpu = llm(*arguments(config, "19.92", 32768, "--device", "cpu")).out.splitlines()[0]
    assert on_gpu == "GPU KV cache size: 163,184 tokens, Maximum concurrency for 32,768 tokens per request: 4.98x"
    assert on_cpu == "CPU KV cache size: 163,072 tokens, Maximum concurrency for 32,768 tokens per request: 4.98x"


def test_an_engine_that_would_not_start(llm: Commands, tmp_path: Path) -> None:
    config = write(tmp_path, DENSE)
    one_request = 8192 * TOKEN_BYTES
    block = 16 * TOKEN_BYTES
    too_small = llm(*arguments(config, one_request / (1 << 30), 8192, "-o", "json"))
    enough = llm(*arguments(config, (one_request + block) / (1 << 30), 8192, "-o", "json"))
    assert (too_small.status, too_small.document["fits"], too_small.document["blocks"]) == (3, False, 512)
    assert (enough.status, enough.document["fits"], enough.document["blocks"]) == (0, True, 513)


def test_an_illegal_degree(llm: Commands, tmp_path: Path) -> None:
    answer = llm(*arguments(write(tmp_path, DENSE), 8, 8192, "--tensor", 3))
    assert (answer.status, answer.out, answer.err.count("\n")) == (2, "", 1)
    assert "32 attention heads" in answer.err
    assert "legal tensor degrees up to 64: 1, 2, 4, 8, 16, 32" in answer.err
