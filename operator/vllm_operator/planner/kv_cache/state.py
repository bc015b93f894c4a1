"""Bytes of the state that a layer of a state-space or linear-attention model keeps per request."""

from __future__ import annotations

from typing import Final

from vllm_operator.planner.device import Device
from vllm_operator_api.model import StateCache

FLOAT32_STATE_ARCHITECTURES: Final = ("Qwen3_5", "NemotronH", "Qwen4Exp")
"""Architectures (their first letters) whose recurrent state is float32 although they compute in 16 bits: their
configurations say so, or vLLM does (model_executor/models/config.py: NemotronHForCausalLMConfig,
Qwen3_5ForConditionalGenerationConfig)."""
FLOAT32_BYTES: Final = 4


def state_bytes(cache: StateCache, architecture: str, tensor: int, model_bytes: int, device: Device) -> int:
    """Bytes of one state on one GPU, for a degree that vLLM accepts (model_executor/layers/mamba/mamba_utils.py).

    The convolution's part is in the model's data type. So is the recurrent part, unless the architecture wants float32,
    or the CPU does (platforms/cpu.py: check_and_update_config, for CPUs with AVX-512 BF16).
    """
    float32 = (
        cache.kind == "kda"
        or architecture.startswith(FLOAT32_STATE_ARCHITECTURES)
        or (device.vendor == "cpu" and cache.kind in ("mamba1", "mamba2", "gdn"))
    )
    recurrent_bytes = FLOAT32_BYTES if float32 else model_bytes
    return _conv_elements(cache, tensor) * model_bytes + _recurrent_elements(cache, tensor) * recurrent_bytes


def _conv_elements(cache: StateCache, tensor: int) -> int:
    """Channels that the convolution runs over, times the steps that it remembers."""
    if cache.conv_kernel == 0:
        return 0
    inner = cache.heads * cache.head_dim
    channels = inner
    if cache.kind == "mamba2":
        channels += 2 * _groups(cache.key_heads, tensor) * cache.state_size
    elif cache.kind in ("gdn", "kda"):
        channels += 2 * cache.key_heads * cache.state_size
    return channels // tensor * (cache.conv_kernel - 1)


def _recurrent_elements(cache: StateCache, tensor: int) -> int:
    if cache.kind == "short_conv":
        return 0
    width = cache.head_dim if cache.kind in ("kda", "lightning") else cache.state_size
    return cache.heads * cache.head_dim // tensor * width


def _groups(groups: int, tensor: int) -> int:
    """Groups of Mamba2, with copies where they do not divide (extra_groups_for_head_shards)."""
    return groups if groups % tensor == 0 else tensor
