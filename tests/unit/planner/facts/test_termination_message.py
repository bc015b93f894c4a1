"""What the operator takes for facts of a termination message: the bounds of every field are kept."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError
from tests.support.builders import facts_message, make_facts

from vllm_operator_api.model import LatentCache
from vllm_operator_api.runtime import ModelFactsResult

FULL = {"kind": "full", "kv_heads": 8, "head_dim": 128, "value_dim": 128}


def parsed(**changes: Any) -> ModelFactsResult:
    document = json.loads(facts_message(make_facts()))
    document["facts"].update(changes)
    return ModelFactsResult.model_validate_json(json.dumps(document))


def test_facts_come_back_as_they_were() -> None:
    assert parsed().facts == make_facts()


def test_a_cache_is_read_by_its_kind() -> None:
    facts = parsed(layer_shapes=[{"caches": [{"kind": "latent", "rank": 512}]}]).facts
    assert facts is not None
    assert facts.layer_shapes[0].caches == (LatentCache(rank=512),)


@pytest.mark.parametrize(
    "changes",
    [
        {"hidden_size": 0},
        {"hidden_size": 2**40},
        {"vocab_size": 1.5},
        {"attention_heads": -1},
        {"layer_pattern": ""},
        {"layer_pattern": "a" * 1025},
        {"layer_pattern": "ab"},
        {"layer_pattern": "A"},
        {"layer_pattern": "aa`"},
        {"layer_shapes": []},
        {"layer_shapes": [{"caches": [FULL]}] * 27},
        {"layer_shapes": [{"caches": [FULL] * 9}]},
        {"layer_shapes": [{"caches": [{**FULL, "kind": "spiral"}]}]},
        {"layer_shapes": [{"caches": [{**FULL, "kv_heads": 0}]}]},
        {"layer_shapes": [{"caches": [{**FULL, "window_tokens": 2**41}]}]},
        {"layer_shapes": [{"caches": [{"kind": "mamba2", "heads": 1, "head_dim": 1, "state_size": 2**40}]}]},
        {"weights": {"total_bytes": 0, "source": "given"}},
        {"weights": {"total_bytes": 10**16, "source": "given"}},
        {"weights": {"total_bytes": 1, "source": "guessed"}},
        {"weights": {"total_bytes": 1, "source": "given", "expert_bytes": -1}},
        {"quantization": {"method": "x" * 129, "weight_bits": 4}},
        {"quantization": {"method": "fp8", "weight_bits": 64}},
        {"quantization": {"method": "fp8", "weight_bits": 8, "block": [128]}},
        {"experts": {"experts": 0, "experts_per_token": 1, "intermediate_size": 1}},
        {"guesses": ["x" * 201]},
        {"guesses": ["x"] * 9},
        {"intermediate_sizes": [1] * 65},
        {"source": "x" * 1025},
    ],
)
def test_facts_beyond_their_bounds_are_none(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        parsed(**changes)
