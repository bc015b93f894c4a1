"""Facts from config.json: real configurations, defaults, and what an author could do wrong or in bad faith."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from vllm_operator.planner.constraints import legal_degrees
from vllm_operator.planner.facts import MAX_CONFIG_BYTES, ModelError, index_shards, model_facts, parse_json
from vllm_operator_api.conditions import Reason

CONFIGS = Path(__file__).parents[4] / "shared" / "model-configs"
"""Real config.json files, if this machine has them: test data that is not part of the repository."""
LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14336,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
    "torch_dtype": "bfloat16",
}


def facts_of(**changes: Any) -> Any:
    config = {key: value for key, value in {**LLAMA, **changes}.items() if value is not None}
    return model_facts(config, weights_bytes=16_000_000_000, source="test")


def test_llama() -> None:
    facts = facts_of()
    assert (facts.kv_heads, facts.head_dim, facts.layers, facts.dtype) == (8, 128, 32, "bfloat16")
    assert facts.moe_intermediate_size is None
    assert facts.latent_dim is None


def test_defaults_are_vllms() -> None:
    facts = facts_of(num_key_value_heads=None)
    assert facts.kv_heads == 32
    assert facts_of(head_dim=64).head_dim == 64


def test_multimodal_models_keep_theirs_inside() -> None:
    config = {"architectures": ["Qwen3VLForConditionalGeneration"], "text_config": {**LLAMA, "architectures": None}}
    facts = model_facts(config, weights_bytes=1, source="test")
    assert facts.architecture == "Qwen3VLForConditionalGeneration"
    assert facts.hidden_size == 4096


def test_latent_attention() -> None:
    assert facts_of(kv_lora_rank=512, qk_rope_head_dim=64).latent_dim == 576


def test_experts_without_a_size_of_their_own() -> None:
    assert facts_of(num_local_experts=8).moe_intermediate_size == 14336


@pytest.mark.parametrize(
    ("scaling", "longest"),
    [
        ({"type": "linear", "factor": 4.0}, 131072 * 4),
        ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 65536}, 65536 * 4),
        ({"rope_type": "llama3", "factor": 8.0}, 131072),
        ({"rope_type": "linear", "factor": float("nan")}, 131072),
    ],
)
def test_rope_scaling(scaling: dict[str, Any], longest: int) -> None:
    assert facts_of(rope_scaling=scaling).max_position_embeddings == longest


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"hidden_size": None}, "no hidden_size"),
        ({"architectures": None}, "no architecture"),
        ({"architectures": []}, "no architecture"),
        ({"num_hidden_layers": 10**12}, "num_hidden_layers=1000000000000 is not a number from 1"),
        ({"num_attention_heads": 0}, "num_attention_heads=0"),
        ({"num_attention_heads": -8}, "num_attention_heads=-8"),
        ({"hidden_size": "4096"}, "hidden_size=4096 is not a number"),
        ({"hidden_size": float("nan")}, "hidden_size=nan"),
        ({"vocab_size": True}, "vocab_size=True"),
        ({"architectures": ["x" * 500]}, "too long"),
    ],
)
def test_absurd_configurations_are_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ModelError, match=says) as caught:
        facts_of(**changes)
    assert caught.value.reason is Reason.MODEL_CONFIG_INVALID


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"", "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        (b"[]", "is not a JSON object"),
        (b"[" * 200_000, "nested too deep|is not JSON"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "nested too deep"),
        (b'{"a": ' + b"9" * 10_000 + b"}", "is not JSON"),
        (b" " * (MAX_CONFIG_BYTES + 1), "at most"),
        (b"<!DOCTYPE html><html></html>", "is not JSON"),
    ],
)
def test_hostile_documents_are_refused_at_once(text: bytes, says: str) -> None:
    begin = time.monotonic()
    with pytest.raises(ModelError, match=says):
        parse_json(text, "config.json")
    assert time.monotonic() - begin < 1


@pytest.mark.parametrize("name", ["../x.safetensors", "a/b.safetensors", "", ".hidden", "a\0b", 7, "x" * 300])
def test_names_of_shards_are_plain_file_names(name: Any) -> None:
    with pytest.raises(ModelError, match="not a plain file name"):
        index_shards({"weight_map": {"layer": name}}, "index")


def test_shards_are_counted_once() -> None:
    index = {"weight_map": {"a": "2.safetensors", "b": "1.safetensors", "c": "2.safetensors"}}
    assert index_shards(index, "index") == ("1.safetensors", "2.safetensors")


@pytest.mark.skipif(not CONFIGS.is_dir(), reason="the collection of real config.json files is not on this machine")
def test_real_configurations() -> None:
    paths = sorted(CONFIGS.glob("*.json"))
    assert len(paths) > 50
    for path in paths:
        facts = model_facts(parse_json(path.read_bytes(), path.name), weights_bytes=10**10, source=path.name)
        assert legal_degrees(facts, 8)[0] == 1, path.name
        assert json.loads(facts.model_dump_json())["layers"] == facts.layers
