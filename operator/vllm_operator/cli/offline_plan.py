"""The plan for accelerators that are given on the command line. No cluster is asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from vllm_operator.cli.accelerators import parse_accelerator
from vllm_operator.cli.errors import CommandError
from vllm_operator.cli.model_config import read_model
from vllm_operator.cli.planning import PlanReport, plan_report
from vllm_operator.llmservice.planning import check_architecture, check_length, check_quantization
from vllm_operator.planner.choice.request import BATCHED_TOKENS_CANDIDATES, GivenLayout, PlanRequest
from vllm_operator.planner.engine_options import default_engine_options
from vllm_operator.planner.engine_settings import EngineSettings
from vllm_operator.planner.inventory.pool import GpuPool
from vllm_operator_api.model import ModelFacts

_DEFAULT_REQUESTS: Final = 64
"""--max-num-seqs where nothing is said: what the operator gives its engines (spec.concurrency.target)."""
_MAX_ACCELERATORS: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """The options of one call. None: not given."""

    model_config: Path
    max_length: int
    accelerators: Sequence[str]
    layout: GivenLayout
    weights_bytes: int | None = None
    concurrency: int = 1
    dtype: str = "auto"
    quantization: str | None = None
    kv_cache_dtype: str = "auto"
    gpu_memory_utilization: float = 0.92
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    enforce_eager: bool = False
    allow_multi_node: bool = True


def offline_report(question: Question) -> PlanReport:
    """Plan the model for the accelerators.

    Raises:
        CommandError: the model or an accelerator cannot be read.
    """
    if len(question.accelerators) > _MAX_ACCELERATORS:
        raise CommandError(f"--accelerator is given {len(question.accelerators)} times; at most {_MAX_ACCELERATORS}")
    pools = [parse_accelerator(text) for text in question.accelerators]
    facts = _with_doubts(read_model(question.model_config, weights_bytes=question.weights_bytes))
    request = _request(question, facts, pools)
    problem = check_length(facts, question.max_length) or check_quantization(facts, question.quantization)
    return plan_report(facts, request, pools, problem)


def _with_doubts(facts: ModelFacts) -> ModelFacts:
    """An architecture that this vLLM lacks is planned, for another one may have it; the operator would refuse it."""
    options = default_engine_options()
    if check_architecture(facts, options) is None:
        return facts
    doubt = f"vLLM {options.vllm_version} has no architecture {facts.architecture}"
    return replace(facts, guesses=(doubt, *facts.guesses))


def _request(question: Question, facts: ModelFacts, pools: Sequence[GpuPool]) -> PlanRequest:
    options, budget = default_engine_options(), question.max_num_batched_tokens
    settings = EngineSettings(
        max_length_tokens=question.max_length,
        max_requests=question.max_num_seqs or max(_DEFAULT_REQUESTS, question.concurrency),
        gpu_memory_utilization=question.gpu_memory_utilization,
        kv_cache_dtype=question.kv_cache_dtype,
        dtype=question.dtype,
        quantization=question.quantization if facts.quantization is None else None,
        enforce_eager=question.enforce_eager,
        keeps_kv_cache=facts.architecture not in options.pooling_architectures,
    )
    return PlanRequest(
        resource_name=pools[0].resource_name,
        settings=settings,
        batched_tokens_candidates=BATCHED_TOKENS_CANDIDATES if budget is None else (budget,),
        given=question.layout,
        min_concurrency=question.concurrency,
        allow_multi_node=question.allow_multi_node and any(pool.nodes > 1 for pool in pools),
        vllm_version=options.vllm_version,
    )
