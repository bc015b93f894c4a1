"""Memory of the weights on the fullest GPU of a replica."""

from __future__ import annotations

import math
from typing import Final

from vllm_operator.planner.engine_settings import EngineSettings
from vllm_operator.planner.layout import Layout
from vllm_operator.planner.model_dtype import element_bytes, loaded_element_bytes
from vllm_operator.planner.pipeline_stages import stage_layers
from vllm_operator_api.model import LatentCache, ModelFacts, WeightFacts

_LOADED_FACTOR: Final = 1.005
"""Loaded bytes over bytes in the files: 1.000 to 1.005 measured (Llama-3.1-8B, Qwen3-32B, Llama-3.3-70B-FP8)."""
_MXFP4_EXPERTS_FACTOR: Final = 1.06
"""MXFP4 experts are padded for the kernels: gpt-oss-120b is 61.0 GiB in its files and 64.4 GiB loaded."""
QUANTISED_WHILE_LOADED: Final = {
    "fp8": 1.0,
    "fp8_per_tensor": 1.0,
    "fp8_per_block": 1.0,
    "fp8_per_channel": 1.0,
    "int8_per_channel_weight_only": 1.0,
    "mxfp8": 1.03,
    "nvfp4_per_token": 0.5625,
}
"""What ``--quantization`` makes of a checkpoint that is not quantised, and the bytes of a value then
(``model_executor/layers/quantization/__init__.py``: the online methods)."""
_LATENT_EXPANSION_WIDTHS: Final = 256
"""Widths of a head's key without rotation and of its value, together, in DeepSeek's models: vLLM keeps a copy in the
model's data type of the two projections from the latent (``mla_attention.py: W_UK_T, W_UV``)."""


def weights_per_gpu(facts: ModelFacts, layout: Layout, settings: EngineSettings) -> int:
    """Bytes of weights on the GPU that holds most.

    Tensor parallelism cuts everything but ``replicated_bytes``; data parallelism copies everything but the experts,
    which are cut over all GPUs of the replica's stage; pipeline stages have their layers, the first one the embedding
    and encoder, the last one the head.
    """
    parts = _loaded_parts(facts, settings)
    embedding = parts.embedding_bytes / layout.tensor
    head = parts.head_bytes / layout.tensor
    encoder = parts.encoder_bytes / layout.tensor
    layers = _layers_per_gpu(parts, layout)
    latent = _latent_copies(facts, layout, settings)
    if layout.pipeline == 1:
        return math.ceil(embedding + head + encoder + layers + latent)
    if parts.head_bytes == 0:
        head = embedding  # tied: the last stage holds a copy
    shares = [len(stage) / facts.layers for stage in stage_layers(facts.layers, layout.pipeline)]
    stages = [share * (layers + latent) for share in shares]
    stages[0] += embedding + encoder
    stages[-1] += head
    return math.ceil(max(stages))


def _layers_per_gpu(parts: WeightFacts, layout: Layout) -> float:
    replicated = parts.replicated_bytes
    others = parts.embedding_bytes + parts.head_bytes + parts.encoder_bytes + parts.expert_bytes + replicated
    cut = max(0, parts.total_bytes - others)
    experts = parts.expert_bytes / (layout.tensor * layout.data)
    return cut / layout.tensor + experts + replicated


def _loaded_parts(facts: ModelFacts, settings: EngineSettings) -> WeightFacts:
    """The weights as they lie in memory: converted to the data type, quantised or padded."""
    parts = facts.weights
    width = loaded_element_bytes(settings)
    if facts.quantization is not None:
        expert_factor = _MXFP4_EXPERTS_FACTOR if "mxfp4" in facts.quantization.method else 1.0
        return _scaled(parts, _LOADED_FACTOR, _LOADED_FACTOR, expert_factor)
    plain = width / element_bytes(facts.dtype) * _LOADED_FACTOR
    target = QUANTISED_WHILE_LOADED.get(settings.quantization or "")
    if target is None:
        return _scaled(parts, plain, plain)
    return _scaled(parts, target / element_bytes(facts.dtype) * _LOADED_FACTOR, plain)


def _scaled(parts: WeightFacts, linear: float, unquantised: float, experts: float = 1.0) -> WeightFacts:
    """All sizes in memory; embedding, head and encoder are never quantised on the way."""
    embedding = round(parts.embedding_bytes * unquantised)
    head = round(parts.head_bytes * unquantised)
    encoder = round(parts.encoder_bytes * unquantised)
    replicated = round(parts.replicated_bytes * unquantised)
    expert_bytes = round(parts.expert_bytes * linear * experts)
    known = parts.embedding_bytes + parts.head_bytes + parts.encoder_bytes + parts.replicated_bytes + parts.expert_bytes
    rest = round(max(0, parts.total_bytes - known) * linear)
    return WeightFacts(
        total_bytes=max(1, embedding + head + encoder + replicated + expert_bytes + rest),
        source=parts.source,
        embedding_bytes=embedding,
        head_bytes=head,
        expert_bytes=expert_bytes,
        replicated_bytes=replicated,
        encoder_bytes=encoder,
    )


def _latent_copies(facts: ModelFacts, layout: Layout, settings: EngineSettings) -> float:
    ranks = {
        letter: sum(cache.rank for cache in shape.caches if isinstance(cache, LatentCache))
        for letter, shape in facts.shapes_by_letter()
    }
    rank_sum = sum(rank * facts.layer_pattern.count(letter) for letter, rank in ranks.items())
    width = loaded_element_bytes(settings)
    return facts.attention_heads * _LATENT_EXPANSION_WIDTHS * rank_sum * width / layout.tensor
