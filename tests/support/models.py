"""Configurations of well-known models, as far as the planner reads them. Numbers from their public model cards."""

from __future__ import annotations

from typing import Any, Final

from vllm_operator.planner.device import Device
from vllm_operator.planner.facts.config import model_facts
from vllm_operator.planner.inventory.pool import GpuPool, LabelRequirement
from vllm_operator.planner.inventory.products import product_named
from vllm_operator.planner.inventory.usable import usable_bytes
from vllm_operator_api.model import ModelFacts

_LLAMA: Final = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "head_dim": 128,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
    "torch_dtype": "bfloat16",
    "tie_word_embeddings": False,
}
CONFIGS: Final[dict[str, dict[str, Any]]] = {
    "llama-8b": {
        **_LLAMA,
        "hidden_size": 4096,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "intermediate_size": 14336,
    },
    "llama-70b": {
        **_LLAMA,
        "hidden_size": 8192,
        "num_hidden_layers": 80,
        "num_attention_heads": 64,
        "intermediate_size": 28672,
    },
    "qwen2.5-7b": {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "hidden_size": 3584,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "intermediate_size": 18944,
        "vocab_size": 152064,
        "max_position_embeddings": 32768,
        "torch_dtype": "bfloat16",
        "tie_word_embeddings": False,
    },
    "phi-4": {
        "architectures": ["Phi3ForCausalLM"],
        "model_type": "phi3",
        "hidden_size": 5120,
        "num_hidden_layers": 40,
        "num_attention_heads": 40,
        "num_key_value_heads": 10,
        "intermediate_size": 17920,
        "vocab_size": 100352,
        "max_position_embeddings": 16384,
        "torch_dtype": "bfloat16",
        "tie_word_embeddings": False,
    },
    "deepseek-v3": {
        "architectures": ["DeepseekV3ForCausalLM"],
        "model_type": "deepseek_v3",
        "hidden_size": 7168,
        "num_hidden_layers": 61,
        "num_attention_heads": 128,
        "num_key_value_heads": 128,
        "q_lora_rank": 1536,
        "kv_lora_rank": 512,
        "qk_nope_head_dim": 128,
        "qk_rope_head_dim": 64,
        "v_head_dim": 128,
        "intermediate_size": 18432,
        "moe_intermediate_size": 2048,
        "n_routed_experts": 256,
        "n_shared_experts": 1,
        "num_experts_per_tok": 8,
        "first_k_dense_replace": 3,
        "num_nextn_predict_layers": 1,
        "vocab_size": 129280,
        "max_position_embeddings": 163840,
        "torch_dtype": "bfloat16",
        "tie_word_embeddings": False,
        "quantization_config": {
            "quant_method": "fp8",
            "fmt": "e4m3",
            "activation_scheme": "dynamic",
            "weight_block_size": [128, 128],
        },
    },
    "gpt-oss-120b": {
        "architectures": ["GptOssForCausalLM"],
        "model_type": "gpt_oss",
        "hidden_size": 2880,
        "num_hidden_layers": 36,
        "num_attention_heads": 64,
        "num_key_value_heads": 8,
        "head_dim": 64,
        "intermediate_size": 2880,
        "num_local_experts": 128,
        "num_experts_per_tok": 4,
        "layer_types": ["sliding_attention", "full_attention"] * 18,
        "sliding_window": 128,
        "vocab_size": 201088,
        "max_position_embeddings": 131072,
        "torch_dtype": "bfloat16",
        "tie_word_embeddings": False,
        "quantization_config": {
            "quant_method": "mxfp4",
            "modules_to_not_convert": ["model.layers.*.self_attn", "model.layers.*.mlp.router", "lm_head"],
        },
    },
}


def facts_of(name: str, **changes: Any) -> ModelFacts:
    """Facts of one of ``CONFIGS``, with keys of its configuration changed."""
    return model_facts({**CONFIGS[name], **changes}, source=name)


def pool(product: str = "NVIDIA-H100-80GB-HBM3", gpus: int = 8, **changes: Any) -> GpuPool:
    """Nodes of a known product."""
    known = product_named(product)
    fields: dict[str, Any] = {
        "resource_name": "nvidia.com/gpu",
        "product": product,
        "device": Device(compute_capability=known.compute_capability if known else None),
        "usable_bytes": usable_bytes(product) if known else 0,
        "gpus_per_node": gpus,
        "nodes": 1,
        "link": known.link if known else "unknown",
        "requirements": (LabelRequirement(key="nvidia.com/gpu.product", values=(product,)),),
    }
    return GpuPool(**{**fields, **changes})
