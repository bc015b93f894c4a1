"""Layers for multi-token prediction, which checkpoints hold and vLLM leaves out unless it speculates.

``models/deepseek_v2.py``, ``models/qwen3_next.py``, ``models/nemotron_h.py``: weights of these layers are skipped.
"""

from __future__ import annotations

import re
from typing import Final

from vllm_operator.planner.facts.architecture.blocks import Layer, Part, Weight
from vllm_operator.planner.facts.fields import Fields

_COUNTS: Final = ("num_nextn_predict_layers", "mtp_num_hidden_layers", "num_mtp_modules", "mtp_transformer_layers")
_BY_PREFIX: Final = re.compile(r"(?:^|\.)(?:mtp|mtp_layers|nextn)\.")
_BY_NUMBER: Final = re.compile(r"^(?:(?:model|language_model)\.){0,2}layers\.(\d{1,6})\.")
_OWN_EMBEDDING: Final = ("deepseek_v3", "deepseek_v32", "kimi_k2")
_OWN_HEAD: Final = (*_OWN_EMBEDDING, "step3p5", "step3p7")
"""Their checkpoints hold embedding or output projection once more in each such layer."""


def speculative_layers(text: Fields) -> int:
    """How many such layers the configuration promises."""
    return min(text.count(*_COUNTS), 16)


def speculative_weights(text: Fields, layers: tuple[Layer, ...], *, hidden: int, vocab: int) -> list[Weight]:
    """Weights of one such layer: it is like the model's last one, or, without experts, like its first (Step)."""
    model_type = text.name("model_type") or ""
    like = layers[0] if model_type.startswith("step3") else layers[-1]
    weights = [Weight("eh_proj", hidden, 2 * hidden, Part.OTHER, linear=False)]
    if model_type in _OWN_EMBEDDING:
        weights.append(Weight("embed_tokens", vocab, hidden, Part.EMBEDDING, linear=False))
    if model_type in _OWN_HEAD:
        weights.append(Weight("shared_head.head", vocab, hidden, Part.HEAD, linear=False))
    return weights + [weight for block in like.blocks for weight in block.weights]


def is_speculative(tensor: str, layers: int) -> bool:
    """Whether a tensor of the checkpoint belongs to such a layer of a model with this many ``layers``."""
    if _BY_PREFIX.search(tensor[:256]):
        return True
    numbered = _BY_NUMBER.match(tensor[:256])
    return numbered is not None and int(numbered.group(1)) >= layers
