"""What the planner knows of the engine's architectures and methods."""

from __future__ import annotations

from vllm_operator.planner.constraints.devices import METHOD_MINIMUM, VENDOR_METHODS
from vllm_operator.planner.constraints.pipeline import supports_stages
from vllm_operator.planner.engine_options import EngineOptions, default_engine_options, parse_engine_options

KNOWN = default_engine_options()


def test_the_dump_says_which_architectures_cannot_be_cut_into_stages() -> None:
    assert KNOWN.no_pipeline_architectures < KNOWN.architectures
    assert supports_stages("LlamaForCausalLM")
    assert supports_stages("DeepseekV3ForCausalLM")
    assert not supports_stages("WhisperForConditionalGeneration")
    assert not supports_stages("Gemma3nForConditionalGeneration")


def test_another_version_has_its_own_answer() -> None:
    other = EngineOptions(
        vllm_version="9.9.9",
        by_flag={},
        architectures=frozenset({"LlamaForCausalLM"}),
        pooling_architectures=frozenset(),
        no_pipeline_architectures=frozenset({"LlamaForCausalLM"}),
    )
    assert not supports_stages("LlamaForCausalLM", other)


def test_an_image_s_own_dump_may_say_nothing_of_it() -> None:
    document = {"vllmVersion": "0.31.0", "options": [], "architectures": [], "poolingArchitectures": []}
    options = parse_engine_options(document)
    assert options.no_pipeline_architectures == frozenset()
    assert options.quantization_methods == frozenset()


def test_every_method_that_a_rule_names_is_one_of_vllm_s() -> None:
    named = set(METHOD_MINIMUM).union(*VENDOR_METHODS.values())
    assert named <= KNOWN.quantization_methods
