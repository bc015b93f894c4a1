"""Facts that the user gives."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.support.builders import make_facts
from tests.support.model_configs import LLAMA

from vllm_operator.planner.facts.errors import ModelError
from vllm_operator.planner.facts.override import apply_override
from vllm_operator_api.model import ModelFacts, WeightsSource
from vllm_operator_api.quantities import BYTES_PER_GIB


def test_weights_are_scaled_with_all_their_parts() -> None:
    facts = make_facts(weights_bytes=16 * 10**9)
    weights = apply_override(facts, {"weightsGiB": 7.5}).weights
    assert (weights.total_bytes, weights.source) == (int(7.5 * BYTES_PER_GIB), WeightsSource.GIVEN)
    assert weights.embedding_bytes == facts.weights.embedding_bytes * weights.total_bytes // (16 * 10**9)


@pytest.mark.parametrize("config", [LLAMA, json.dumps(LLAMA)])
def test_a_configuration_replaces_all_that_was_read(config: Any) -> None:
    facts = apply_override(None, {"config": config})
    assert (facts.source, facts.layers) == ("spec.model.facts", 32)
    assert facts.weights.source is WeightsSource.COMPUTED
    sized = apply_override(make_facts(layers=2), {"config": config, "weightsGiB": 1})
    assert (sized.layers, sized.weights.total_bytes) == (32, BYTES_PER_GIB)
    assert sized.weights.source is WeightsSource.GIVEN


def test_nothing_given_changes_nothing() -> None:
    assert apply_override(make_facts(), {}) == make_facts()


@pytest.mark.parametrize(
    ("facts", "override", "says"),
    [
        (make_facts(), {"weightsGiB": 0}, "weightsGiB=0 is no size"),
        (make_facts(), {"weightsGiB": float("nan")}, "weightsGiB=nan"),
        (make_facts(), {"weightsGiB": True}, "weightsGiB=True"),
        (make_facts(), {"weightsGiB": 1e30}, r"weightsGiB=1e\+30"),
        (make_facts(), {"weights": 1}, "weights is no fact that can be given; config and weightsGiB can"),
        (make_facts(), {"config": "[]"}, "config is not a JSON object"),
        (make_facts(), {"config": "{"}, "config is not JSON"),
        (make_facts(), {"config": 7}, "config is a int"),
        (None, {"weightsGiB": 5}, "config is missing"),
    ],
)
def test_what_cannot_be_given(facts: ModelFacts | None, override: dict[str, Any], says: str) -> None:
    with pytest.raises(ModelError, match=says):
        apply_override(facts, override)
