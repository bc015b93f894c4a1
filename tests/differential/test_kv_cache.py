"""The planner's KV cache against vLLM's own functions, over real and tiny models, GPUs and the CPU.

vLLM's model classes are built without weights in an environment of its own (``hack/engine-venv``, about 2.3 GB), and
its own functions group their layers and count blocks. Tiny models always; real ones with ENGINE_DIFFERENTIAL=1. With
KV_CACHE_REPORT=FILE the counts are written there as JSON.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from tests.differential.engine_program import ask_engine
from tests.differential.kv_cache_comparison import Comparison, compare, question
from tests.differential.legality_questions import CONFIGS, real_configs
from tests.differential.tiny_models import TINY_MODELS

pytestmark = pytest.mark.timeout(7200)
needs_configs = pytest.mark.skipif(
    os.environ.get("ENGINE_DIFFERENTIAL") != "1" or not CONFIGS.is_dir(),
    reason=f"half an hour: needs ENGINE_DIFFERENTIAL=1 (make differential), and model configurations at {CONFIGS}",
)

REFUSED_EVERYWHERE: Final = {
    "stepfun-ai--Step-3.7-Flash": "vLLM's registry has no class of its architecture",
    "stepfun-ai--Step-3.7-Flash-FP8": "vLLM's registry has no class of its architecture",
}
_SPARSE: Final = ("deepseek-ai--DeepSeek-V3.2", "nvidia--DeepSeek-V3.2", "zai-org--GLM-5", "nvidia--GLM-5")
_NEMOTRON_MOE: Final = ("nvidia--NVIDIA-Nemotron-3",)
_MINIMAX_M3: Final = ("MiniMaxAI--MiniMax-M3", "nvidia--MiniMax-M3")
_KIMI_K2_VISION: Final = ("moonshotai--Kimi-K2.5", "nvidia--Kimi-K2.")
_KIMI_K3: Final = ("moonshotai--Kimi-K3",)
_NO_FP8_SPARSE: Final = ("nvidia--GLM-5.1-NVFP4", "nvidia--GLM-5.2-NVFP4")
REFUSED_ON: Final[dict[str, dict[tuple[str, ...], str]]] = {
    "cpu": {
        _SPARSE: "sparse attention is not there on CPU",
        _NEMOTRON_MOE: "experts without a gate are not there on CPU",
        _MINIMAX_M3: "its experts have no kernel on CPU",
        _KIMI_K3: "its class is for GPUs alone",
        _KIMI_K2_VISION: "its encoder is moved to the CPU while it is built, which needs weights",
    },
    "8.9": {_SPARSE: "no sparse back end before Hopper"},
    "9.0": {_NO_FP8_SPARSE: "the checkpoint wants an fp8_e4m3 cache; what takes it is FlashInfer's, and not here"},
}
"""Beginnings of names that vLLM refuses on a device with nothing else asked for, and why."""
DIFFERENT: Final[dict[str, str]] = {}
"""Questions that the planner answers differently from vLLM, and why."""
SETTINGS: Final[tuple[dict[str, Any], ...]] = (
    {"kv_cache_dtype": "fp8"}, {"enable_prefix_caching": False}, {"block_size": 64}, {"max_num_batched_tokens": 2048},
)  # fmt: skip


def readable_configs() -> Iterator[tuple[str, dict[str, Any]]]:
    """The real configurations; one that leaves out what DeepSeek-V4's own says gets it, or vLLM does not read it."""
    for name, config in real_configs():
        missing = {"norm_topk_prob": True} if name.startswith("sgl-project--DeepSeek-V4") else {}
        yield name, {**missing, **config}


def refusals_expected(names: Iterator[str], device: str) -> set[str]:
    """Names that vLLM refuses on this device."""
    begins = tuple(begin for beginnings in REFUSED_ON.get(device, {}) for begin in beginnings)
    return {name for name in names if name in REFUSED_EVERYWHERE or (begins and name.startswith(begins))}


def report(what: str, result: Comparison) -> None:
    """Add one comparison to the report, if one is wanted."""
    if path := os.environ.get("KV_CACHE_REPORT"):
        file = Path(path)
        content = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        content[what] = {"equal": result.equal, "refused": result.refused, "different": result.different}
        file.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def compared(what: str, asked: list[dict[str, Any]], folder: Path) -> Comparison:
    """Ask vLLM, compare, and report."""
    result = compare(asked, ask_engine("engine_answers.py", asked, folder))
    report(what, result)
    return result


@needs_configs
@pytest.mark.parametrize("device", ["9.0", "10.0", "8.9", "cpu"])
def test_real_models_on_one_device(device: str, tmp_path: Path) -> None:
    configs = dict(readable_configs())
    asked = [question(name, config, device) for name, config in configs.items()]
    result = compared(f"one device {device}", asked, tmp_path)
    assert result.different.keys() == {q["id"] for q in asked if q["id"] in DIFFERENT}, result.different
    refused = {name for name in configs if question(name, configs[name], device)["id"] in result.refused}
    assert refused == refusals_expected(iter(configs), device), result.refused


@needs_configs
def test_real_models_at_every_degree(tmp_path: Path) -> None:
    """Degrees that vLLM refuses are another test's matter."""
    asked = [question(name, config, "9.0", tensor=t) for name, config in readable_configs() for t in range(2, 17)]
    result = compared("tensor 2 to 16", asked, tmp_path)
    assert result.different.keys() == {q["id"] for q in asked if q["id"] in DIFFERENT}, result.different
    assert result.equal > 250


@needs_configs
def test_real_models_in_stages(tmp_path: Path) -> None:
    asked = [question(name, config, "9.0", pipeline=p) for name, config in readable_configs() for p in (2, 3)]
    result = compared("pipeline 2 and 3", asked, tmp_path)
    assert result.different.keys() == {q["id"] for q in asked if q["id"] in DIFFERENT}, result.different
    assert result.equal > 140


@needs_configs
def test_real_models_with_other_settings(tmp_path: Path) -> None:
    asked = [
        question(name, config, "9.0", tensor=2, **settings)
        for name, config in readable_configs()
        for settings in SETTINGS
    ]
    result = compared("other settings", asked, tmp_path)
    assert result.different.keys() == {q["id"] for q in asked if q["id"] in DIFFERENT}, result.different
    assert result.equal > 250


@pytest.mark.parametrize("device", ["cpu", "9.0", "10.0", "8.9"])
def test_tiny_models(device: str, tmp_path: Path) -> None:
    """One of every way to keep a cache; needs no collection of real models."""
    variants: tuple[dict[str, Any], ...] = (
        {}, {"tensor": 2}, {"pipeline": 2}, {"max_num_batched_tokens": 512}, {"enable_prefix_caching": False},
        {"dtype": "float32"},
    )  # fmt: skip
    asked = [
        question(name, config, device, **variant)
        for name, config in TINY_MODELS.items()
        for variant in variants
        if device == "cpu" or "dtype" not in variant
    ]
    result = compared(f"tiny models {device}", asked, tmp_path)
    assert not result.different
    assert not result.refused
