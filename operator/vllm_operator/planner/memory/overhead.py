"""Memory that is neither weights nor KV cache: activations, CUDA graphs, libraries. Estimates, later calibrated."""

from __future__ import annotations

import math
from typing import Final

from vllm_operator.planner.device import Device
from vllm_operator.planner.engine_settings import EngineSettings
from vllm_operator.planner.layout import Layout
from vllm_operator.planner.model_dtype import loaded_element_bytes
from vllm_operator_api.model import ModelFacts
from vllm_operator_api.quantities import BYTES_PER_GIB

_NON_TORCH_ONE_GPU: Final = int(0.15 * BYTES_PER_GIB)
_NON_TORCH_SEVERAL_GPUS: Final = int(0.6 * BYTES_PER_GIB)
"""Libraries' memory after vLLM's first snapshot: 0.13-0.15 GiB on one GPU, 0.55-0.6 with NCCL (measured by llm-d)."""
_CUDA_GRAPHS_BASE: Final = int(0.5 * BYTES_PER_GIB)
_CUDA_GRAPHS_SHARE_OF_WEIGHTS: Final = 0.01
_CUDA_GRAPHS_MOE: Final = int(0.3 * BYTES_PER_GIB)
"""CUDA graphs: 0.1-0.45 GiB for small models, 1.6-2.4 for large ones; these constants reproduced published logs."""
_ACTIVATION_FACTOR: Final = 1.15
_DEFAULT_INTERMEDIATE_OVER_HIDDEN: Final = 4
_ENCODER_ACTIVATIONS: Final = int(1.0 * BYTES_PER_GIB)
"""Profile run of a vision or audio encoder at its largest input: 1 GiB at least was reported; not measured."""


def overhead_per_gpu(
    facts: ModelFacts, layout: Layout, settings: EngineSettings, device: Device, weights_bytes: int
) -> int:
    """Bytes per GPU beside weights and KV cache. ``weights_bytes``: on that GPU."""
    overhead = _NON_TORCH_ONE_GPU if layout.gpus == 1 else _NON_TORCH_SEVERAL_GPUS
    overhead += activation_peak(facts, layout, settings)
    if facts.multimodal:
        overhead += _ENCODER_ACTIVATIONS
    if not settings.enforce_eager and device.vendor != "cpu":
        overhead += _CUDA_GRAPHS_BASE + int(weights_bytes * _CUDA_GRAPHS_SHARE_OF_WEIGHTS)
        if facts.experts is not None:
            overhead += _CUDA_GRAPHS_MOE
    return overhead


def activation_peak(facts: ModelFacts, layout: Layout, settings: EngineSettings) -> int:
    """Transient peak of vLLM's profile run: a forward pass of a full budget of tokens, or the logits of all requests.

    A model of ``v1/worker/gpu/model_runner.py: profile_run``, not a measurement: inputs and residual, the wider of the
    feed-forward buffers, and for experts one copy of the input per chosen expert.
    """
    width = loaded_element_bytes(settings)
    hidden, tokens = facts.hidden_size, settings.batched_tokens
    dense = max(facts.intermediate_sizes, default=_DEFAULT_INTERMEDIATE_OVER_HIDDEN * hidden)
    per_token = 2 * hidden + 3 * dense / layout.tensor
    if facts.experts is not None:
        chosen = facts.experts.experts_per_token
        slice_width = facts.experts.intermediate_size / (layout.tensor * layout.data)
        per_token = max(per_token, 2 * hidden + chosen * (3 * slice_width + (facts.experts.input_size or hidden)))
    forward = tokens * width * per_token
    logits = tokens * hidden * width + settings.max_requests * facts.vocab_size * (4 + 2 / layout.tensor)
    return math.ceil(_ACTIVATION_FACTOR * max(forward, logits))
