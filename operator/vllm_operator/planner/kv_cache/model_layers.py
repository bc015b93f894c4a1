"""From the facts of a model to the cache of every layer on one GPU."""

from __future__ import annotations

from operator import add
from typing import Final

from vllm_operator.planner.device import Device
from vllm_operator.planner.engine_settings import EngineSettings
from vllm_operator.planner.kv_cache.block_size import block_rule
from vllm_operator.planner.kv_cache.compressed import compressed_caches, is_compressed
from vllm_operator.planner.kv_cache.grouping import CachedLayers
from vllm_operator.planner.kv_cache.layer_cache import LayerCache, ceil_div
from vllm_operator.planner.kv_cache.number_format import KvFormat, kv_format
from vllm_operator.planner.kv_cache.state import state_bytes
from vllm_operator.planner.layout import Layout
from vllm_operator.planner.pipeline_stages import stage_layers
from vllm_operator_api.model import AttentionCache, Cache, IndexCache, LatentCache, LayerShape, ModelFacts, StateCache

INDEX_SCALE_BYTES: Final = 4
"""One float32 scale beside the 8-bit key of a token (model_executor/models/deepseek_v2.py: DeepseekV32IndexerCache)."""
CHECKPOINTED_STATES: Final = ("mamba2",)
"""Kinds that hold one more state to write a prefix into (num_prefill_checkpoint_blocks)."""
CHECKPOINTED_KDA_ARCHITECTURES: Final = ("KimiK3", "Glm5Next")
"""Architectures (their first letters) whose KDA layers hold it too (models/kimi_k3/nvidia/kda.py)."""
CHECKPOINTED_KDA_MAJORS: Final = (9, 10)
"""Compute capabilities that its kernel is built for; elsewhere another is taken, which writes no prefix."""


def cached_layers(
    facts: ModelFacts, layout: Layout, settings: EngineSettings, device: Device
) -> tuple[CachedLayers, ...]:
    """The caches of all layers on one GPU of the stage that holds them, equal ones together; empty: none keeps any."""
    stages = stage_layers(facts.layers, layout.pipeline)
    kinds: dict[LayerCache, tuple[int, ...]] = {}
    for index, caches in enumerate(_shapes(facts, layout, settings, device)):
        letter = chr(ord("a") + index)
        per_stage = tuple(facts.layer_pattern.count(letter, layers.start, layers.stop) for layers in stages)
        for cache in caches:
            before = kinds.get(cache)
            kinds[cache] = tuple(map(add, before, per_stage)) if before else per_stage
    return tuple(CachedLayers(cache, per_stage) for cache, per_stage in kinds.items() if any(per_stage))


def _shapes(facts: ModelFacts, layout: Layout, settings: EngineSettings, device: Device) -> list[list[LayerCache]]:
    """The caches of each of the model's layer shapes."""
    if is_compressed(facts):
        return [compressed_caches(shape) for shape in facts.layer_shapes]
    kv = kv_format(facts, settings, device)
    rule = block_rule(facts, kv, device, settings.block_tokens)
    tokens = rule.tokens
    states = [
        state_bytes(cache, facts.architecture, layout.tensor, kv.model_bytes, device)
        for shape in facts.layer_shapes
        for cache in shape.caches
        if isinstance(cache, StateCache)
    ]
    token_bytes = _attention_token_bytes(facts, layout, kv)
    state_page = max(states, default=0)
    if states and token_bytes:
        tokens = max(tokens, rule.kernel_tokens * ceil_div(state_page, rule.kernel_tokens * token_bytes))
        state_page = tokens * token_bytes
    return [
        [_layer_cache(cache, shape, facts, layout, settings, device, kv, tokens, state_page) for cache in shape.caches]
        for shape in facts.layer_shapes
    ]


def _attention_token_bytes(facts: ModelFacts, layout: Layout, kv: KvFormat) -> int:
    """Bytes of one token in one attention layer, which blocks of a model with states are counted in; 0: no attention.

    vLLM takes the model's own number of KV heads and head width (platforms/interface.py: _align_hybrid_block_size).
    """
    for shape in facts.layer_shapes:
        for cache in shape.caches:
            if isinstance(cache, LatentCache):
                return kv.latent_bytes(cache.rank + cache.rope_dim)
            if isinstance(cache, AttentionCache):
                return kv_heads_per_gpu(cache, layout) * kv.head_bytes(cache.head_dim, cache.value_dim)
    return 0


def kv_heads_per_gpu(cache: AttentionCache, layout: Layout) -> int:
    """KV heads on one GPU: copies once the degree exceeds them (config/model.py: get_num_kv_heads)."""
    return max(1, cache.kv_heads // layout.tensor)


def _layer_cache(
    cache: Cache,
    shape: LayerShape,
    facts: ModelFacts,
    layout: Layout,
    settings: EngineSettings,
    device: Device,
    kv: KvFormat,
    tokens: int,
    state_page: int,
) -> LayerCache:
    if isinstance(cache, StateCache):
        size = state_bytes(cache, facts.architecture, layout.tensor, kv.model_bytes, device)
        return LayerCache(
            kind="state",
            block_tokens=tokens if settings.prefix_caching else settings.max_length_tokens,
            page_bytes=max(state_page, size),
            shape=(cache.heads, cache.head_dim, cache.state_size, cache.key_heads, cache.conv_kernel),
            states=_states_per_request(cache, facts.architecture, settings, device),
        )
    if isinstance(cache, LatentCache):
        width = cache.rank + cache.rope_dim
        page = tokens * kv.latent_bytes(width)
        return LayerCache(kind="latent", block_tokens=tokens, page_bytes=page, shape=(width,))
    if isinstance(cache, IndexCache):
        beside_latent = any(other.kind == "latent" for other in shape.caches)
        token = cache.head_dim + INDEX_SCALE_BYTES if beside_latent else cache.head_dim * kv.model_bytes
        return LayerCache(kind="latent", block_tokens=tokens, page_bytes=tokens * token, shape=(token,))
    heads = kv_heads_per_gpu(cache, layout)
    return LayerCache(
        kind=cache.kind,
        block_tokens=tokens,
        page_bytes=tokens * heads * kv.head_bytes(cache.head_dim, cache.value_dim),
        shape=(heads, cache.head_dim, cache.value_dim),
        window_tokens=cache.window_tokens or 0,
    )


def _states_per_request(cache: StateCache, architecture: str, settings: EngineSettings, device: Device) -> int:
    """One; with prefix caching two and, where a prefix is written while it is read, three (MambaSpec)."""
    if not settings.prefix_caching:
        return 1
    capability = device.compute_capability
    checkpointed = cache.kind in CHECKPOINTED_STATES or (
        cache.kind == "kda"
        and architecture.startswith(CHECKPOINTED_KDA_ARCHITECTURES)
        and (capability is None or capability[0] in CHECKPOINTED_KDA_MAJORS)
    )
    return 3 if checkpointed else 2
