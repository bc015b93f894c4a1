"""What an author could do in bad faith: each is refused, with the value, and without much memory."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.model_configs import LLAMA, real_configs

from vllm_operator.planner.facts.config import model_facts
from vllm_operator.planner.facts.document import MAX_DOCUMENT_BYTES, parse_json
from vllm_operator.planner.facts.errors import DocumentTooLargeError, ModelError
from vllm_operator_api.model import ModelFacts
from vllm_operator_api.runtime import ModelFactsResult

MOST_BYTES = 20 * 1024 * 1024


def extra_bytes(step: Callable[[], object]) -> int:
    """Most memory that a refusal takes beside its input."""
    tracemalloc.start()
    try:
        with pytest.raises(ModelError):
            step()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"", "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        (b"[]", "is not a JSON object"),
        (b"null", "is not a JSON object"),
        (json.dumps(LLAMA).encode()[:-20], "is not JSON"),
        (b"[" * 100_000, "nested too deep|is not JSON"),
        (b'{"a":' * 20_000 + b"1" + b"}" * 20_000, "nested too deep"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "nested too deep|values, more than"),
        (b'{"a": ' + b"9" * 10_000 + b"}", "is not JSON"),
        (b'{"hidden_size": 1, "hidden_size": 2}', "names the key 'hidden_size' twice"),
        (b"<!DOCTYPE html><html></html>", "is not JSON"),
    ],
)
def test_documents_that_are_none(text: bytes, says: str) -> None:
    with pytest.raises(ModelError, match=says):
        parse_json(text, "config.json")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b" " * (MAX_DOCUMENT_BYTES + 1), "has 4194305 bytes; at most 4194304 are read"),
        (b'{"a": "' + "\U0001f600".encode() * 500_000 + b'"}', "at most 1048576 are read where not all"),
        (b'{"a": [' + b"[]," * 1_300_000 + b"0]}", "holds about 1300000 values"),
        (b'{"a": [' + b"{}," * 1_300_000 + b"0]}", "values, more than any model's"),
        (b'{"a": [' + b"1," * 2_000_000 + b"0]}", "values, more than any model's"),
        (b"{" + b",".join(b'"%d":1.5' % number for number in range(110_000)) + b"}", "values, more than any model's"),
        (b'{"a":' * 800_000, "values, more than any model's"),
    ],
)
def test_documents_that_would_fill_the_memory(text: bytes, says: str) -> None:
    with pytest.raises(DocumentTooLargeError, match=says):
        parse_json(text, "config.json")


@pytest.mark.parametrize(
    "text",
    [
        b"x" * (50 * 1024 * 1024),
        b'{"a": [' + b"[]," * 1_300_000 + b"0]}",
        b"[" * 1_000_000,
        # Just below what is parsed, and wrong at the very end.
        b'{"a": [' + b"[1.5]," * 110_000 + b"0]}x",
        b'{"a": [' + b'{"a":1.5},' * 60_000 + b"0]}x",
        b'{"a": [' + b",".join(b'{"%d":1.5}' % number for number in range(60_000)) + b"]}x",
        b'{"a": [' + b'"xy",' * 240_000 + b"0]}x",
        b"{" + b",".join(b'"%d":"x%d"' % (number, number) for number in range(60_000)) + b"}x",
        b'{"a": "' + "\U0001f600".encode() * 260_000 + b'"}x',
        b'{"a": "' + b"x" * 4_000_000 + b'"}x',
    ],
    ids=range(10),
)
def test_refusals_take_little_memory(text: bytes) -> None:
    assert extra_bytes(lambda: parse_json(text, "config.json")) < MOST_BYTES


@pytest.mark.parametrize(
    "changes",
    [
        {"num_hidden_layers": 10**12},
        {"num_hidden_layers": 10**9},
        {"layer_types": ["full_attention"] * 100_000},
        {"hybrid_override_pattern": "M" * 1_000_000},
        {"moe_layer_freq": [1] * 100_000, "num_experts": 8},
        {"quantization_config": {"quant_method": "fp8", "modules_to_not_convert": "x"}, "hidden_size": -1},
    ],
)
def test_counts_are_refused_before_anything_is_made_of_them(changes: dict[str, Any]) -> None:
    assert extra_bytes(lambda: model_facts({**LLAMA, **changes}, source="test")) < 1024 * 1024


def test_long_lists_of_what_is_not_quantised_are_bounded() -> None:
    """Every pattern is tried for every weight: only so many are kept."""
    patterns = [f"*{number}*a*b*c*" for number in range(20_000)]
    config = {**LLAMA, "quantization_config": {"quant_method": "fp8", "modules_to_not_convert": patterns}}
    facts = model_facts(config, source="test")
    assert facts.guesses == ("19996 patterns of what is not quantised are not understood",)


# ---- anything else

VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**30), 10**30),
    st.integers(0, 300),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(["fp8", "mamba", "sliding_attention", "linear_attention", "*", "ME*-", "re:.*"]),
    st.lists(st.one_of(st.integers(-2, 9), st.text(max_size=4), st.none()), max_size=40),
    st.dictionaries(st.text(max_size=8), st.one_of(st.integers(-2, 300), st.none(), st.text(max_size=5)), max_size=5),
)
KEYS = st.sampled_from(
    [
        *LLAMA, "layer_types", "sliding_window", "kv_lora_rank", "q_lora_rank", "index_topk", "index_head_dim",
        "linear_attn_config", "linear_num_value_heads", "hybrid_override_pattern", "hybrid_layer_pattern",
        "block_configs", "compress_ratios", "num_experts", "moe_intermediate_size", "moe_layer_freq", "text_config",
        "vision_config", "quantization_config", "rope_scaling", "rope_parameters", "tie_word_embeddings", "n_groups",
        "attn_layer_period", "mamba_n_heads", "mamba_expand", "conv_L_cache", "layer_group_size", "num_mtp_modules",
        "num_kv_shared_layers", "sparse_attention_config", "attention_chunk_size", "global_head_dim", "moe_layers_enum",
        "hidden_size_per_layer_input", "expand", "shared_intermediate_size", "n_shared_experts", "intermediate_size",
    ]
)  # fmt: skip
MODEL_TYPES = st.sampled_from(
    ["llama", "mamba", "mamba2", "falcon_h1", "zamba2", "nemotron_h", "longcat_flash", "gemma4_text", "deepseek_v4",
     "llama4_text", "qwen3_5_moe", "kimi_linear", "falcon", "bailing_hybrid", "step3p5", "mimo_v2_flash"]
)  # fmt: skip


def facts_or_error(config: dict[str, Any]) -> ModelFacts | ModelError:
    try:
        return model_facts(config, source="test")
    except ModelError as error:
        return error


def refused_or_whole(config: dict[str, Any]) -> None:
    """A ``ModelError`` of readable length, or facts within all bounds."""
    facts = facts_or_error(config)
    if isinstance(facts, ModelError):
        assert 0 < len(facts.message) < 800
        return
    message = ModelFactsResult(facts=facts).model_dump_json()
    assert ModelFactsResult.model_validate_json(message).facts == facts


@settings(max_examples=400, deadline=None)
@given(st.dictionaries(KEYS, VALUES, max_size=8), MODEL_TYPES)
def test_anything_else_is_refused_or_gives_whole_facts(changes: dict[str, Any], model_type: str) -> None:
    refused_or_whole({**LLAMA, "model_type": model_type, **changes})


@pytest.mark.skipif(not real_configs(), reason="the collection of real config.json files is not on this machine")
@settings(max_examples=200, deadline=None)
@given(st.data())
def test_mutated_real_configurations(data: st.DataObject) -> None:
    path = data.draw(st.sampled_from([path for path in real_configs() if path.stat().st_size < 20_000]))
    config = json.loads(path.read_bytes())
    inner = config.get("text_config") if data.draw(st.booleans()) else config
    target = inner if isinstance(inner, dict) else config
    for key in data.draw(st.lists(st.sampled_from(sorted(target)), min_size=1, max_size=3)):
        target[key] = data.draw(VALUES)
    refused_or_whole(config)


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(
            [
                "quant_method",
                "quant_algo",
                "bits",
                "group_size",
                "weight_block_size",
                "ignore",
                "config_groups",
                "kv_cache_scheme",
                "quantized_layers",
                "quantization",
                "modules_to_not_convert",
                "load_in_4bit",
                "global_quant_config",
            ]
        ),
        st.one_of(
            VALUES,
            st.sampled_from(["awq", "gptq", "NVFP4", "MIXED_PRECISION", "modelopt", "compressed-tensors", "quark"]),
        ),
        max_size=6,
    )
)
def test_mutated_quantisation(quantization: dict[str, Any]) -> None:
    refused_or_whole({**LLAMA, "quantization_config": quantization})
