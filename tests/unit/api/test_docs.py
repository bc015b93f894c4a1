"""The API reference page."""

from __future__ import annotations

from vllm_operator_api.conditions import Reason
from vllm_operator_api.docs import reference_page


def test_has_fields_limits_rules_and_reasons() -> None:
    page = reference_page()
    assert "| `parallelism.tensor` | integer or string | `auto` |" in page
    assert "| `engine.env[].name` | string | required |" in page
    assert "Rule: path must not contain the path element '..'." in page
    assert "Above 0, at most 1." in page
    assert f"| `{Reason.ENGINE_ARG_UNKNOWN}` | This version of vLLM has no such option" in page
    assert all(f"| `{reason}` |" in page for reason in Reason)


def test_every_condition_and_reason_has_a_meaning() -> None:
    assert [line for line in reference_page().splitlines() if line.endswith("|  |")] == []


def test_tables_have_four_columns_everywhere() -> None:
    for line in reference_page().splitlines():
        if line.startswith("| `") and line.replace(r"\|", "").count("|") not in (3, 5):
            raise AssertionError(line)
