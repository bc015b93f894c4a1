"""GGUF headers: metadata as a configuration, tensors' bytes, and hostile files."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vllm_operator.planner.facts.config import model_facts
from vllm_operator.planner.facts.errors import ModelError
from vllm_operator.planner.facts.gguf import read_gguf


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def pair(key: str, value: Any) -> bytes:
    if isinstance(value, str):
        return text(key) + struct.pack("<I", 8) + text(value)
    if isinstance(value, list):
        return text(key) + struct.pack("<IIQ", 9, 8, len(value)) + b"".join(map(text, value))
    return text(key) + struct.pack("<II", 4, value)


def tensor(name: str, shape: list[int], kind: int) -> bytes:
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, 0)


PAIRS = {
    "general.architecture": "llama",
    "llama.embedding_length": 4096,
    "llama.block_count": 32,
    "llama.attention.head_count": 32,
    "llama.attention.head_count_kv": 8,
    "llama.feed_forward_length": 14336,
    "llama.context_length": 131072,
    "tokenizer.ggml.tokens": ["x"] * 2000,
}


def gguf(pairs: dict[str, Any], tensors: list[bytes]) -> bytes:
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(pairs))
    return head + b"".join(pair(key, value) for key, value in pairs.items()) + b"".join(tensors)


WHOLE = gguf(PAIRS, [tensor("token_embd.weight", [4096, 2000], 1), tensor("blk.0.attn_q.weight", [4096, 4096], 12)])


def test_a_llama() -> None:
    found = read_gguf(WHOLE, "m.gguf")
    assert found.tensor_bytes == 4096 * 2000 * 2 + 4096 * 4096 // 256 * 144
    facts = model_facts(found.config, source="test")
    assert (facts.layers, facts.vocab_size, facts.max_position_embeddings) == (32, 2000, 131072)
    assert facts.architecture == "LlamaForCausalLM"


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "ends within its header"),
        (b"GGML" + bytes(40), "is no GGUF file"),
        (b"GGUF" + struct.pack("<IQQ", 99, 0, 0), "GGUF version 99"),
        (b"GGUF" + struct.pack("<IQQ", 3, 2**62, 0), "4611686018427387904 tensors"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 2**62), "no model has so many"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 2**62), "a text of 4611686018427387904 bytes"),
        (gguf({}, []), "no general.architecture"),
        (WHOLE[:-10], "ends within its header"),
        (
            b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("a") + struct.pack("<IIQ", 9, 0, 2**62),
            "an array of 4611686018427387904",
        ),
        (
            b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("a") + struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * 20,
            "arrays in arrays",
        ),
        (gguf(PAIRS, [tensor("x", [2**40, 2**40], 1)]), "elements"),
        (gguf(PAIRS, [tensor("x", [1], 77)]), "unknown type 77"),
        (gguf(PAIRS, [tensor("x", [1] * 9, 1)]), "9 dimensions"),
    ],
)
def test_hostile_files_are_refused(data: bytes, says: str) -> None:
    with pytest.raises(ModelError, match=says):
        read_gguf(data, "m.gguf")


@settings(max_examples=200)
@given(st.integers(0, len(WHOLE) - 1), st.binary(min_size=1, max_size=9))
def test_damaged_files_raise_nothing_else(at: int, damage: bytes) -> None:
    try:
        found = read_gguf(WHOLE[:at] + damage + WHOLE[at + len(damage) :], "m.gguf")
    except ModelError:
        return
    assert found.tensor_bytes >= 0
