"""The way in: which rules a layout breaks, which degrees are legal, and what a device cannot run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from vllm_operator.planner.constraints import (
    devices,
    experts,
    feed_forward,
    heads,
    limits,
    pipeline,
    quantization,
    state,
    vocabulary,
)
from vllm_operator.planner.constraints.rule import Case, Rule
from vllm_operator.planner.device import Device
from vllm_operator.planner.engine_settings import EngineSettings
from vllm_operator.planner.layout import Layout
from vllm_operator_api.model import ModelFacts


@dataclass(frozen=True, slots=True)
class Violation:
    """A rule that a layout breaks."""

    rule: str
    """Its number, such as ``C1``; ``C0``: a degree is out of bounds."""
    message: str
    """Why, with the values; no capital at its start, no full stop at its end."""


_BOUNDS: Final[tuple[tuple[str, Rule], ...]] = (("C0", limits.degrees),)
"""Without them no other rule has a meaning."""
_DEVICE: Final[tuple[tuple[str, Rule], ...]] = tuple(("C16", rule) for rule in devices.RULES)
_TENSOR: Final[tuple[tuple[str, Rule], ...]] = (
    ("C1", heads.attention_heads),
    ("C1", heads.output_groups),
    ("C2", heads.kv_heads),
    ("C8", state.state_heads),
    ("C8", state.state_groups),
    ("C5", feed_forward.dense_width),
    ("C5", feed_forward.expert_width),
    ("C10", experts.enough_experts),
    ("C4", vocabulary.vocabulary),
    ("C6", quantization.block_of_dense),
    ("C6b", quantization.block_of_experts),
    ("C7", quantization.group_of_dense),
    ("C7", quantization.group_of_experts),
)
"""What tensor parallelism must divide, the most fundamental first."""
_OTHERS: Final[tuple[tuple[str, Rule], ...]] = (
    ("C9", pipeline.stages),
    ("C10", experts.whole_experts),
    ("C11", experts.data_copies),
    ("C14", limits.even_nodes),
)
RULES: Final = _BOUNDS + _DEVICE + _TENSOR + _OTHERS
"""Every rule with its number, in the order in which violations are reported."""


def _broken(rules: tuple[tuple[str, Rule], ...], case: Case) -> tuple[Violation, ...]:
    found = ((number, rule(case)) for number, rule in rules)
    return tuple(Violation(number, message) for number, message in found if message is not None)


def violations(facts: ModelFacts, layout: Layout, settings: EngineSettings, device: Device) -> tuple[Violation, ...]:
    """Every rule that this layout breaks, the most fundamental first; empty: vLLM runs it, if it fits.

    What is not known of the device breaks no rule. Raises nothing.
    """
    case = Case(facts, layout, settings, device)
    return _broken(_BOUNDS, case) or _broken(RULES[len(_BOUNDS) :], case)


def legal_tensor(
    facts: ModelFacts,
    settings: EngineSettings,
    largest: int,
    device: Device = Device(),  # noqa: B008  a frozen value
    *,
    expert_parallel: bool = False,
) -> tuple[int, ...]:
    """All tensor-parallel degrees up to ``largest`` that vLLM runs the model at, ascending; powers of two or not.

    Whether the device runs the model at all is ``can_run_on``. With ``expert_parallel`` experts are not cut.
    """
    degrees = range(1, min(largest, limits.MAX_TENSOR) + 1)
    cases = (Case(facts, Layout(tensor=n, expert_parallel=expert_parallel), settings, device) for n in degrees)
    return tuple(case.layout.tensor for case in cases if not any(rule(case) for _, rule in _TENSOR))


def can_run_on(facts: ModelFacts, settings: EngineSettings, device: Device) -> Violation | None:
    """C16: why no layout runs on this kind of device, None when it does or when too little is known of it."""
    return next(iter(_broken(_DEVICE, Case(facts, Layout(), settings, device))), None)
