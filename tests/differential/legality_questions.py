"""Configurations that vLLM is asked about: real ones, and small ones for every kind of quantisation."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

Config = dict[str, Any]

CONFIGS: Final = Path(
    os.environ.get("BENCH_MODEL_CONFIGS") or Path(__file__).parents[2].parent / "shared" / "model-configs"
)
"""Real ``config.json`` files, ``owner--name.json``; not part of the repository."""

_DEEPSEEK_V4: Final[Config] = {
    "model_type": "deepseek_v4",
    "hidden_act": "silu",
    "norm_topk_prob": True,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000,
    "routed_scaling_factor": 1.5,
    "swiglu_limit": 10.0,
}
"""What DeepSeek's own configurations say and those of other formats leave out."""
STAND_INS: Final[dict[str, Config]] = {
    "MiniMaxAI--MiniMax-M3": {"model_type": "minimax_m3_vl", "architectures": ["MiniMaxM3SparseForCausalLM"]},
    "sgl-project--DeepSeek-V4-Flash-FP8": _DEEPSEEK_V4,
    "sgl-project--DeepSeek-V4-Pro-FP8": _DEEPSEEK_V4,
}
"""Changes without which vLLM does not read a configuration, for a reason that has nothing to do with degrees."""


def real_configs() -> Iterator[tuple[str, Config]]:
    """Name and content of every real configuration, as vLLM can read it."""
    for file in sorted(CONFIGS.glob("*.json")):
        yield file.stem, {**json.loads(file.read_text(encoding="utf-8")), **STAND_INS.get(file.stem, {})}


DENSE: Final[Config] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 2048,
    "num_hidden_layers": 1,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "head_dim": 128,
    "vocab_size": 32000,
    "max_position_embeddings": 4096,
    "torch_dtype": "bfloat16",
    "rms_norm_eps": 1e-5,
    "hidden_act": "silu",
}
EXPERTS: Final[Config] = {
    **DENSE,
    "architectures": ["Qwen3MoeForCausalLM"],
    "model_type": "qwen3_moe",
    "intermediate_size": 4096,
    "num_experts": 32,
    "num_experts_per_tok": 2,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
    "norm_topk_prob": True,
}


def _compressed(form: str, weights: Config, activations: Config | None = None) -> Config:
    group = {"targets": ["Linear"], "weights": {"symmetric": True, **weights}}
    if activations is not None:
        group["input_activations"] = {"symmetric": True, "dynamic": True, **activations}
    return {
        "quant_method": "compressed-tensors",
        "format": form,
        "ignore": ["lm_head", "re:.*gate$"],
        "config_groups": {"group_0": group},
    }


def _modelopt(algorithm: str, weights: Config, activations: Config | None = None) -> Config:
    group = {"targets": ["Linear"], "weights": {"type": "float", **weights}}
    if activations is not None:
        group["input_activations"] = {"type": "float", **activations}
    return {"quant_method": "modelopt", "quant_algo": algorithm, "ignore": ["lm_head"], "config_groups": {"0": group}}


_FP4: Final = {"num_bits": 4, "group_size": 16, "dynamic": False}
_FP8: Final = {"num_bits": 8, "type": "float"}
QUANTIZATIONS: Final[dict[str, Config]] = {
    "fp8 blocks": {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128]},
    "fp8 tensor": {"quant_method": "fp8", "activation_scheme": "dynamic"},
    "awq": {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True, "version": "gemm"},
    "gptq": {"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": False, "sym": True},
    "compressed int4": _compressed(
        "pack-quantized", {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 128}
    ),
    "compressed int4 of 32": _compressed(
        "pack-quantized", {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 32}
    ),
    "compressed fp8 blocks": _compressed(
        "float-quantized",
        {**_FP8, "strategy": "block", "block_structure": [128, 128], "dynamic": False},
        {**_FP8, "strategy": "group", "group_size": 128},
    ),
    "compressed fp8 channels": _compressed(
        "float-quantized", {**_FP8, "strategy": "channel", "dynamic": False}, {**_FP8, "strategy": "token"}
    ),
    "nvfp4": _modelopt("NVFP4", _FP4, _FP4),
    "mxfp8": _modelopt("MXFP8", {"num_bits": 8, "group_size": 32}),
}
WIDTHS: Final = (704, 1152, 1536, 1792, 2304, 2560, 2688)
"""Inner widths: cut by 2 to 16, they are multiples of 128, 64, 32, 16, or of none of them."""


def quantised_configs() -> Iterator[tuple[str, Config]]:
    """Dense models and mixtures of experts of every quantisation and width that a quantiser would make."""
    for name, quantization in QUANTIZATIONS.items():
        for width in WIDTHS:
            if width % 128 and name not in {"fp8 tensor", "compressed fp8 channels", "nvfp4", "mxfp8"}:
                continue
            yield f"{name} dense {width}", {**DENSE, "quantization_config": quantization, "intermediate_size": width}
            experts = {**EXPERTS, "quantization_config": quantization, "moe_intermediate_size": width}
            yield f"{name} experts {width}", experts
