"""Tokens per block that vLLM takes for a model on a device, when the user gives none.

The attention back end decides (platforms/interface.py: update_block_size_for_backend), and the device decides which
back end is taken (platforms/cuda.py: _get_backend_priorities; platforms/cpu.py: check_and_update_config). Rules are
for 0.32.0's first choice with nothing but the model and the device given.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from vllm_operator.planner.device import Device
from vllm_operator.planner.kv_cache.number_format import KvFormat
from vllm_operator_api.model import AttentionCache, ModelFacts

DEFAULT_TOKENS: Final = 16
"""config/cache.py: DEFAULT_BLOCK_SIZE."""
CPU_TOKENS: Final = 128
"""platforms/cpu.py. Latents take 16 on a CPU without AMX, which changes no more than rounding."""
CPU_KERNEL_TOKENS: Final = 32
"""v1/attention/backends/cpu_attn.py, mla/amx_mla.py."""
SPARSE_TOKENS: Final = 64
"""FlashMLA and every sparse back end of latents (v1/attention/backends/mla/)."""
INDEXED_ATTENTION_TOKENS: Final = 128
"""Attention of full keys through an index (MiniMax-M3's sparse back end)."""
LATENT_STATE_ALIGNMENT_TOKENS: Final = 128
"""Blocks of a model with latents and states (platforms/interface.py: _align_hybrid_block_size)."""

WIDEST_HEAD_DIM: Final = 512
WIDE_HEAD_TOKENS: Final = 64
IMAGE_PREFIX_TOKENS: Final = 64
IMAGE_PREFIX_MODEL_TYPES: Final = ("bagel", "gemma3", "gemma4", "molmo2", "moondream3", "paligemma")
"""Models whose images are read in both directions (transformers_utils/model_arch_config_convertor.py)."""


@dataclass(frozen=True, slots=True)
class BlockRule:
    """What a model's attention back ends say of a block."""

    tokens: int
    """Tokens of a block, before blocks are made to hold a state."""
    kernel_tokens: int
    """Blocks that hold a state are a multiple of this."""


def block_rule(facts: ModelFacts, kv: KvFormat, device: Device, asked_tokens: int | None) -> BlockRule:
    """Tokens per block for this model on this device; ``asked_tokens`` is --block-size."""
    latent, sparse, indexed = False, False, False
    for shape in facts.layer_shapes:
        kinds = {cache.kind for cache in shape.caches}
        latent = latent or "latent" in kinds
        sparse = sparse or any(cache.kind == "latent" and cache.sparse for cache in shape.caches)
        indexed = indexed or ("index" in kinds and "latent" not in kinds)
    if device.vendor == "cpu":
        kernel = CPU_KERNEL_TOKENS
        preferred = CPU_TOKENS
    elif sparse:
        kernel = preferred = SPARSE_TOKENS
    elif latent:
        kernel = preferred = _dense_latent_tokens(kv, device)
    elif indexed:
        kernel = preferred = INDEXED_ATTENTION_TOKENS
    else:
        kernel = preferred = _attention_tokens(facts, kv, device)
    tokens = asked_tokens or preferred
    aligned = max(kernel, tokens)
    return BlockRule(tokens, max(aligned, LATENT_STATE_ALIGNMENT_TOKENS) if latent else aligned)


def _attention_tokens(facts: ModelFacts, kv: KvFormat, device: Device) -> int:
    """16, but 64 for the widest heads with fp8 on Hopper, and on Blackwell where images attend to themselves whole.

    v1/attention/backends/flash_attn.py: _get_sm90_fa4_fp8_kv_block_size; triton_flashinfer.py.
    """
    major = device.compute_capability[0] if device.compute_capability else 0
    widest = max(
        (c.head_dim for shape in facts.layer_shapes for c in shape.caches if isinstance(c, AttentionCache)), default=0
    )
    if major == 9 and kv.is_fp8 and widest == WIDEST_HEAD_DIM:
        return WIDE_HEAD_TOKENS
    if major == 10 and facts.multimodal and (facts.model_type or "").startswith(IMAGE_PREFIX_MODEL_TYPES):
        return IMAGE_PREFIX_TOKENS
    return DEFAULT_TOKENS


def _dense_latent_tokens(kv: KvFormat, device: Device) -> int:
    """Hopper: FlashAttention (16), FlashMLA with fp8 (64). Blackwell: FlashInfer (32). Others: Triton (16)."""
    major = device.compute_capability[0] if device.compute_capability else 9
    if major == 10:
        return 32
    if major == 9 and kv.is_fp8:
        return 64
    return DEFAULT_TOKENS
