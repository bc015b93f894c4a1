"""Settings of the engine that its use of memory depends on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """What the engine will be told, or takes by itself; vLLM's own default where nothing is said here."""

    max_length_tokens: int
    """--max-model-len."""
    max_requests: int = 64
    """--max-num-seqs."""
    batched_tokens: int = 8192
    """--max-num-batched-tokens."""
    gpu_memory_utilization: float = 0.92
    kv_cache_bytes: int | None = None
    """--kv-cache-memory-bytes, per GPU: replaces the share; None: what is left after weights and overhead."""
    kv_cache_dtype: str = "auto"
    block_tokens: int | None = None
    """--block-size; None: vLLM's choice for the model."""
    dtype: str = "auto"
    quantization: str | None = None
    """--quantization: given by the user, quantised while it is loaded; None: as the checkpoint says."""
    enforce_eager: bool = False
    keeps_kv_cache: bool = True
    """False for models that only pool and attend to the whole input (encoders): they have no KV cache."""
    prefix_caching: bool = True
    """vLLM's default. Decides how many states a request of a hybrid model holds."""
