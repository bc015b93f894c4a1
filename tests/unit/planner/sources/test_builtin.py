"""The built-in table: its sizes are those of the published weights, and it knows what it does not know."""

from __future__ import annotations

import pytest

from vllm_operator.planner.sources.builtin import builtin_facts
from vllm_operator_api.quantities import BYTES_PER_GIB


@pytest.mark.parametrize(
    ("repository", "gib"),
    [
        ("meta-llama/Llama-3.1-8B", 14.96),
        ("meta-llama/Meta-Llama-3.1-70B-Instruct", 131.42),
        ("meta-llama/Llama-3.3-70B-Instruct", 131.42),
        ("Qwen/Qwen2.5-7B-Instruct", 14.2),
        ("Qwen/Qwen3-32B", 61.03),
        ("Qwen/Qwen3-30B-A3B-Instruct-2507", 56.9),
        ("mistralai/Mistral-Small-24B-Instruct-2501", 43.9),
        ("microsoft/phi-4", 27.31),
        ("openai/gpt-oss-20b", 12.9),
        ("openai/gpt-oss-120b", 61),
        ("deepseek-ai/DeepSeek-R1-0528", 627),
    ],
)
def test_sizes(repository: str, gib: float) -> None:
    facts = builtin_facts(repository, "the hub cannot be reached")
    assert facts is not None
    assert facts.weights.total_bytes / BYTES_PER_GIB == pytest.approx(gib, rel=0.01)
    assert facts.guesses[0].startswith("Estimated: ")


@pytest.mark.parametrize("repository", ["someone/Llama-3.1-8B-AWQ", "Qwen/Qwen3-8B-FP8", "org/unknown", "x"])
def test_other_models_are_not_guessed(repository: str) -> None:
    assert builtin_facts(repository, "the hub cannot be reached") is None
