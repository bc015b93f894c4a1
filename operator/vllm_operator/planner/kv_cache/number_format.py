"""How numbers are kept in the cache: the data type that vLLM resolves, and the bytes that it takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from vllm_operator.planner.device import Device
from vllm_operator.planner.engine_settings import EngineSettings
from vllm_operator.planner.model_dtype import BYTES_OF_MODEL_DTYPE, loaded_element_bytes
from vllm_operator_api.model import ModelFacts

SPARSE_LATENT_TOKEN_BYTES: Final = {"fp8_ds_mla": 656, "nvfp4_ds_mla": 352}
"""Bytes of one latent in formats that pack it with its scales (model_executor/layers/attention/mla_attention.py)."""
SCALE_BYTES: Final = 4
"""One float32 per head and side in the ``*_per_token_head`` formats (v1/attention/backends/triton_attn.py)."""
FP8_DTYPES: Final = ("fp8", "fp8_e4m3", "fp8_e5m2", "fp8_inc")


@dataclass(frozen=True, slots=True)
class KvFormat:
    """How keys, values and latents are stored."""

    dtype: str
    """vLLM's name, ``auto`` resolved: ``auto`` means the model's own."""
    model_bytes: int
    """Bytes of a number in the model's data type."""

    @property
    def element_bytes(self) -> int:
        """Bytes of one stored number, before scales."""
        return BYTES_OF_MODEL_DTYPE.get(self.dtype, self.model_bytes if self.dtype == "auto" else 1)

    @property
    def is_fp8(self) -> bool:
        """Plain 8-bit floats."""
        return self.dtype in FP8_DTYPES

    @property
    def is_known(self) -> bool:
        """Whether its bytes are known here; else they are counted as one per number."""
        return (
            self.dtype == "auto"
            or self.dtype in BYTES_OF_MODEL_DTYPE
            or self.is_fp8
            or self.dtype in SPARSE_LATENT_TOKEN_BYTES
            or self.dtype in ("nvfp4", "nvfp4_4over6", "int8")
            or self.dtype.endswith("_per_token_head")
        )

    def head_bytes(self, key_dim: int, value_dim: int) -> int:
        """Bytes that one token takes in one KV head.

        nvfp4: half a byte per number and one per 16 of them (utils/torch_utils.py: nvfp4_kv_cache_full_dim).
        ``*_per_token_head``: a scale for keys and one for values.
        """
        if self.dtype.startswith("nvfp4"):
            return sum(dim // 2 + dim // 16 for dim in (key_dim, value_dim))
        if self.dtype == "int4_per_token_head":
            return key_dim // 2 + value_dim // 2 + 2 * SCALE_BYTES
        if self.dtype.endswith("_per_token_head"):
            return key_dim + value_dim + 2 * SCALE_BYTES
        return (key_dim + value_dim) * self.element_bytes

    def latent_bytes(self, width: int) -> int:
        """Bytes that one token's latent takes."""
        return SPARSE_LATENT_TOKEN_BYTES.get(self.dtype, width * self.element_bytes)


def kv_format(facts: ModelFacts, settings: EngineSettings, device: Device) -> KvFormat:
    """The format of the whole cache: what the user asks for, else what the checkpoint asks for, else the model's.

    engine/arg_utils.py and utils/torch_utils.py: resolve_kv_cache_dtype_string; model_executor/models/config.py:
    GlmMoeDsaForCausalLM (fp8 on Blackwell); model_executor/layers/attention/mla_attention.py:
    _canonicalize_sparse_mla_kv_cache_dtype (packed latents).
    """
    dtype = settings.kv_cache_dtype
    if dtype == "auto" and facts.quantization is not None and facts.quantization.kv_cache_dtype is not None:
        dtype = facts.quantization.kv_cache_dtype
    capability = device.compute_capability or (0, 0)
    if dtype == "auto" and facts.architecture == "GlmMoeDsaForCausalLM" and capability[0] == 10:
        dtype = "fp8_e4m3"
    if _is_sparse_latent(facts):
        dtype = _sparse_latent_dtype(dtype, capability[0])
    return KvFormat(dtype=dtype, model_bytes=loaded_element_bytes(settings))


def _is_sparse_latent(facts: ModelFacts) -> bool:
    return any(cache.kind == "latent" and cache.sparse for shape in facts.layer_shapes for cache in shape.caches)


def _sparse_latent_dtype(dtype: str, major: int) -> str:
    """The packed format where the back end that vLLM prefers has one: FlashMLA on Hopper, FlashInfer on SM12x."""
    if major == 12 and dtype in ("auto", "fp8", "fp8_e4m3"):
        return "fp8_ds_mla"
    if major != 10 and dtype in FP8_DTYPES:
        return "fp8_ds_mla"
    return dtype
