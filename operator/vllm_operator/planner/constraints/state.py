"""C8: tensor parallelism gives every GPU whole heads of the recurrent state."""

from __future__ import annotations

from vllm_operator.planner.constraints.rule import Case, caches_of, uneven
from vllm_operator_api.model import StateCache


def state_heads(case: Case) -> str | None:
    """Heads of every kind of state (``model_executor/layers/mamba/mamba_mixer2.py:315``,
    ``gdn/kimi_gdn_linear_attn.py:189``, ``linear/base.py:49``, ``mamba_utils.py:187, 297``).
    """
    for cache in caches_of(case.facts, StateCache):
        if cache.heads % case.tensor:
            return uneven(f"the {cache.heads} heads of the {cache.kind} state", case.tensor)
    return None


def state_groups(case: Case) -> str | None:
    """Mamba-2's groups: divided, or one that every GPU holds (``mamba_mixer2.py:319``). Key heads of a gated delta net:
    divided (``gdn/qwen_gdn_linear_attn.py:736`` views each GPU's slice as whole heads).
    """
    for cache in caches_of(case.facts, StateCache):
        if cache.key_heads % case.tensor == 0:
            continue
        if cache.kind == "mamba2" and cache.key_heads > 1:
            return uneven(f"the {cache.key_heads} groups of the mamba2 state", case.tensor)
        if cache.kind in {"gdn", "kda"}:
            return uneven(f"the {cache.key_heads} key heads of the {cache.kind} state", case.tensor)
    return None
