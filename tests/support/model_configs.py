"""Configurations of models for tests: small literal ones, and a collection of real ones where a machine has it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

REAL_CONFIGS = Path(os.environ.get("BENCH_MODEL_CONFIGS") or Path(__file__).parents[3] / "shared" / "model-configs")
"""A folder of real config.json files: not part of the repository."""

LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14336,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
    "torch_dtype": "bfloat16",
}
"""Llama-3.1-8B."""


def llama(**changes: Any) -> dict[str, Any]:
    """Llama-3.1-8B, changed; None takes a key away."""
    return {key: value for key, value in {**LLAMA, **changes}.items() if value is not None}


def real_configs() -> list[Path]:
    """The real ones, by name; empty where there are none."""
    return sorted(REAL_CONFIGS.glob("*.json")) if REAL_CONFIGS.is_dir() else []


def safetensors(tensors: dict[str, int], *, filler: bool = True) -> bytes:
    """A safetensors file with tensors of these bytes; without ``filler`` only its header."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, size in tensors.items():
        header[name] = {"dtype": "U8", "shape": [size], "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + (bytes(at) if filler else b"")
