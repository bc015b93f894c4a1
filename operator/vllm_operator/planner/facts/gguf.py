"""Facts from the header of a GGUF file: its metadata in the names of a ``config.json``, and its tensors' bytes.

vLLM 0.32 has no loader for GGUF of its own (it needs a plugin), so such facts carry a guess.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, Final

from vllm_operator.planner.facts.errors import invalid
from vllm_operator_api.model import MAX_LAYERS

MAX_HEADER_BYTES: Final = 16 * 1024 * 1024
"""Read at most of a file; its tokenizer is most of it."""
GUESS: Final = "GGUF: this version of vLLM needs a plugin to load it"
_MAGIC: Final = b"GGUF"
_MAX_PAIRS: Final = 4096
_MAX_TENSORS: Final = 200_000
_MAX_STRING: Final = 1024 * 1024
_MAX_ARRAY: Final = 2_000_000
_MAX_DEPTH: Final = 4
_KEPT_ARRAY: Final = MAX_LAYERS
"""Longer arrays are vocabularies: only their length is kept."""
_SCALARS: Final = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_STRING, _ARRAY = 8, 9
_BLOCK_BYTES: Final = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 9: (32, 36),
    10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 15: (256, 292), 16: (256, 66),
    17: (256, 74), 18: (256, 98), 19: (256, 50), 20: (32, 18), 21: (256, 110), 22: (256, 82), 23: (256, 136),
    24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8), 28: (1, 8), 29: (256, 56), 30: (1, 2), 39: (32, 17),
}  # fmt: skip
"""Elements and bytes of a block by GGML type (ggml's ``ggml_type`` and its block structs)."""
_ARCHITECTURES: Final = {
    "llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM",
    "qwen3moe": "Qwen3MoeForCausalLM", "gemma2": "Gemma2ForCausalLM", "gemma3": "Gemma3ForCausalLM",
    "phi3": "Phi3ForCausalLM", "deepseek2": "DeepseekV2ForCausalLM", "gpt-oss": "GptOssForCausalLM",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class GgufFacts:
    """What a file's header says."""

    config: dict[str, Any]
    """In the names of a ``config.json``."""
    tensor_bytes: int
    """Of the tensors in this file; a model may be split over several."""


def read_gguf(data: bytes, what: str) -> GgufFacts:
    """Facts from the beginning of a GGUF file.

    Raises:
        ModelError: it is none, or its header is longer than ``data`` or absurd.
    """
    reader = _Reader(data, what)
    if reader.take(4) != _MAGIC:
        invalid(f"{what} is no GGUF file")
    version = reader.number("<I")
    if version not in (2, 3):
        invalid(f"{what} has GGUF version {version}; 2 and 3 are known")
    tensors, pairs = reader.number("<Q"), reader.number("<Q")
    if tensors > _MAX_TENSORS or pairs > _MAX_PAIRS:
        invalid(f"{what} says that it has {tensors} tensors and {pairs} values; no model has so many")
    values: dict[str, Any] = {}
    for _ in range(pairs):
        key = reader.text(4096)
        values[key] = reader.value(reader.number("<I"), 0)
    size = sum(reader.tensor_bytes() for _ in range(tensors))
    return GgufFacts(_config(values, what), size)


def _config(values: dict[str, Any], what: str) -> dict[str, Any]:
    name = values.get("general.architecture")
    if not isinstance(name, str) or not name:
        invalid(f"{what} has no general.architecture")

    def of(key: str) -> Any:
        return values.get(f"{name}.{key}")

    tokens = values.get("tokenizer.ggml.tokens")
    config = {
        "architectures": [_ARCHITECTURES.get(name, name)],
        "model_type": name,
        "hidden_size": of("embedding_length"),
        "num_hidden_layers": of("block_count"),
        "num_attention_heads": of("attention.head_count"),
        "num_key_value_heads": of("attention.head_count_kv"),
        "head_dim": of("attention.key_length"),
        "v_head_dim": of("attention.value_length"),
        "intermediate_size": of("feed_forward_length"),
        "max_position_embeddings": of("context_length"),
        "sliding_window": of("attention.sliding_window"),
        "vocab_size": of("vocab_size") or (tokens if isinstance(tokens, int) else None),
        "num_experts": of("expert_count") or None,
        "num_experts_per_tok": of("expert_used_count") or None,
        "moe_intermediate_size": of("expert_feed_forward_length"),
        "kv_lora_rank": of("attention.kv_lora_rank"),
        "q_lora_rank": of("attention.q_lora_rank"),
        "qk_rope_head_dim": of("rope.dimension_count") if of("attention.kv_lora_rank") else None,
    }
    return {key: value for key, value in config.items() if value is not None}


class _Reader:
    """Takes one value after the other."""

    def __init__(self, data: bytes, what: str) -> None:
        self._data = data
        self._what = what
        self._at = 0

    def take(self, count: int) -> bytes:
        end = self._at + count
        if end > len(self._data):
            invalid(f"{self._what} ends within its header, or the header has more than {len(self._data)} bytes")
        piece = self._data[self._at : end]
        self._at = end
        return piece

    def number(self, layout: str) -> Any:
        (value,) = struct.unpack(layout, self.take(struct.calcsize(layout)))
        return value

    def text(self, longest: int = _MAX_STRING) -> str:
        length = self.number("<Q")
        if length > longest:
            invalid(f"{self._what} holds a text of {length} bytes; at most {longest} are read")
        return self.take(length).decode(errors="replace")

    def value(self, kind: int, depth: int) -> Any:
        """A value; of a long array its length."""
        if kind in _SCALARS:
            return self.number(_SCALARS[kind])
        if kind == _STRING:
            return self.text()
        if kind != _ARRAY or depth >= _MAX_DEPTH:
            invalid(f"{self._what} holds a value of the unknown type {kind}, or arrays in arrays in arrays")
        inner, length = self.number("<I"), self.number("<Q")
        if length > _MAX_ARRAY:
            invalid(f"{self._what} holds an array of {length} values; at most {_MAX_ARRAY} are read")
        if length <= _KEPT_ARRAY:
            return [self.value(inner, depth + 1) for _ in range(length)]
        self._skip(inner, length, depth)
        return length

    def tensor_bytes(self) -> int:
        """Bytes of the next tensor that the header describes."""
        name = self.text(4096)
        dimensions = self.number("<I")
        if not 0 < dimensions <= 8:
            invalid(f"{self._what}: the tensor {name[:100]!r} has {dimensions} dimensions")
        elements = 1
        for _ in range(dimensions):
            elements *= self.number("<Q")
        kind = self.number("<I")
        self.take(8)
        if kind not in _BLOCK_BYTES or elements > 10**15:
            invalid(f"{self._what}: the tensor {name[:100]!r} has the unknown type {kind} or {elements} elements")
        block, size = _BLOCK_BYTES[kind]
        return -(-elements // block) * size

    def _skip(self, kind: int, length: int, depth: int) -> None:
        if kind in _SCALARS:
            self.take(length * struct.calcsize(_SCALARS[kind]))
            return
        for _ in range(length):
            if kind == _STRING:
                size = self.number("<Q")
                if size > _MAX_STRING:
                    invalid(f"{self._what} holds a text of {size} bytes; at most {_MAX_STRING} are read")
                self.take(size)
            else:
                self.value(kind, depth + 1)
