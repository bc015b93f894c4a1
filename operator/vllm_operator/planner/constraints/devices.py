"""C16: what a kind of accelerator cannot run in any layout.

A GPU of unknown compute capability is refused nothing that depends on it. vLLM has no platform of its own for Gaudi
(a plugin brings it), so nothing but the method's name is held against a model there.
"""

from __future__ import annotations

from typing import Final

from vllm_operator.planner.constraints.rule import Case, Rule, caches_of
from vllm_operator.planner.device import Device, Vendor
from vllm_operator.planner.engine_options import default_engine_options
from vllm_operator.planner.engine_settings import EngineSettings
from vllm_operator_api.model import AttentionCache, LatentCache, ModelFacts

Capability = tuple[int, int]

ENGINE_MINIMUM: Final[Capability] = (7, 5)
"""vLLM's installation page for NVIDIA GPUs; the PyTorch that 0.32.0 pins has no code for less (its architecture flags
begin with ``sm_75``)."""

METHOD_MINIMUM: Final[dict[str, Capability]] = {
    "experts_int8": (8, 0),
    "fbgemm_fp8": (8, 0),
    "fp8_per_channel": (8, 9),  # online/fp8.py:433: kernels that scale per token, none of Marlin
    "fp_quant": (10, 0),
    "gpt_oss_mxfp4": (8, 0),
    "modelopt": (8, 0),  # fp8; nvfp4 is modelopt_fp4
    "modelopt_mxfp8": (8, 0),
    "mxfp4": (8, 0),
    "mxfp8": (8, 0),
}
"""``get_min_capability`` of the classes below ``model_executor/layers/quantization``, where it is above the engine's
own minimum. Not among them: fp8, NVFP4, AWQ and GPTQ, that Marlin serves from 7.5 on."""

VENDOR_METHODS: Final[dict[Vendor, frozenset[str]]] = {
    "amd": frozenset({
        "awq", "auto_awq", "awq_marlin", "gptq", "auto_gptq", "fp8", "deepseek_v4_fp8", "compressed-tensors",
        "fbgemm_fp8", "inc", "quark", "mxfp4", "mxfp8", "torchao", "modelopt", "modelopt_fp4", "modelopt_mxfp8",
        "modelopt_mixed", "fp8_per_tensor", "fp8_per_block", "fp8_per_channel", "online", "gpt_oss_mxfp4",
    }),
    "intel": frozenset({
        "awq", "gptq", "moe_wna16", "auto_awq", "auto_gptq", "inc", "fp8", "deepseek_v4_fp8", "mxfp4", "mxfp8",
        "fp8_per_tensor", "fp8_per_block", "fp8_per_channel", "online", "gpt_oss_mxfp4", "modelopt",
        "compressed-tensors",
    }),
}  # fmt: skip
"""``supported_quantization`` of ``platforms/rocm.py:614`` and ``platforms/xpu.py:113``; other platforms name none and
so allow every method (``platforms/interface.py: verify_quantization``)."""

_VENDOR_NAMES: Final[dict[Vendor, str]] = {
    "nvidia": "NVIDIA GPUs",
    "amd": "AMD GPUs",
    "intel": "Intel GPUs",
    "habana": "Gaudi",
    "cpu": "CPUs",
}

_NO_FLOAT16: Final = frozenset({"gemma2", "gemma3", "gemma3_text", "glm4"})
"""``_FLOAT16_NOT_SUPPORTED_MODELS`` of ``config/model.py``, by model type."""
_BFLOAT16_ONLY: Final = frozenset({"mxfp4", "gpt_oss_mxfp4", "modelopt_mxfp8", "mxfp8", "fp_quant"})
_FLOAT32_TOO: Final = frozenset({"compressed-tensors", "torchao"})
"""``get_supported_act_dtypes`` of the quantisation classes: float16 and bfloat16 unless named here."""
_DTYPE_NAMES: Final = {"half": "float16", "float": "float32"}
_FLASHINFER_HEADS: Final = frozenset({64, 128, 256, 512})
"""``get_supported_head_sizes`` of ``v1/attention/backends/flashinfer.py``."""
_TRITON_ATTENTION: Final = ("GptOss", "Gemma4", "EmbeddingGemma2")
"""Beginnings of architectures whose fp8 KV cache Triton reads on GPUs before Hopper: for its attention sinks
(``v1/attention/backends/flashinfer.py: supports_sink``) or heads of different sizes (``models/config.py:
Gemma4Config``)."""
_SPARSE_ARCHITECTURES: Final = ("DeepseekV4",)
"""Beginnings of architectures with a sparse attention of their own (``models/deepseek_v4/sparse_mla.py:95``)."""
_BFLOAT16_FROM: Final[Capability] = (8, 0)


def _method(facts: ModelFacts, settings: EngineSettings) -> str | None:
    """The method vLLM will use: the checkpoint's, else the one asked for."""
    return facts.quantization.method if facts.quantization is not None else settings.quantization


def _version(capability: Capability) -> str:
    return f"{capability[0]}.{capability[1]}"


