"""C10 and C11: expert and data parallelism are for mixtures of experts."""

from __future__ import annotations

from typing import Final

from vllm_operator.planner.constraints.rule import Case

_AN_EXPERT_PER_GPU: Final = (
    "Cohere2Moe", "Ernie4_5_Moe", "Ernie4_5_VLMoe", "ExaoneMo", "HYV3", "HYV4", "InternS1Pro", "InternS2", "K2Horizon",
    "Laguna", "Lfm2Moe", "MiMoV2", "MiniMaxM2", "MiniMaxM3", "Qwen2Moe", "Qwen3Moe", "Qwen3Next", "Qwen3OmniMoe",
    "Qwen3VLMoe", "Qwen3_5Moe", "Qwen4Exp", "Step3",
)  # fmt: skip
"""Beginnings of architectures that refuse more GPUs than experts (``models/qwen3_moe.py:154`` and others)."""


def enough_experts(case: Case) -> str | None:
    """C10 in most classes with experts: tensor parallelism stops at their number, cut or whole."""
    experts = case.facts.experts
    if experts is None or case.tensor <= experts.experts or not case.facts.architecture.startswith(_AN_EXPERT_PER_GPU):
        return None
    return (
        f"vLLM does not cut {case.facts.architecture} over more GPUs than its {experts.experts} experts: {case.tensor}"
    )


def whole_experts(case: Case) -> str | None:
    """C10: there are experts to place (``config/model.py: _verify_with_expert_parallelism``), at least one on each GPU:
    they need not divide evenly (``model_executor/layers/fused_moe/expert_map_manager.py:66``).
    """
    experts = case.facts.experts
    if not case.layout.expert_parallel:
        return None
    if experts is None:
        return "expert parallelism needs a mixture of experts, and this model has none"
    gpus = case.tensor * case.layout.data
    if gpus > experts.experts:
        return f"expert parallelism would leave some of {gpus} GPUs without any of the {experts.experts} experts"
    return None


def data_copies(case: Case) -> str | None:
    """C11: vLLM runs data-parallel ranks that are balanced from outside only for mixtures of experts
    (``engine/arg_utils.py: create_engine_config``, ``config/parallel.py: data_parallel_external_lb``).
    """
    data = case.layout.data
    if data > 1 and case.facts.experts is None:
        return f"data={data} needs a mixture of experts, and this model has none; use {data} replicas instead"
    return None
