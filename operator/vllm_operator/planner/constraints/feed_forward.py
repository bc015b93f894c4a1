"""C5: tensor parallelism cuts the feed-forward blocks along their inner width."""

from __future__ import annotations

from typing import Final

from vllm_operator.planner.constraints.rule import Case, uneven
from vllm_operator.planner.layout import Layout

WHOLE_EXPERTS: Final = "expert parallelism keeps experts whole"
"""What can be done where experts cannot be cut."""


def expert_shards(layout: Layout) -> int:
    """GPUs that each expert is cut over: all that hold the same layers, or none when experts stay whole
    (``model_executor/layers/fused_moe/config.py: FusedMoEParallelConfig.make``).
    """
    return 1 if layout.expert_parallel else layout.tensor * layout.data


def dense_width(case: Case) -> str | None:
    """Dense layers and shared experts (``model_executor/layers/linear.py:718, 1681``)."""
    for width in case.facts.intermediate_sizes:
        if width % case.tensor:
            return uneven(f"the feed-forward width of {width}", case.tensor)
    return None


def expert_width(case: Case) -> str | None:
    """Routed experts that are cut (``model_executor/layers/fused_moe/config.py:1341``)."""
    experts, shards = case.facts.experts, expert_shards(case.layout)
    if experts is not None and experts.intermediate_size % shards:
        reason = uneven(f"the experts' width of {experts.intermediate_size}", shards)
        return f"{reason}; {WHOLE_EXPERTS}"
    return None
