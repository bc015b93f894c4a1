"""The data type that a model computes in, and its width."""

from __future__ import annotations

from typing import Final

from vllm_operator.planner.engine_settings import EngineSettings

BYTES_OF_MODEL_DTYPE: Final = {"float32": 4, "float": 4, "float16": 2, "half": 2, "bfloat16": 2}
"""Data types that a model computes in (utils/torch_utils.py: STR_DTYPE_TO_TORCH_DTYPE)."""


def element_bytes(dtype: str | None) -> int:
    """Bytes of one value of a torch data type; of an unknown one 2."""
    return BYTES_OF_MODEL_DTYPE.get(dtype or "", 2)


def loaded_element_bytes(settings: EngineSettings) -> int:
    """Bytes of a value of activations and of weights that are not quantised.

    ``--dtype``, else 16 bits: checkpoints of 32 are halved (config/model.py: _resolve_auto_dtype).
    """
    return 2 if settings.dtype == "auto" else element_bytes(settings.dtype)
