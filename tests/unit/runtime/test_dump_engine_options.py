"""What is dumped of a vLLM: here one that consists of the two tables that are asked."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from types import ModuleType

import pytest

from vllm_runtime.dump_engine_options import describe_options, describe_pipelines, describe_quantization


@dataclass
class Information:
    supports_pp: bool

    @staticmethod
    def from_model_cls(model: bool) -> Information:
        print("vLLM talks on standard output")
        return Information(supports_pp=model)


@dataclass
class RegisteredModel:
    supports_pp: bool | None

    def load_model_cls(self) -> bool:
        if self.supports_pp is None:
            raise ModuleNotFoundError("a library that only this model needs")
        return self.supports_pp


def install_registry(monkeypatch: pytest.MonkeyPatch, models: dict[str, RegisteredModel]) -> None:
    module = ModuleType("vllm.model_executor.models.registry")
    registry = type("ModelRegistry", (), {"models": models})
    module.__dict__.update(_ModelInfo=Information, ModelRegistry=registry)
    for name in ("vllm", "vllm.model_executor", "vllm.model_executor.models"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)


def test_model_classes_that_cannot_be_cut_into_stages(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    models = {"B": RegisteredModel(False), "C": RegisteredModel(None), "A": RegisteredModel(False)}
    install_registry(monkeypatch, {**models, "Llama": RegisteredModel(True)})
    assert describe_pipelines() == (["A", "B"], ["C"])
    assert capsys.readouterr().out == ""


def test_a_registry_that_cannot_be_read_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    install_registry(monkeypatch, {"C": RegisteredModel(None)})
    with pytest.raises(RuntimeError, match="has vLLM's registry changed"):
        describe_pipelines()


def test_quantisation_methods_are_sorted(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("vllm.model_executor.layers.quantization")
    module.__dict__["QUANTIZATION_METHODS"] = ["fp8", "awq"]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    for name in ("vllm", "vllm.model_executor", "vllm.model_executor.layers"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    assert describe_quantization() == ["awq", "fp8"]


def test_options_are_sorted_by_their_first_flag() -> None:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("model")
    parser.add_argument("--tensor-parallel-size", "-tp", type=int)
    parser.add_argument("--enforce-eager", action="store_true")
    described = describe_options(parser)
    assert [option["flags"] for option in described] == [["--enforce-eager"], ["--tensor-parallel-size", "-tp"]]
    assert [option["takesValue"] for option in described] == [False, True]
    assert [option["type"] for option in described] == ["bool", "int"]
