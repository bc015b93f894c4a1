"""The KV cache's size out of ``/metrics``, in pieces as they come; the sample is what vLLM 0.32.0 wrote."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_operator_api.queue import KvCacheReport
from vllm_runtime.agent.cache_config import MAX_METRICS_BYTES, CacheConfigScan

METRICS = (Path(__file__).parent / "engine_metrics" / "cache_config.txt").read_bytes()
REPORT = KvCacheReport(blocks=256, block_tokens=128, tokens=32768, max_concurrency=32.0)


def scan(*chunks: bytes) -> tuple[KvCacheReport | None, int]:
    """The report, and how many of the pieces were read."""
    reader = CacheConfigScan()
    for count, chunk in enumerate(chunks, 1):
        if reader.feed(chunk):
            return reader.report(), count
    return reader.report(), len(chunks)


def sample(**labels: object) -> bytes:
    return (
        "vllm:cache_config_info{" + ",".join(f'{name}="{value}"' for name, value in labels.items()) + "} 1.0\n"
    ).encode()


@given(st.lists(st.integers(0, len(METRICS)), max_size=8))
def test_pieces_of_any_size(cuts: list[int]) -> None:
    bounds = [0, *sorted(cuts), len(METRICS)]
    assert scan(*(METRICS[start:end] for start, end in pairwise(bounds)))[0] == REPORT


def test_nothing_is_read_after_the_metric() -> None:
    assert scan(METRICS, b"never read") == (REPORT, 1)


def test_data_parallel_engines_are_counted() -> None:
    lines = [sample(block_size=16, engine=rank, kv_cache_size_tokens=1600, num_gpu_blocks=200) for rank in range(2)]
    assert scan(b"".join(lines), b"# HELP other\n") == (
        KvCacheReport(engines=2, blocks=200, block_tokens=16, tokens=1600),
        2,
    )


@pytest.mark.parametrize(
    "labels",
    [
        {"num_gpu_blocks": "None", "block_size": "16"},
        {"num_gpu_blocks": "256"},
        {"num_gpu_blocks": "-1", "block_size": "16"},
        {"num_gpu_blocks": "256", "block_size": "16", "kv_cache_max_concurrency": "nan"},
        {"num_gpu_blocks": "256", "block_size": "16", "kv_cache_size_tokens": "9" * 400},
    ],
)
def test_what_is_no_number_is_no_report(labels: dict[str, object]) -> None:
    assert scan(sample(**labels))[0] is None


def test_an_older_engine_tells_only_blocks() -> None:
    labels = {"num_gpu_blocks": 256, "block_size": 16, "kv_cache_max_concurrency": "None"}
    assert scan(sample(**labels))[0] == KvCacheReport(blocks=256, block_tokens=16)


def test_escaped_labels_do_not_end_the_reading() -> None:
    text = r'vllm:cache_config_info{a="x\",num_gpu_blocks=\"9",num_gpu_blocks="256",block_size="16"} 1.0' + "\n"
    assert scan(text.encode())[0] == KvCacheReport(blocks=256, block_tokens=16)


def test_endless_answers_are_left() -> None:
    chunk = b"a" * (MAX_METRICS_BYTES // 8)
    assert scan(*[chunk] * 20) == (None, 8)
    assert scan(b"\n".join([b"vllm:x 1.0"] * 100)) == (None, 1)
