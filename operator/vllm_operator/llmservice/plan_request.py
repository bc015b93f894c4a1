"""From an LLMService's spec to what the planner is asked. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from vllm_operator.manifests.engine_args import BATCHED_TOKENS_FLAG
from vllm_operator.planner.choice.request import BATCHED_TOKENS_CANDIDATES, GivenLayout, PlanRequest
from vllm_operator.planner.engine_args import given_value
from vllm_operator.planner.engine_options import EngineOptions
from vllm_operator.planner.engine_settings import EngineSettings
from vllm_operator_api.model import ModelFacts
from vllm_operator_api.quantities import parse_bytes
from vllm_operator_api.v1alpha1.llmservice import LLMServiceSpec

DEFAULT_LENGTH_TOKENS: Final = 2048
"""Where neither spec nor config.json has a length: vLLM's own default."""
BLOCK_SIZE_FLAG: Final = "--block-size"
_NO_PREFIX_CACHING_FLAG: Final = "--no-enable-prefix-caching"


def plan_request(
    spec: LLMServiceSpec, facts: ModelFacts, options: EngineOptions, observed_overheads: Mapping[str, int]
) -> PlanRequest:
    """What the spec asks of the planner for this model."""
    budget = given_value(spec.engine.args, BATCHED_TOKENS_FLAG)
    parallelism = spec.parallelism
    return PlanRequest(
        resource_name=spec.accelerator.resource_name,
        settings=engine_settings(spec, facts, options),
        batched_tokens_candidates=BATCHED_TOKENS_CANDIDATES if budget is None else (int(budget),),
        given=GivenLayout(
            tensor=_given(parallelism.tensor),
            pipeline=_given(parallelism.pipeline),
            data=_given(parallelism.data),
            expert_parallel=parallelism.expert,
        ),
        products=tuple(spec.accelerator.products),
        min_concurrency=spec.concurrency.min,
        max_gpus_per_pod=parallelism.max_gpus_per_pod,
        allow_multi_node=parallelism.allow_multi_node,
        vllm_version=options.vllm_version,
        observed_overheads=observed_overheads,
    )


def engine_settings(spec: LLMServiceSpec, facts: ModelFacts, options: EngineOptions) -> EngineSettings:
    """The engine's settings, as far as its use of memory depends on them."""
    kv_cache_memory = spec.engine.kv_cache_memory
    block_size = given_value(spec.engine.args, BLOCK_SIZE_FLAG)
    return EngineSettings(
        max_length_tokens=spec.model.max_length or facts.max_position_embeddings or DEFAULT_LENGTH_TOKENS,
        max_requests=spec.concurrency.target,
        gpu_memory_utilization=spec.engine.gpu_memory_utilization,
        kv_cache_bytes=None if kv_cache_memory is None else parse_bytes(kv_cache_memory),
        kv_cache_dtype=spec.engine.kv_cache_dtype,
        block_tokens=None if block_size is None else int(block_size),
        dtype=spec.model.dtype,
        quantization=spec.model.quantization if facts.quantization is None else None,
        enforce_eager=spec.engine.enforce_eager,
        keeps_kv_cache=facts.architecture not in options.pooling_architectures,
        prefix_caching=not _has_flag(spec.engine.args, _NO_PREFIX_CACHING_FLAG),
    )


def _given(degree: int | str) -> int | None:
    return degree if isinstance(degree, int) else None


def _has_flag(args: Iterable[str], flag: str) -> bool:
    return any(arg.partition("=")[0] == flag for arg in args)
