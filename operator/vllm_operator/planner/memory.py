"""What a replica needs of each GPU's memory. All sizes are bytes.

A sliding-window, hybrid or compressed model is computed as if all its layers kept everything: an upper bound.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from vllm_operator_api.quantities import BYTES_PER_GIB, BYTES_PER_MIB
from vllm_operator_api.runtime import ModelFacts

KV_BLOCK_TOKENS: Final = 16
"""vLLM's default block size on GPUs (``config/cache.py``)."""
BATCHED_TOKENS_CANDIDATES: Final = (8192, 2048)
"""Values of --max-num-batched-tokens, the first that fits: vLLM's own defaults for large and for small GPUs."""

_WEIGHTS_LOADED_FACTOR: Final = 1.005
"""Loaded bytes over bytes on disk, measured 1.00-1.005."""
_NON_TORCH_ONE_GPU: Final = int(0.15 * BYTES_PER_GIB)
_NON_TORCH_SEVERAL_GPUS: Final = int(0.6 * BYTES_PER_GIB)
_CUDA_GRAPHS_BASE: Final = int(0.5 * BYTES_PER_GIB)
_CUDA_GRAPHS_SHARE_OF_WEIGHTS: Final = 0.01
_CUDA_GRAPHS_MOE: Final = int(0.3 * BYTES_PER_GIB)
"""Memory outside weights, activations and KV cache."""
_ACTIVATION_FACTOR: Final = 1.15
_ACTIVATION_BYTES: Final = 2
_DEFAULT_EXPERTS_PER_TOKEN: Final = 8

_USABLE_SHARE_BY_LABEL_MIB: Final = ((17_000, 0.960), (25_000, 0.975), (50_000, 0.984), (1 << 62, 0.989))
"""CUDA's total over the labelled memory, by upper bound of the label, a little below the least measured."""

_DTYPE_BYTES: Final = {"float32": 4, "float": 4, "bfloat16": 2, "float16": 2, "half": 2}


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """Settings of the engine that its use of memory depends on."""

    max_length_tokens: int
    max_requests: int
    gpu_memory_utilization: float
    kv_cache_bytes: int | None
    """Given by the user: replaces the share; None: what is left after weights and overhead."""
    enforce_eager: bool
    dtype: str
    keeps_kv_cache: bool = True
    """False for encoders, which have none."""
    kv_cache_dtype: str = "auto"


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """Predicted bytes per GPU."""

    weights: int
    overhead: int
    kv_available: int
    """Negative when weights and overhead alone do not fit."""
    kv_per_token: int
    request: int
    """KV cache of one request of full length."""
    batched_tokens: int

    @property
    def shortfall(self) -> int:
        """Bytes per GPU that are missing; 0 when it fits."""
        return max(0, self.request - self.kv_available, -self.kv_available)

    @property
    def fits(self) -> bool:
        """Whether the weights and one request of full length fit."""
        return self.shortfall == 0

    @property
    def kv_tokens(self) -> int:
        """Tokens the KV cache holds, in whole blocks."""
        if self.kv_per_token == 0:
            return 0
        return max(0, self.kv_available) // (self.kv_per_token * KV_BLOCK_TOKENS) * KV_BLOCK_TOKENS


def usable_bytes(label_mib: int) -> int:
    """Memory that CUDA offers on a GPU whose label says ``label_mib``."""
    share = next(share for bound, share in _USABLE_SHARE_BY_LABEL_MIB if label_mib <= bound)
    return int(label_mib * BYTES_PER_MIB * share)


