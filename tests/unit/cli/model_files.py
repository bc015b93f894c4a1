"""Small configurations of models, as files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

DENSE: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
    "torch_dtype": "bfloat16",
}
"""8 billion parameters."""
LARGE: dict[str, Any] = {
    **DENSE,
    "hidden_size": 8192,
    "intermediate_size": 28672,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
}
"""70 billion parameters."""
MISTRAL: dict[str, Any] = {
    "dim": 4096,
    "n_layers": 32,
    "n_heads": 32,
    "n_kv_heads": 8,
    "head_dim": 128,
    "hidden_dim": 14336,
    "vocab_size": 32768,
}


def write(directory: Path, config: dict[str, Any], name: str = "config.json", **changes: Any) -> Path:
    """A file with the configuration; a change to None takes the key away."""
    document = {key: value for key, value in {**config, **changes}.items() if value is not None}
    path = directory / name
    path.write_text(json.dumps(document))
    return path
