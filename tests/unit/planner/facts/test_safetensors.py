"""Headers and indexes of safetensors: sums by category, layers for multi-token prediction, and hostile files."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.model_configs import safetensors

from vllm_operator.planner.facts.errors import ModelError
from vllm_operator.planner.facts.safetensors import (
    MAX_INDEX_BYTES,
    PREFIX_BYTES,
    TensorSizes,
    header_length,
    read_index,
)
from vllm_operator_api.model import WeightsSource


def header_of(tensors: dict[str, int]) -> bytes:
    return safetensors(tensors, filler=False)[PREFIX_BYTES:]


def sizes_of(tensors: dict[str, int], layers: int = 2) -> TensorSizes:
    sizes = TensorSizes(layers)
    sizes.add(header_of(tensors), "model.safetensors")
    return sizes


def test_sums_by_category() -> None:
    weights = sizes_of(
        {
            "model.embed_tokens.weight": 100,
            "lm_head.weight": 90,
            "model.layers.0.self_attn.q_proj.weight": 10,
            "model.layers.1.mlp.experts.7.up_proj.weight": 50,
            "visual.blocks.0.attn.qkv.weight": 5,
        }
    ).weights()
    assert (weights.total_bytes, weights.source) == (255, WeightsSource.HEADERS)
    assert (weights.embedding_bytes, weights.head_bytes, weights.expert_bytes, weights.encoder_bytes) == (
        100,
        90,
        50,
        5,
    )


@pytest.mark.parametrize(
    "name",
    [
        "model.layers.2.mlp.experts.0.up_proj.weight", "mtp.layers.0.self_attn.q_proj.weight", "model.mtp.fc.weight",
        "model.language_model.layers.2.mlp.gate.weight", "language_model.model.layers.12.x",
    ],
)  # fmt: skip
def test_layers_for_multi_token_prediction_do_not_count(name: str) -> None:
    sizes = sizes_of({"model.layers.1.x": 10, name: 7})
    assert (sizes.total, sizes.speculative) == (10, 7)


def test_layers_of_an_encoder_are_no_such_layers() -> None:
    assert sizes_of({"vision_tower.encoder.layers.20.x": 7}).speculative == 0


@pytest.mark.parametrize(
    ("prefix", "says"),
    [
        ((2**62).to_bytes(8, "little"), "says that its header has 4611686018427387904 bytes"),
        ((2**64 - 1).to_bytes(8, "little"), "at most 4194304 are read"),
        ((0).to_bytes(8, "little"), "header has 0 bytes"),
        (b"abc", "has only 3 bytes"),
    ],
)
def test_lengths_that_no_header_has(prefix: bytes, says: str) -> None:
    with pytest.raises(ModelError, match=says):
        header_length(prefix, "model.safetensors")


@pytest.mark.parametrize(
    "entry",
    [
        7, {}, {"data_offsets": [5]}, {"data_offsets": [5, 1]}, {"data_offsets": [-1, 1]}, {"data_offsets": "01"},
        {"data_offsets": [0, 2**62]}, {"data_offsets": [0.0, 1.5]}, {"data_offsets": [0, 11]},
    ],
)  # fmt: skip
def test_places_outside_of_the_file(entry: Any) -> None:
    with pytest.raises(ModelError, match="the tensor 'x' has the place"):
        TensorSizes(2).add(json.dumps({"x": entry}).encode(), "1.safetensors", data_bytes=10)


def test_a_header_without_tensors() -> None:
    with pytest.raises(ModelError, match="hold no tensors"):
        sizes_of({}).weights()


# ---- index


def index_of(names: dict[str, str], total: int | None = 999) -> bytes:
    metadata = {} if total is None else {"metadata": {"total_size": total}}
    return json.dumps({**metadata, "weight_map": names}, indent=2).encode()


def test_shards_are_counted_once() -> None:
    text = index_of({"a": "2.safetensors", "b": "1.safetensors", "c": "2.safetensors"})
    index = read_index([text], "index", layers=2)
    assert index.names("index") == ("1.safetensors", "2.safetensors")
    assert (index.total_bytes, index.holds_speculative) == (999, False)


@given(st.integers(1, 40), st.integers(1, 60))
def test_an_index_may_come_in_any_parts(part_bytes: int, entries: int) -> None:
    names = {f"model.layers.{number}.weight": f"model-{number % 7}.safetensors" for number in range(entries)}
    text = index_of(names, total=123_456_789)
    parts = [text[at : at + part_bytes] for at in range(0, len(text), part_bytes)]
    index = read_index(parts, "index", layers=1000)
    assert index.names("index") == tuple(sorted(set(names.values())))
    assert index.total_bytes == 123_456_789


def test_an_index_tells_of_layers_for_multi_token_prediction() -> None:
    assert read_index([index_of({"model.layers.2.x": "1.safetensors"})], "index", layers=2).holds_speculative


@pytest.mark.parametrize(
    "name", ["../x.safetensors", "a/b.safetensors", ".safetensors", "a\tb.safetensors", "..safetensors"]
)
def test_names_of_shards_are_plain_file_names(name: str) -> None:
    with pytest.raises(ModelError, match="not a plain file name"):
        read_index([b'{"weight_map": {"layer": "' + name.encode() + b'"}}'], "index", layers=2).names("index")


@pytest.mark.parametrize(
    "text", [b"{}", b"", b'{"weight_map": {}}', b'{"weight_map": {"a": "model.bin"}}', b"\x00" * 99]
)
def test_an_index_that_names_nothing(text: bytes) -> None:
    with pytest.raises(ModelError, match="names no"):
        read_index([text], "index", layers=2).names("index")


def test_an_index_that_does_not_end() -> None:
    part = b'"a": "1.safetensors", ' * 40_000
    with pytest.raises(ModelError, match=f"has more than {MAX_INDEX_BYTES} bytes"):
        read_index((part for _ in range(100)), "index", layers=2)


def test_an_index_without_entries() -> None:
    part = b'"aaaa' * 100_000
    with pytest.raises(ModelError, match="in 1500000 bytes it names no tensor"):
        read_index((part for _ in range(100)), "index", layers=2)


def test_an_index_with_too_many_files() -> None:
    text = index_of({f"t{number}": f"{number}.safetensors" for number in range(20_001)})
    with pytest.raises(ModelError, match="names more than 20000 files"):
        read_index([text], "index", layers=2)