def kv_bytes_per_token(facts: ModelFacts, tensor: int, settings: EngineSettings) -> int:
    """KV cache bytes per token and GPU, over all layers.

    Grouped-query attention: ``max(1, KV // TP)`` heads per GPU, so beyond the KV heads nothing more is saved. Latent
    attention keeps one latent per token that is not divided at all.
    """
    if not settings.keeps_kv_cache:
        return 0
    element = _kv_element_bytes(settings)
    if facts.latent_dim is not None:
        return facts.layers * facts.latent_dim * element
    heads = max(1, facts.kv_heads // tensor)
    return facts.layers * heads * 2 * facts.head_dim * element


def _kv_element_bytes(settings: EngineSettings) -> int:
    if settings.kv_cache_dtype.startswith("fp8"):
        return 1
    if settings.kv_cache_dtype != "auto":
        return _DTYPE_BYTES.get(settings.kv_cache_dtype, 2)
    if settings.dtype != "auto":
        return _DTYPE_BYTES.get(settings.dtype, 2)
    return 2


def _weights_bytes(facts: ModelFacts, tensor: int, dtype: str) -> int:
    disk_bytes = facts.weights_bytes
    if facts.quantization is None:
        stored = _DTYPE_BYTES.get(facts.dtype or "", 2)
        loaded = 2 if dtype == "auto" else _DTYPE_BYTES.get(dtype, 2)
        disk_bytes = disk_bytes * loaded // stored
    return math.ceil(disk_bytes * _WEIGHTS_LOADED_FACTOR / tensor)


def _activation_bytes(facts: ModelFacts, tensor: int, batched_tokens: int, max_requests: int) -> int:
    """Transient peak of a forward pass of ``batched_tokens`` tokens, or of the logits."""
    hidden = facts.hidden_size
    if facts.moe_intermediate_size is not None:
        top_k = facts.experts_per_token or _DEFAULT_EXPERTS_PER_TOKEN
        per_token = 2 * hidden + top_k * 3 * facts.moe_intermediate_size / tensor + top_k * hidden
    else:
        per_token = 2 * hidden + 3 * (facts.intermediate_size or 4 * hidden) / tensor
    forward = batched_tokens * _ACTIVATION_BYTES * per_token
    logits = batched_tokens * hidden * _ACTIVATION_BYTES + max_requests * facts.vocab_size * (4 + 2 / tensor)
    return math.ceil(_ACTIVATION_FACTOR * max(forward, logits))


def _overhead_bytes(facts: ModelFacts, tensor: int, settings: EngineSettings, weights: int, batched_tokens: int) -> int:
    overhead = _NON_TORCH_ONE_GPU if tensor == 1 else _NON_TORCH_SEVERAL_GPUS
    overhead += _activation_bytes(facts, tensor, batched_tokens, settings.max_requests)
    if not settings.enforce_eager:
        overhead += _CUDA_GRAPHS_BASE + int(weights * _CUDA_GRAPHS_SHARE_OF_WEIGHTS)
        if facts.moe_intermediate_size is not None:
            overhead += _CUDA_GRAPHS_MOE
    return overhead


def memory_use(
    facts: ModelFacts, tensor: int, settings: EngineSettings, gpu_memory_mib: int, batched_tokens: int
) -> MemoryUse:
    """Predict the use of each GPU's memory at tensor-parallel degree ``tensor``."""
    weights = _weights_bytes(facts, tensor, settings.dtype)
    overhead = _overhead_bytes(facts, tensor, settings, weights, batched_tokens)
    per_token = kv_bytes_per_token(facts, tensor, settings)
    blocks = math.ceil(settings.max_length_tokens / KV_BLOCK_TOKENS) + 1  # vLLM keeps one block for itself
    usable = usable_bytes(gpu_memory_mib)
    if settings.kv_cache_bytes is None:
        kv_available = int(usable * settings.gpu_memory_utilization) - weights - overhead
    else:
        # vLLM takes the given size unseen and dies when the GPU has less: beyond it, what is missing is negative.
        room = usable - weights
        given = settings.kv_cache_bytes
        kv_available = room - given if given > room else min(given, room - overhead)
    return MemoryUse(
        weights=weights,
        overhead=overhead,
        kv_available=kv_available,
        kv_per_token=per_token,
        request=blocks * KV_BLOCK_TOKENS * per_token,
        batched_tokens=batched_tokens,
    )
