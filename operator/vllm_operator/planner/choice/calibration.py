"""The name under which an engine's observed use of memory is remembered."""

from __future__ import annotations

import hashlib

from vllm_operator.planner.engine_settings import EngineSettings
from vllm_operator.planner.layout import Layout
from vllm_operator_api.model import ModelFacts


def overhead_key(facts: ModelFacts, layout: Layout, settings: EngineSettings, product: str, vllm_version: str) -> str:
    """Key of everything that the memory beside weights and KV cache depends on.

    The length of a request and the size of the KV cache are not in it: they do not change it.
    """
    parts = (
        facts.source,
        facts.revision,
        facts.weights.total_bytes,
        str(layout),
        settings.batched_tokens,
        settings.max_requests,
        settings.dtype,
        settings.quantization,
        settings.enforce_eager,
        product,
        vllm_version,
    )
    return hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()[:16]
