"""Facts of known models, as far as the constraints ask for them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from vllm_operator_api.model import (
    AttentionCache,
    ExpertFacts,
    LatentCache,
    LayerShape,
    ModelFacts,
    QuantizationFacts,
    StateCache,
    WeightFacts,
    WeightsSource,
)


def attention(kv_heads: int, head_dim: int = 128, **fields: Any) -> AttentionCache:
    """Keys and values of this many heads; full attention unless said otherwise."""
    return AttentionCache(**{"kind": "full", "value_dim": head_dim, **fields}, kv_heads=kv_heads, head_dim=head_dim)


def model(heads: int, *caches: Any, vocabulary: int, widths: tuple[int, ...] = (), **fields: Any) -> ModelFacts:
    """A model with one layer shape per cache."""
    shapes = tuple(LayerShape(caches=(cache,)) for cache in caches) or (LayerShape(),)
    facts = ModelFacts(
        source="test",
        architecture="LlamaForCausalLM",
        hidden_size=4096,
        vocab_size=vocabulary,
        attention_heads=heads,
        layer_shapes=shapes,
        layer_pattern="".join(chr(ord("a") + index) for index in range(len(shapes))) * 2,
        intermediate_sizes=widths,
        weights=WeightFacts(total_bytes=1, source=WeightsSource.GIVEN),
    )
    return replace(facts, **fields)


FP8_BLOCKS = QuantizationFacts(method="fp8", weight_bits=8, activation_bits=8, block=(128, 128))
AWQ = QuantizationFacts(method="awq", weight_bits=4, group_size=128)

PHI_4 = model(40, attention(10), vocabulary=100352, widths=(17920,))
PHI_4_MINI = model(24, attention(8), vocabulary=200064, widths=(8192,))
QWEN2_5_7B = model(28, attention(4), vocabulary=152064, widths=(18944,))
QWEN2_5_7B_AWQ = replace(QWEN2_5_7B, quantization=AWQ)
QWEN3_32B = model(64, attention(8), vocabulary=151936, widths=(25600,))
QWEN3_32B_FP8 = replace(QWEN3_32B, quantization=FP8_BLOCKS)
LLAMA_3_1_8B = model(32, attention(8), vocabulary=128256, widths=(14336,))
LLAMA_4_SCOUT = model(
    40,
    attention(8),
    vocabulary=202048,
    widths=(16384, 8192),
    experts=ExpertFacts(experts=16, experts_per_token=1, intermediate_size=8192),
)
QWEN3_5_27B = model(
    24,
    attention(4, 256),
    StateCache(kind="gdn", heads=48, head_dim=128, state_size=128, key_heads=16, conv_kernel=4),
    vocabulary=248320,
    widths=(17408,),
)
NEMOTRON_3_NANO = model(
    32,
    attention(2),
    StateCache(kind="mamba2", heads=64, head_dim=64, state_size=128, key_heads=8, conv_kernel=4),
    vocabulary=131072,
    widths=(3712,),
    experts=ExpertFacts(experts=128, experts_per_token=6, intermediate_size=1856),
)
QWEN3_235B = model(
    64,
    attention(4),
    vocabulary=151936,
    experts=ExpertFacts(experts=128, experts_per_token=8, intermediate_size=1536),
)
QWEN3_235B_FP8 = replace(QWEN3_235B, quantization=FP8_BLOCKS)
QWEN3_30B_FP8 = model(
    32,
    attention(4),
    vocabulary=151936,
    hidden_size=2048,
    experts=ExpertFacts(experts=128, experts_per_token=8, intermediate_size=768),
    quantization=FP8_BLOCKS,
)
STEP_3_7_FP8 = model(
    64,
    attention(8),
    vocabulary=128896,
    widths=(11264, 1280),
    experts=ExpertFacts(experts=288, experts_per_token=8, intermediate_size=1280),
    quantization=FP8_BLOCKS,
)
DEEPSEEK_V3 = model(
    128,
    LatentCache(rank=512, rope_dim=64),
    vocabulary=129280,
    widths=(18432, 2048),
    hidden_size=7168,
    experts=ExpertFacts(experts=256, experts_per_token=8, intermediate_size=2048),
    quantization=FP8_BLOCKS,
)
DEEPSEEK_V3_2 = replace(
    DEEPSEEK_V3, layer_shapes=(LayerShape(caches=(LatentCache(rank=512, rope_dim=64, sparse=True),)),)
)
DEEPSEEK_V4_FLASH = model(
    64,
    attention(1, 512, kind="sliding", window_tokens=128),
    vocabulary=129280,
    widths=(2048,),
    experts=ExpertFacts(experts=256, experts_per_token=6, intermediate_size=2048),
    quantization=FP8_BLOCKS,
    architecture="DeepseekV4ForCausalLM",
)
DEEPSEEK_V4_PRO = replace(
    DEEPSEEK_V4_FLASH,
    attention_heads=128,
    intermediate_sizes=(3072,),
    experts=ExpertFacts(experts=384, experts_per_token=6, intermediate_size=3072),
)
GPT_OSS_20B = model(
    64,
    attention(8, 64),
    vocabulary=201088,
    hidden_size=2880,
    experts=ExpertFacts(experts=32, experts_per_token=4, intermediate_size=2880),
    quantization=QuantizationFacts(method="mxfp4", weight_bits=4, group_size=32),
    architecture="GptOssForCausalLM",
)
