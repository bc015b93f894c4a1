"""The planner's constraints against vLLM's own checks: every disagreement is listed here, with its cause.

vLLM decides in an environment of its own that ``hack/engine-venv`` makes (about 2 GB). Run with ENGINE_DIFFERENTIAL=1
(``make differential``).
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import pytest
from tests.differential.engine_program import ask_engine
from tests.differential.legality_questions import CONFIGS, Config, quantised_configs, real_configs

from vllm_operator.planner.constraints.check import Violation, can_run_on, violations
from vllm_operator.planner.device import Device
from vllm_operator.planner.engine_settings import EngineSettings
from vllm_operator.planner.facts.config import model_facts
from vllm_operator.planner.layout import Layout

pytestmark = [
    pytest.mark.skipif(os.environ.get("ENGINE_DIFFERENTIAL") != "1", reason="ENGINE_DIFFERENTIAL=1 asks vLLM itself"),
    pytest.mark.timeout(3600),
]
needs_configs = pytest.mark.skipif(not CONFIGS.is_dir(), reason=f"no model configurations at {CONFIGS}")

SETTINGS: Final = EngineSettings(max_length_tokens=4096)
Answers = dict[tuple[str, int], dict[str, Any]]

UNREADABLE: Final[dict[str, str]] = {
    "stepfun-ai--Step-3.7-Flash": "vLLM's registry has no class of its architecture",
    "stepfun-ai--Step-3.7-Flash-FP8": "vLLM's registry has no class of its architecture",
}
"""Configurations that vLLM refuses at every degree, whatever the planner says of degrees."""

STRICTER: Final[dict[tuple[str, int], str]] = {
    ("deepseek-ai--DeepSeek-V4-Flash", 16): "no output group is left on a GPU: the first forward pass divides by zero",
    ("nvidia--DeepSeek-V4-Flash-NVFP4", 16): "the same",
    ("sgl-project--DeepSeek-V4-Flash-FP8", 16): "the same",
    (
        "nvidia--Gemma-4-26B-A4B-NVFP4",
        8,
    ): "44 scales per row of an expert go 5 each to 8 GPUs: weights get others' scales",
    ("nvidia--Gemma-4-26B-A4B-NVFP4", 16): "the same, 2 each to 16 GPUs",
}
"""What vLLM builds and the planner refuses all the same, and why."""

DIFFERENT_DEVICES: Final[dict[str, tuple[int, int]]] = {
    # vLLM finds no method in its quantization_config, which names none, and so takes its fp8 weights for bfloat16.
    "Qwen--Qwen3-32B-FP8-Static-PerTensor": (8, 0),
    # vLLM takes this compressed-tensors checkpoint for mxfp4; the planner does not, and refuses nothing.
    "moonshotai--Kimi-K3": (8, 0),
    # Its class does not ask for the capability that its kernels need.
    "deepseek-ai--DeepSeek-V4-Flash": (9, 0),
    "deepseek-ai--DeepSeek-V4-Pro": (9, 0),
    "nvidia--DeepSeek-V4-Flash-NVFP4": (9, 0),
    "nvidia--DeepSeek-V4-Pro-NVFP4": (9, 0),
    "sgl-project--DeepSeek-V4-Flash-FP8": (9, 0),
    "sgl-project--DeepSeek-V4-Pro-FP8": (9, 0),
}
"""Models that planner and vLLM judge differently on GPUs of less than this: the planner refuses, but for Kimi-K3."""

FP8_CACHE_REFUSED_BY_BOTH: Final = {"Qwen--Qwen3-32B-FP8-Static-PerTensor", "moonshotai--Kimi-K3"}
"""Of these, what an fp8 KV cache rules out on a GPU of less than 8.0."""
FP8_CACHE_REFUSED_BY_VLLM: Final = {
    # Keys and values of different widths are FlashAttention's alone, whose version there reads no fp8.
    "10.0": {"XiaomiMiMo--MiMo-V2-Flash"},
}
"""By device, what vLLM refuses with an fp8 KV cache and the planner does not."""


def ask(device: str, configs: dict[str, Config], degrees: Iterable[int], folder: Path, **more: Any) -> Answers:
    """VLLM's answers about every configuration at every degree, as ``legality_engine`` gives them."""
    asked = [
        {"id": f"{name} {degree}", "device": device, "config": config, "tensor": degree, **more}
        for name, config in configs.items()
        for degree in degrees
    ]
    answers = ask_engine("legality_engine.py", asked, folder)
    return {(name, degree): answers[f"{name} {degree}"] for name in configs for degree in degrees}


