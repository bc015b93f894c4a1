"""Which part of a configuration describes the language model, and whether there is more than text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from vllm_operator.planner.facts.defaults import DEFAULTS
from vllm_operator.planner.facts.fields import Fields

TEXT_SECTIONS: Final = ("text_config", "llm_config", "language_config", "thinker_config", "decoder_config")
"""Where multimodal models keep the configuration of their language model."""
ENCODER_SECTIONS: Final = (
    "vision_config", "audio_config", "vit_config", "visual_config", "encoder_config", "speech_config", "sound_config",
)  # fmt: skip
_DEPTH: Final = 3
"""``thinker_config`` of an omni model holds a ``text_config``."""
_INHERITED: Final = (
    "architectures", "torch_dtype", "dtype", "tie_word_embeddings", "vocab_size", "max_position_embeddings",
    "model_type",
)  # fmt: skip
"""What the outer configuration may say for the inner one, where that one is silent."""


def text_fields(config: Mapping[str, Any]) -> Fields:
    """The language model's own fields, with the defaults of its model type below them."""
    text: Mapping[str, Any] = config
    inherited: dict[str, Any] = {}
    for _ in range(_DEPTH):
        inherited |= {key: text[key] for key in _INHERITED if text.get(key) is not None}
        inner = next((text[key] for key in TEXT_SECTIONS if isinstance(text.get(key), dict)), None)
        if inner is None:
            break
        text = inner
    given = {**inherited, **text}
    model_type = given.get("model_type")
    defaults = DEFAULTS.get(model_type, {}) if isinstance(model_type, str) else {}
    return Fields({**defaults, **given})


def encoder_sections(config: Mapping[str, Any]) -> list[Fields]:
    """Configurations of the encoders for pictures and sound."""
    sections: list[Fields] = []
    document: Mapping[str, Any] = config
    for _ in range(_DEPTH):
        sections += [
            Fields(document[key], f"config.json: {key}")
            for key in ENCODER_SECTIONS
            if isinstance(document.get(key), dict) and document[key]
        ]
        inner = next((document[key] for key in TEXT_SECTIONS if isinstance(document.get(key), dict)), None)
        if inner is None:
            break
        document = inner
    return sections