def _below(needs: str, needed: Capability, device: Device) -> str | None:
    """Why this NVIDIA GPU is too old, None when it is not, or not known."""
    found = device.compute_capability
    if device.vendor != "nvidia" or found is None or found >= needed:
        return None
    return f"{needs} compute capability {_version(needed)}, and this GPU has {_version(found)}"


def engine(case: Case) -> str | None:
    """The GPU is one that vLLM is built for."""
    return _below("vLLM needs", ENGINE_MINIMUM, case.device)


def known_method(case: Case) -> str | None:
    """The method is one that this vLLM has (``config/model.py: _verify_quantization``)."""
    method, known = _method(case.facts, case.settings), default_engine_options()
    if method is None or not known.quantization_methods or method in known.quantization_methods:
        return None
    return f"vLLM {known.vllm_version} does not know the quantisation method {method}"


def vendor_method(case: Case) -> str | None:
    """The method is one that vLLM offers on this vendor's devices."""
    method, offered = _method(case.facts, case.settings), VENDOR_METHODS.get(case.device.vendor)
    if method is None or offered is None or method in offered:
        return None
    return f"vLLM does not offer the quantisation method {method} on {_VENDOR_NAMES[case.device.vendor]}"


def method_capability(case: Case) -> str | None:
    """The GPU has what the method needs (``config/vllm.py: _get_quantization_config``)."""
    method, quantization = _method(case.facts, case.settings), case.facts.quantization
    if method is None:
        return None
    needed = METHOD_MINIMUM.get(method)
    if quantization is not None and method == "modelopt" and quantization.weight_bits < 8:
        needed = None  # nvfp4, which vLLM calls modelopt_fp4
    return None if needed is None else _below(f"the quantisation method {method} needs", needed, case.device)


def dtype(case: Case) -> str | None:
    """A data type that is asked for by name exists on the device and suits model and quantisation
    (``platforms/cuda.py: check_if_supports_dtype``, ``config/model.py: _check_valid_dtype``). ``auto`` falls back to
    one that does (``config/model.py: _resolve_auto_dtype``), so a bfloat16 checkpoint runs on a T4.
    """
    asked = _DTYPE_NAMES.get(case.settings.dtype, case.settings.dtype)
    if asked == "auto":
        return None
    if asked == "bfloat16" and (reason := _below("bfloat16 needs", _BFLOAT16_FROM, case.device)) is not None:
        return f"{reason}; float16 runs on it"
    if asked == "float16" and case.facts.model_type in _NO_FLOAT16:
        return f"float16 is numerically unstable with {case.facts.model_type}, so vLLM refuses it; use bfloat16"
    method = _method(case.facts, case.settings)
    if method is None:
        return None
    if asked == "float16" and method in _BFLOAT16_ONLY:
        return f"the quantisation method {method} computes in bfloat16, not in float16"
    if asked == "float32" and method not in _FLOAT32_TOO:
        return f"the quantisation method {method} does not compute in float32"
    return None


def kv_cache_dtype(case: Case) -> str | None:
    """An fp8 KV cache needs kernels that read it: FlashInfer's from 8.0 on for the head sizes that it has
    (``v1/attention/backends/flashinfer.py:566``), Triton's, also for latent attention, from 8.9 on
    (``v1/attention/backends/triton_attn.py:490``, ``mla/triton_mla.py:199``).
    """
    asked = case.settings.kv_cache_dtype
    if asked == "auto" and case.facts.quantization is not None:
        asked = case.facts.quantization.kv_cache_dtype or asked
    if not case.settings.keeps_kv_cache or not asked.startswith("fp8"):
        return None
    if any(caches_of(case.facts, LatentCache)):
        return _below(f"a KV cache of {asked} with latent attention needs", (8, 9), case.device)
    sizes = (cache.head_dim for cache in caches_of(case.facts, AttentionCache))
    if (odd := next((size for size in sizes if size not in _FLASHINFER_HEADS), None)) is not None:
        return _below(f"a KV cache of {asked} with heads of {odd} needs", (8, 9), case.device)
    if case.facts.architecture.startswith(_TRITON_ATTENTION):
        return _below(f"a KV cache of {asked} with {case.facts.architecture} needs", (8, 9), case.device)
    return _below(f"a KV cache of {asked} needs", (8, 0), case.device)


def sparse_attention(case: Case) -> str | None:
    """DeepSeek's sparse attention has kernels for Hopper and Blackwell alone
    (``v1/attention/backends/mla/flashmla_sparse.py:203`` and its neighbours), and none on CPUs
    (``platforms/cpu.py: get_attn_backend_cls``).
    """
    sparse = any(cache.sparse for cache in caches_of(case.facts, LatentCache))
    if not sparse and not case.facts.architecture.startswith(_SPARSE_ARCHITECTURES):
        return None
    if case.device.vendor == "cpu":
        return "vLLM has no sparse attention on CPUs"
    return _below("sparse attention needs", (9, 0), case.device)


RULES: Final[tuple[Rule, ...]] = (
    engine,
    known_method,
    vendor_method,
    method_capability,
    sparse_attention,
    kv_cache_dtype,
    dtype,
)
"""The most fundamental first."""