def reasons(config: Config, layout: Layout, capability: tuple[int, int]) -> tuple[Violation, ...]:
    """The planner's reasons against it."""
    facts = model_facts(config, source="config.json")
    return violations(facts, layout, SETTINGS, Device(compute_capability=capability))


def readable_configs() -> dict[str, Config]:
    """Real configurations that vLLM reads."""
    return {name: config for name, config in real_configs() if name not in UNREADABLE}


@needs_configs
def test_configurations_that_vllm_refuses(tmp_path: Path) -> None:
    configs = {name: config for name, config in real_configs() if name in UNREADABLE}
    assert all(answer["configured"] is not None for answer in ask("9.0", configs, [1], tmp_path).values())


@needs_configs
def test_tensor_parallel_degrees_of_real_models(tmp_path: Path) -> None:
    configs = readable_configs()
    # Sparse attention with an fp8 KV cache needs FlashInfer on Hopper, which this environment only pretends to have.
    sparse = {name: configs.pop(name) for name in list(configs) if "GLM-5" in name and "NVFP4" in name}
    answers = ask("9.0", configs, range(1, 17), tmp_path)
    answers |= ask("9.0", sparse, range(1, 17), tmp_path, settings={"kv_cache_dtype": "bfloat16"})
    different = {}
    for (name, degree), answer in answers.items():
        broken = reasons({**configs, **sparse}[name], Layout(tensor=degree), (9, 0))
        if bool(broken) != (answer["built"] is not None):
            different[name, degree] = ([violation.message for violation in broken], answer["built"])
    assert different.keys() == STRICTER.keys(), different


@needs_configs
def test_heads_are_what_the_configuration_alone_refuses(tmp_path: Path) -> None:
    """``ModelConfig.verify_with_parallel_config`` knows C1 alone of tensor parallelism."""
    configs = readable_configs()
    for (name, degree), answer in ask("9.0", configs, [3, 4, 5], tmp_path).items():
        rules = {violation.rule for violation in reasons(configs[name], Layout(tensor=degree), (9, 0))}
        assert ("C1" in rules) == (answer["configured"] is not None), (name, degree, answer["configured"])


@needs_configs
def test_pipeline_stages_of_real_models(tmp_path: Path) -> None:
    configs = readable_configs()
    for (name, _), answer in ask("9.0", configs, [1], tmp_path, pipeline=2).items():
        broken = reasons(configs[name], Layout(pipeline=2), (9, 0))
        assert bool(broken) == (answer["configured"] is not None), (name, broken, answer["configured"])


@pytest.mark.parametrize(
    ("device", "capability", "accepted"),
    [
        # Machete, which only Hopper has, takes a slice that is no whole number of groups; its scales are cut wrongly.
        ("9.0", (9, 0), {"gptq dense", "nvfp4 experts"}),
        ("8.0", (8, 0), {"nvfp4 experts"}),
    ],
)
def test_slices_of_quantised_weights(
    tmp_path: Path, device: str, capability: tuple[int, int], accepted: set[str]
) -> None:
    configs = dict(quantised_configs())
    seen = set()
    for (name, degree), answer in ask(device, configs, [1, 2, 4, 8, 16], tmp_path).items():
        broken = reasons(configs[name], Layout(tensor=degree), capability)
        if broken and answer["built"] is None:
            seen.add(name.rpartition(" ")[0])
            continue
        assert bool(broken) == (answer["built"] is not None), (name, degree, broken, answer["built"])
    assert seen == accepted


@needs_configs
@pytest.mark.parametrize("kv_cache_dtype", ["auto", "fp8"])
@pytest.mark.parametrize(
    ("device", "capability"), [("7.5", (7, 5)), ("8.0", (8, 0)), ("8.9", (8, 9)), ("10.0", (10, 0))]
)
def test_what_a_device_cannot_run(
    tmp_path: Path, device: str, capability: tuple[int, int], kv_cache_dtype: str
) -> None:
    configs = readable_configs()
    settings = EngineSettings(max_length_tokens=4096, kv_cache_dtype=kv_cache_dtype)
    answers = ask(device, configs, [1], tmp_path, settings={"kv_cache_dtype": kv_cache_dtype})
    different = {}
    for (name, _), answer in answers.items():
        facts = model_facts(configs[name], source="config.json")
        refused = can_run_on(facts, settings, Device(compute_capability=capability))
        if (refused is not None) != (answer["built"] is not None):
            different[name] = (refused and refused.message, answer["built"])
    expected = {name for name, needed in DIFFERENT_DEVICES.items() if capability < needed}
    if kv_cache_dtype == "fp8":
        expected -= FP8_CACHE_REFUSED_BY_BOTH if capability < (8, 0) else set()
        expected |= FP8_CACHE_REFUSED_BY_VLLM.get(device, set())
    assert different.keys() == expected, different
