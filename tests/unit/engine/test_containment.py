"""Whether a live object holds what was intended."""

from __future__ import annotations

import copy
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_operator.engine.containment import contains, parse_quantity

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=12,
)
NAMED = st.dictionaries(st.text(max_size=3), JSON, max_size=4)


@given(NAMED)
def test_everything_contains_itself(intent: dict[str, Any]) -> None:
    assert contains(copy.deepcopy(intent), intent)


@given(NAMED, NAMED)
def test_what_the_server_adds_does_not_matter(intent: dict[str, Any], defaults: dict[str, Any]) -> None:
    assert contains({**defaults, **intent}, intent)


@given(NAMED, st.text(min_size=1, max_size=3), st.integers(min_value=1))
def test_a_changed_or_removed_number_is_seen(intent: dict[str, Any], key: str, number: int) -> None:
    wanted = {**intent, key: number}
    assert not contains({**wanted, key: number + 1}, wanted)
    assert not contains(intent if key not in intent else {k: v for k, v in intent.items() if k != key}, wanted)


@pytest.mark.parametrize(
    ("live", "intent", "same"),
    [
        ({"args": ["a", "b"]}, {"args": ["a"]}, False),
        ({"args": ["b", "a"]}, {"args": ["a", "b"]}, False),
        ({"ports": [{"port": 80, "protocol": "TCP"}]}, {"ports": [{"port": 80}]}, True),
        ({"ports": [{"port": 80}, {"port": 81}]}, {"ports": [{"port": 80}]}, False),
        ({}, {"emptyDir": {}}, True),
        ({"selector": None}, {"selector": {}}, True),
        ({"env": [{"name": "A"}]}, {"env": [{"name": "A", "value": ""}]}, True),
        ({}, {"hostNetwork": False}, True),
        ({"enableServiceLinks": True}, {"enableServiceLinks": False}, False),
        ({"replicas": 1}, {"replicas": 0}, False),
        ({"replicas": 1}, {"replicas": True}, False),
        ({"volumes": [1]}, {"volumes": []}, False),
        ({"resources": {"limits": {"cpu": "1"}}}, {"resources": {"limits": {"cpu": "1000m"}}}, True),
        ({"resources": {"limits": {"nvidia.com/gpu": "2"}}}, {"resources": {"limits": {"nvidia.com/gpu": 2}}}, True),
        ({"resources": {"requests": {"memory": "1Gi"}}}, {"resources": {"requests": {"memory": "1024Mi"}}}, True),
        ({"resources": {"requests": {"memory": "1Gi"}}}, {"resources": {"requests": {"memory": "1G"}}}, False),
        ({"resources": {"limits": {}}}, {"resources": {"limits": {"cpu": "1"}}}, False),
        ({"emptyDir": {"sizeLimit": "1Gi"}}, {"emptyDir": {"sizeLimit": "1024Mi"}}, True),
        ({"labels": {"version": "1"}}, {"labels": {"version": "1000m"}}, False),
    ],
)
def test_cases(live: Any, intent: Any, same: bool) -> None:
    assert contains(live, intent) is same


@pytest.mark.parametrize(
    ("text", "number"),
    [("500m", "0.5"), ("2", "2"), (0.5, "0.5"), ("1e3", "1000"), ("1Ki", "1024"), ("3E", "3e18"), ("-1", "-1")],
)
def test_quantities(text: str, number: str) -> None:
    assert parse_quantity(text) == Decimal(number)


@pytest.mark.parametrize("text", ["", "x", "1 Gi", "Gi", "1KiB", "1m1"])
def test_what_is_no_quantity(text: str) -> None:
    assert parse_quantity(text) is None
