"""A collection of real configurations: each is understood, and the computed sizes are those of the published files."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tests.support.model_configs import real_configs

from vllm_operator.planner.facts.config import model_facts, model_shapes
from vllm_operator.planner.facts.document import parse_json
from vllm_operator.planner.facts.parameters import computed_sizes
from vllm_operator.planner.facts.quantization.checkpoint import quantization_of
from vllm_operator.planner.facts.text_config import text_fields
from vllm_operator_api.model import AttentionCache, IndexCache, LatentCache, ModelFacts, StateCache
from vllm_operator_api.quantities import BYTES_PER_GIB
from vllm_operator_api.runtime import MAX_TERMINATION_MESSAGE_BYTES, ModelFactsResult

CONFIGS = {path.stem: path for path in real_configs()}
pytestmark = pytest.mark.skipif(not CONFIGS, reason="the collection of real config.json files is not on this machine")

"""Models whose KV cache is only estimated."""

PUBLISHED_GIB = {
    # Bytes of the safetensors in the model's repository, in GiB, without copies in other layouts.
    "Qwen--Qwen3-235B-A22B": 437.9,
    "Qwen--Qwen3-235B-A22B-FP8": 219.8,
    "Qwen--Qwen3-30B-A3B": 56.9,
    "Qwen--Qwen3-32B": 61.03,
    "Qwen--Qwen3-Coder-480B-A35B-Instruct": 894,
    "Qwen--Qwen3.5-122B-A10B": 232.99,
    "Qwen--Qwen3.5-27B": 51.75,
    "Qwen--Qwen3.5-35B-A3B": 66.97,
    "Qwen--Qwen3.5-397B-A17B": 740,
    "XiaomiMiMo--MiMo-V2-Flash": 292,
    "deepseek-ai--DeepSeek-R1": 641.3,
    "deepseek-ai--DeepSeek-V3": 641.3,
    "deepseek-ai--DeepSeek-V3.2": 642.1,
    "google--gemma-4-26B-A4B": 48.07,
    "meta-llama--Llama-4-Scout-17B-16E-Instruct": 203,
    "meta-llama--Meta-Llama-3.1-70B": 131.42,
    "meta-llama--Meta-Llama-3.1-8B": 14.96,
    "mistralai--Mixtral-8x7B-v0.1": 87,
    "moonshotai--Kimi-K2-Instruct": 959,
    "moonshotai--Kimi-K2.5": 554.3,
    "nvidia--NVIDIA-Nemotron-3-Nano-30B-A3B-BF16": 58.82,
    "nvidia--NVIDIA-Nemotron-3-Super-120B-A12B-FP8": 230.25,  # its configuration is the unquantised one's
    "nvidia--NVIDIA-Nemotron-3-Ultra-550B-A55B-BF16": 1028,
    "openai--gpt-oss-120b": 61,
    "openai--gpt-oss-20b": 12.9,
    "stepfun-ai--Step-3.7-Flash": 370,
    "zai-org--GLM-5.2-FP8": 703.75,
}
WITHOUT_SPECULATIVE_GIB = {"MiniMaxAI--MiniMax-M2.5": 214.34, "MiniMaxAI--MiniMax-M2.7": 214.34}
"""Repositories that lack the layers for multi-token prediction that their configurations promise."""


def config_of(name: str) -> dict[str, Any]:
    return parse_json(CONFIGS[name].read_bytes(), name)


def facts_of(name: str) -> ModelFacts:
    return model_facts(config_of(name), source=name)


def computed_gib(name: str, *, speculative: bool) -> float:
    config = config_of(name)
    quantization = quantization_of(config, text_fields(config))
    sizes = computed_sizes(model_shapes(config), quantization.rules if quantization else None)
    return (sizes.total + (sizes.speculative if speculative else 0)) / BYTES_PER_GIB


@pytest.mark.parametrize("path", CONFIGS.values(), ids=CONFIGS.keys())
def test_each_is_understood_and_fits_a_termination_message(path: Path) -> None:
    facts = model_facts(parse_json(path.read_bytes(), path.name), source="x" * 200, revision="a" * 40)
    message = ModelFactsResult(facts=facts).model_dump_json(exclude_none=True)
    assert len(message) < MAX_TERMINATION_MESSAGE_BYTES
    assert ModelFactsResult.model_validate_json(message).facts == facts
    assert facts.guesses == ()


@pytest.mark.parametrize(("name", "published"), PUBLISHED_GIB.items())
def test_computed_size_is_the_published_one(name: str, published: float) -> None:
    assert computed_gib(name, speculative=True) == pytest.approx(published, rel=0.02)


def test_most_computed_sizes_are_within_one_percent() -> None:
    close = [
        name
        for name, published in PUBLISHED_GIB.items()
        if computed_gib(name, speculative=True) == pytest.approx(published, rel=0.01)
    ]
    assert len(close) >= 0.8 * len(PUBLISHED_GIB)


@pytest.mark.parametrize(("name", "published"), WITHOUT_SPECULATIVE_GIB.items())
def test_computed_size_without_promised_layers(name: str, published: float) -> None:
    assert computed_gib(name, speculative=False) == pytest.approx(published, rel=0.01)


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("openai--gpt-oss-120b", {"sliding": 18, "full": 18}),
        ("google--gemma-4-26B-A4B", {"sliding": 25, "full": 5}),
        ("nvidia--Gemma-4-31B-IT-NVFP4", {"sliding": 50, "full": 10}),
        ("meta-llama--Llama-4-Scout-17B-16E-Instruct", {"chunked": 36, "full": 12}),
        ("XiaomiMiMo--MiMo-V2-Flash", {"sliding": 39, "full": 9}),
        ("stepfun-ai--Step-3.7-Flash", {"sliding": 33, "full": 12}),
        ("Qwen--Qwen3.5-397B-A17B", {"gdn": 45, "full": 15}),
        ("nvidia--NVIDIA-Nemotron-3-Nano-30B-A3B-BF16", {"mamba2": 23, "full": 6, "": 23}),
        ("nvidia--NVIDIA-Nemotron-3-Super-120B-A12B-FP8", {"mamba2": 40, "full": 8, "": 40}),
        ("nvidia--NVIDIA-Nemotron-3-Ultra-550B-A55B-BF16", {"mamba2": 48, "full": 12, "": 48}),
        ("nvidia--Nemotron-H-56B-Base-8K", {"mamba2": 54, "full": 10, "": 54}),
        ("moonshotai--Kimi-K3", {"kda": 69, "latent": 24}),
        ("deepseek-ai--DeepSeek-R1", {"latent": 61}),
        ("deepseek-ai--DeepSeek-V3.2", {"latent+index": 61}),
        ("zai-org--GLM-5.2", {"latent+index": 21, "latent": 57}),
        ("MiniMaxAI--MiniMax-M3", {"full": 3, "full+index": 57}),
        ("nvidia--Llama-3_3-Nemotron-Super-49B-v1", {"full": 49, "": 31}),
    ],
)
def test_layers_of_each_kind(name: str, counts: dict[str, int]) -> None:
    facts = facts_of(name)
    kinds = ("+".join(cache.kind for cache in facts.shape_of(layer).caches) for layer in range(facts.layers))
    assert Counter(kinds) == counts


def test_the_layers_with_an_index_are_those_that_the_configuration_lists() -> None:
    facts, listed = facts_of("zai-org--GLM-5.2"), config_of("zai-org--GLM-5.2")["indexer_types"]
    has_index = [any(isinstance(c, IndexCache) for c in facts.shape_of(layer).caches) for layer in range(facts.layers)]
    assert has_index == [kind == "full" for kind in listed]


@pytest.mark.parametrize("name", CONFIGS)
def test_every_cache_is_of_a_sensible_size(name: str) -> None:
    """At most 4 KiB per token and layer of anything that grows, in elements: no width was multiplied twice."""
    for shape in facts_of(name).layer_shapes:
        for cache in shape.caches:
            match cache:
                case AttentionCache():
                    assert cache.kv_heads * (cache.head_dim + cache.value_dim) <= 8192
                case LatentCache():
                    assert cache.rank + cache.rope_dim <= 1024
                case IndexCache():
                    assert cache.head_dim <= 128
                case StateCache():
                    assert cache.heads * cache.head_dim * cache.state_size <= 4_194_304
