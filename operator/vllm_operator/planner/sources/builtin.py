"""Facts of a few popular models, for when the hub cannot be reached: numbers of their configurations, and estimates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from vllm_operator.planner.facts.config import model_facts
from vllm_operator_api.model import ModelFacts

SOURCE: Final = "built-in table"
_MAX_GUESS: Final = 200


def _dense(
    architecture: str, model_type: str, hidden: int, layers: int, heads: tuple[int, int, int], width: int, vocab: int,
    length: int, **more: Any,
) -> dict[str, Any]:  # fmt: skip
    attention, kv, head_dim = heads
    return {
        "architectures": [architecture],
        "model_type": model_type,
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": attention,
        "num_key_value_heads": kv,
        "head_dim": head_dim,
        "intermediate_size": width,
        "vocab_size": vocab,
        "max_position_embeddings": length,
        "sliding_window": None,
        "dtype": "bfloat16",
        **more,
    }


def _llama(hidden: int, layers: int, heads: tuple[int, int, int], width: int) -> dict[str, Any]:
    return _dense("LlamaForCausalLM", "llama", hidden, layers, heads, width, 128_256, 131_072)


def _gpt_oss(layers: int, experts: int) -> dict[str, Any]:
    return _dense(
        "GptOssForCausalLM", "gpt_oss", 2880, layers, (64, 8, 64), 2880, 201_088, 131_072, num_local_experts=experts,
        num_experts_per_tok=4, sliding_window=128, quantization_config={"quant_method": "mxfp4"},
    )  # fmt: skip


def _qwen3(hidden: int, layers: int, heads: tuple[int, int, int], width: int) -> dict[str, Any]:
    return _dense("Qwen3ForCausalLM", "qwen3", hidden, layers, heads, width, 151_936, 40_960)


_DEEPSEEK_V3: Final = _dense(
    "DeepseekV3ForCausalLM", "deepseek_v3", 7168, 61, (128, 128, 192), 18_432, 129_280, 163_840, kv_lora_rank=512,
    q_lora_rank=1536, qk_rope_head_dim=64, qk_nope_head_dim=128, v_head_dim=128, n_routed_experts=256,
    n_shared_experts=1, num_experts_per_tok=8, moe_intermediate_size=2048, first_k_dense_replace=3,
    quantization_config={"quant_method": "fp8", "weight_block_size": [128, 128]},
)  # fmt: skip

_MODELS: Final[Mapping[str, dict[str, Any]]] = {
    "llama-3.1-8b": _llama(4096, 32, (32, 8, 128), 14_336),
    "llama-3.1-70b": _llama(8192, 80, (64, 8, 128), 28_672),
    "llama-3.3-70b": _llama(8192, 80, (64, 8, 128), 28_672),
    "qwen2.5-7b": _dense("Qwen2ForCausalLM", "qwen2", 3584, 28, (28, 4, 128), 18_944, 152_064, 32_768),
    "qwen3-8b": _qwen3(4096, 36, (32, 8, 128), 12_288),
    "qwen3-32b": _qwen3(5120, 64, (64, 8, 128), 25_600),
    "qwen3-30b-a3b": _dense(
        "Qwen3MoeForCausalLM", "qwen3_moe", 2048, 48, (32, 4, 128), 6144, 151_936, 40_960, num_experts=128,
        num_experts_per_tok=8, moe_intermediate_size=768,
    ),
    "mistral-7b-instruct-v0.3": _dense(
        "MistralForCausalLM", "mistral", 4096, 32, (32, 8, 128), 14_336, 32_768, 32_768
    ),
    "mistral-small-24b": _dense("MistralForCausalLM", "mistral", 5120, 40, (32, 8, 128), 32_768, 131_072, 32_768),
    "phi-4": _dense("Phi3ForCausalLM", "phi3", 5120, 40, (40, 10, 128), 17_920, 100_352, 16_384),
    "gpt-oss-20b": _gpt_oss(24, 32),
    "gpt-oss-120b": _gpt_oss(36, 128),
    "deepseek-v3": _DEEPSEEK_V3,
    "deepseek-r1": _DEEPSEEK_V3,
}  # fmt: skip
"""By the repository's name without its organisation; longer names that begin with one and end with a variant of
``_VARIANTS`` mean the same shapes."""
_VARIANTS: Final = ("", "-instruct", "-base", "-0528", "-0324", "-instruct-2507", "-thinking-2507", "-instruct-2501")


def builtin_facts(repository: str, why: str) -> ModelFacts | None:
    """Estimated facts of a popular model; None: it is not among them. ``why`` says why they were not read."""
    name = repository.rpartition("/")[2].lower().removeprefix("meta-")
    config = next((_MODELS[known] for known in _MODELS for variant in _VARIANTS if name == known + variant), None)
    if config is None:
        return None
    facts = model_facts(config, source=f"{SOURCE}: {name}")
    guess = f"Estimated: numbers of {name} built into the operator, as {why}"
    return replace(facts, guesses=(guess[:_MAX_GUESS], *facts.guesses))
