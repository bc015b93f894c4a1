"""What a user is told of a layout that vLLM would not run."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.unit.planner.constraints import models

from vllm_operator.planner.constraints.check import Violation, violations
from vllm_operator.planner.device import Device
from vllm_operator.planner.engine_settings import EngineSettings
from vllm_operator.planner.layout import Layout
from vllm_operator_api.model import ExpertFacts, ModelFacts

SETTINGS = EngineSettings(max_length_tokens=8192)


@pytest.mark.parametrize(
    ("facts", "layout", "expected"),
    [
        (
            models.PHI_4,
            Layout(tensor=4),
            [Violation("C2", "the 10 KV heads cannot be divided evenly over 4 GPUs")],
        ),
        (
            models.PHI_4,
            Layout(tensor=5),
            [
                Violation(
                    "C4", "the vocabulary of 100352 tokens, padded to 100352, cannot be divided evenly over 5 GPUs"
                )
            ],
        ),
        (
            models.PHI_4,
            Layout(tensor=3),
            [
                Violation("C1", "the 40 attention heads cannot be divided evenly over 3 GPUs"),
                Violation("C2", "the 10 KV heads cannot be divided evenly over 3 GPUs"),
                Violation("C5", "the feed-forward width of 17920 cannot be divided evenly over 3 GPUs"),
                Violation(
                    "C4", "the vocabulary of 100352 tokens, padded to 100352, cannot be divided evenly over 3 GPUs"
                ),
            ],
        ),
        (
            models.NEMOTRON_3_NANO,
            Layout(tensor=16),
            [Violation("C8", "the 8 groups of the mamba2 state cannot be divided evenly over 16 GPUs")],
        ),
        (
            models.QWEN3_32B_FP8,
            Layout(tensor=16),
            [
                Violation(
                    "C6",
                    "the feed-forward width of 25600 over 16 GPUs is 1600 each, so a GPU would hold part of an fp8 "
                    "block of 128 x 128 that shares one scale",
                )
            ],
        ),
        (
            models.QWEN3_30B_FP8,
            Layout(tensor=16),
            [
                Violation(
                    "C6b",
                    "the experts' width of 768 over 16 GPUs is 48 each, so a GPU would hold part of an fp8 block of "
                    "128 x 128 that shares one scale; expert parallelism keeps experts whole",
                )
            ],
        ),
        (
            models.QWEN3_235B,
            Layout(tensor=4, data=5),
            [
                Violation(
                    "C5",
                    "the experts' width of 1536 cannot be divided evenly over 20 GPUs; expert parallelism keeps "
                    "experts whole",
                )
            ],
        ),
        (models.QWEN3_235B, Layout(tensor=4, data=5, expert_parallel=True), []),
        (
            replace(models.PHI_4, architecture="WhisperForConditionalGeneration"),
            Layout(pipeline=2),
            [Violation("C9", "vLLM cannot cut WhisperForConditionalGeneration into pipeline stages")],
        ),
        (
            models.PHI_4,
            Layout(pipeline=4),
            [Violation("C9", "4 pipeline stages are more than the model's 2 layers")],
        ),
        (replace(models.PHI_4, architecture="NobodyKnowsForCausalLM"), Layout(pipeline=2), []),
        (
            models.PHI_4,
            Layout(expert_parallel=True),
            [Violation("C10", "expert parallelism needs a mixture of experts, and this model has none")],
        ),
        (
            models.GPT_OSS_20B,
            Layout(tensor=8, data=8, expert_parallel=True),
            [Violation("C10", "expert parallelism would leave some of 64 GPUs without any of the 32 experts")],
        ),
        (
            replace(
                models.QWEN3_235B,
                architecture="Qwen3MoeForCausalLM",
                experts=ExpertFacts(experts=8, experts_per_token=2, intermediate_size=1536),
            ),
            Layout(tensor=16, expert_parallel=True),
            [
                Violation("C10", "vLLM does not cut Qwen3MoeForCausalLM over more GPUs than its 8 experts: 16"),
                Violation("C10", "expert parallelism would leave some of 16 GPUs without any of the 8 experts"),
            ],
        ),
        (
            models.GPT_OSS_20B,
            Layout(tensor=16),
            [Violation("C2", "vLLM does not copy KV heads of GptOssForCausalLM: 8 are too few for 16 GPUs")],
        ),
        (
            models.PHI_4,
            Layout(data=2),
            [Violation("C11", "data=2 needs a mixture of experts, and this model has none; use 2 replicas instead")],
        ),
        (
            models.LLAMA_3_1_8B,
            Layout(tensor=4, nodes=3),
            [Violation("C14", "4 GPUs cannot be divided evenly over 3 nodes")],
        ),
        (models.LLAMA_3_1_8B, Layout(tensor=8, pipeline=2, nodes=2), []),
        (models.PHI_4, Layout(tensor=0), [Violation("C0", "tensor=0 is less than 1")]),
        (models.PHI_4, Layout(nodes=-1), [Violation("C0", "nodes=-1 is less than 1")]),
        (models.LLAMA_3_1_8B, Layout(tensor=128), [Violation("C0", "tensor=128 is more than 64")]),
    ],
)
def test_reasons(facts: ModelFacts, layout: Layout, expected: list[Violation]) -> None:
    assert list(violations(facts, layout, SETTINGS, Device())) == expected


@pytest.mark.parametrize(
    ("facts", "tensor"),
    [
        (models.QWEN3_235B_FP8, 8),  # recipes say at most 4: refined blocks
        (models.GPT_OSS_20B, 8),
        (models.DEEPSEEK_V3, 16),
    ],
)
def test_caps_of_older_versions_are_gone(facts: ModelFacts, tensor: int) -> None:
    assert violations(facts, Layout(tensor=tensor), SETTINGS, Device(compute_capability=(9, 0))) == ()


def test_the_device_comes_first() -> None:
    broken = violations(models.QWEN3_32B, Layout(tensor=3), SETTINGS, Device(compute_capability=(7, 0)))
    assert [violation.rule for violation in broken] == ["C16", "C1", "C2", "C5", "C4"]
