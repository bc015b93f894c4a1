"""Patterns of module names mean what Python's regular expressions mean, and no pattern takes long."""

from __future__ import annotations

import fnmatch
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_operator.planner.facts.quantization.globs import MAX_PATTERN, expression, wildcard

NAMES = ["model.layers.3.self_attn.q_proj", "lm_head", "model.layers.12.mlp.gate_up_proj", "mlp.down_proj", ""]


@pytest.mark.parametrize(
    "pattern",
    [
        ".*self_attn.*", ".*mlp\\.(gate|up|gate_up|down)_proj.*", "lm_head", ".*lm_head$", "^model\\.layers.*proj$",
        "model\\.layers\\.(3|12)\\..*", ".*\\.(?:q|k)_proj", "mlp", ".*",
    ],
)  # fmt: skip
def test_expressions(pattern: str) -> None:
    globs = expression(pattern)
    assert globs is not None
    for name in NAMES:
        assert any(glob.matches(name) for glob in globs) == (re.match(pattern, name) is not None), name


@pytest.mark.parametrize("pattern", ["(a+)+$", "a{2}", "[abc]", "(?=a)b", "a|b", "(a", "a)", "(a)*", "((a)b)", "x\\b"])
def test_other_expressions_are_not_understood(pattern: str) -> None:
    assert expression(pattern) is None


@given(st.text("ab.*", max_size=12), st.text("ab.", max_size=12))
def test_wildcards_are_fnmatchs(pattern: str, name: str) -> None:
    glob = wildcard(pattern)
    assert glob is not None
    assert glob.matches(name) == fnmatch.fnmatchcase(name, pattern)


@given(st.text(".*\\d+()|?abx[]{}^$", max_size=40))
def test_any_expression_is_understood_or_not(pattern: str) -> None:
    expression(pattern)


@pytest.mark.parametrize("pattern", ["a" * (MAX_PATTERN + 1), "(a|b)" * 100, ".*a" * 170])
def test_long_patterns_are_not_understood(pattern: str) -> None:
    assert expression(pattern) is None
    assert wildcard("*a" * 300) is None
