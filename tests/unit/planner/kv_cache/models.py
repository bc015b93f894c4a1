"""Hand-made facts of real models: only what the KV cache depends on."""

from __future__ import annotations

from vllm_operator_api.model import (
    AttentionCache,
    Cache,
    IndexCache,
    LatentCache,
    LayerShape,
    ModelFacts,
    QuantizationFacts,
    StateCache,
    WeightFacts,
    WeightsSource,
)


def facts(
    *shapes: tuple[Cache, ...],
    pattern: str,
    architecture: str = "LlamaForCausalLM",
    heads: int = 32,
    kv_cache_dtype: str | None = None,
    model_type: str | None = None,
    multimodal: bool = False,
) -> ModelFacts:
    """A model whose layers have these caches."""
    quantization = QuantizationFacts(method="fp8", weight_bits=8, kv_cache_dtype=kv_cache_dtype)
    return ModelFacts(
        source="test",
        architecture=architecture,
        model_type=model_type,
        hidden_size=4096,
        vocab_size=128000,
        attention_heads=heads,
        layer_shapes=tuple(LayerShape(caches=caches) for caches in shapes),
        layer_pattern=pattern,
        dtype="bfloat16",
        quantization=quantization if kv_cache_dtype else None,
        weights=WeightFacts(total_bytes=1, source=WeightsSource.GIVEN),
        multimodal=multimodal,
    )


def full(kv_heads: int, head_dim: int = 128, value_dim: int | None = None) -> AttentionCache:
    """Keys and values of every token."""
    return AttentionCache(kind="full", kv_heads=kv_heads, head_dim=head_dim, value_dim=value_dim or head_dim)


def sliding(kv_heads: int, window: int, head_dim: int = 128, value_dim: int | None = None) -> AttentionCache:
    """Keys and values of the last tokens."""
    return AttentionCache(
        kind="sliding", kv_heads=kv_heads, head_dim=head_dim, value_dim=value_dim or head_dim, window_tokens=window
    )


def chunked(kv_heads: int, chunk: int) -> AttentionCache:
    """Keys and values of the current chunk."""
    return AttentionCache(kind="chunked", kv_heads=kv_heads, head_dim=128, value_dim=128, window_tokens=chunk)


def gdn(value_heads: int) -> StateCache:
    """Qwen3.5's linear attention."""
    return StateCache(kind="gdn", heads=value_heads, head_dim=128, state_size=128, key_heads=16, conv_kernel=4)


LATENT = LatentCache(rank=512, rope_dim=64)
SPARSE_LATENT = LatentCache(rank=512, rope_dim=64, sparse=True)
INDEX = IndexCache(head_dim=128)

LLAMA_8B = facts((full(8),), pattern="a" * 32)
LLAMA_70B = facts((full(8),), pattern="a" * 80, heads=64)
MISTRAL_24B = facts((full(8),), pattern="a" * 40)
QWEN2_5_1_5B = facts((full(2),), pattern="a" * 28, heads=12)
QWEN3_CODER_30B = facts((full(4),), pattern="a" * 48)
QWEN3_VL_8B = facts((full(8),), pattern="a" * 36)
MINIMAX_M2_7 = facts((full(8),), pattern="a" * 62, heads=48)
GPT_OSS_120B = facts((sliding(8, 128, 64),), (full(8, 64),), pattern="ab" * 18, heads=64)
GEMMA_3_27B = facts((sliding(16, 1024),), (full(16),), pattern="aaaaab" * 10 + "aa")
LLAMA_4_SCOUT = facts((chunked(8, 8192),), (full(8),), pattern="aaab" * 12, heads=40)
DEEPSEEK_V3 = facts((LATENT,), pattern="a" * 61, architecture="DeepseekV3ForCausalLM", heads=128)
DEEPSEEK_V3_2 = facts((SPARSE_LATENT, INDEX), pattern="a" * 61, architecture="DeepseekV32ForCausalLM", heads=128)
MIMO_V2_FLASH = facts(
    (full(4, 192, 128),), (sliding(8, 128, 192, 128),), pattern="a" + "bbbba" + "bbbbba" * 7, heads=64
)


def qwen3_5(value_heads: int, kv_heads: int, layers: int, kv_cache_dtype: str | None = None) -> ModelFacts:
    """Three layers of linear attention to one of full attention with heads of 256."""
    return facts(
        (gdn(value_heads),),
        (full(kv_heads, 256),),
        pattern="aaab" * (layers // 4),
        architecture="Qwen3_5ForConditionalGeneration",
        kv_cache_dtype=kv_cache_dtype,
    )


QWEN3_5_0_8B = qwen3_5(16, 2, 24)
QWEN3_5_35B = qwen3_5(32, 2, 40)
QWEN3_6_27B = qwen3_5(48, 4, 64)
NEMOTRON_3_NANO = facts(
    (StateCache(kind="mamba2", heads=64, head_dim=64, state_size=128, key_heads=8, conv_kernel=4),),
    (),
    (full(2),),
    pattern="a" * 23 + "b" * 23 + "c" * 6,
    architecture="NemotronHForCausalLM",
)
KIMI_K3 = facts(
    (StateCache(kind="kda", heads=96, head_dim=128, state_size=128, key_heads=96, conv_kernel=4),),
    (LATENT,),
    pattern="aaab" * 23 + "b",
    architecture="KimiK3ForConditionalGeneration",
    heads=96,
)
