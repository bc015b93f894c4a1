"""What the ResourceQuotas of a namespace leave."""

from __future__ import annotations

from typing import Any

import pytest

from vllm_operator.planner.inventory.quota import quota_left

KEY = "requests.nvidia.com/gpu"


def quota(hard: object, used: object = "0", **spec: Any) -> dict[str, Any]:
    return {"spec": {"hard": {KEY: hard}, **spec}, "status": {"hard": {KEY: hard}, "used": {KEY: used}}}


@pytest.mark.parametrize(
    ("quotas", "left"),
    [
        ([], None),
        ([{"spec": {"hard": {"cpu": "4"}}}], None),
        ([quota("8")], 8),
        ([quota("8", "3")], 5),
        ([quota("8", "9")], 0),
        ([quota("0")], 0),
        ([quota("8", "1"), quota("4", "2"), {"spec": {"hard": {"pods": "1"}}}], 2),
        ([quota("4", scopes=["BestEffort"])], None),
        (
            [quota("4", scopeSelector={"matchExpressions": [{"scopeName": "PriorityClass", "operator": "Exists"}]})],
            None,
        ),
        ([{"spec": {"hard": {KEY: "4"}}}], 4),
        ([quota("lots")], None),
        ([{}, {"spec": None, "status": None}], None),
    ],
)
def test_the_tightest_quota_counts(quotas: list[dict[str, Any]], left: int | None) -> None:
    assert quota_left(quotas, "nvidia.com/gpu") == left


def test_other_resources_have_their_own() -> None:
    assert quota_left([quota("8")], "amd.com/gpu") is None
