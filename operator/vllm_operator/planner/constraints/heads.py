"""C1 to C3: tensor parallelism gives every GPU whole attention heads."""

from __future__ import annotations

from typing import Final

from vllm_operator.planner.constraints.rule import Case, caches_of, uneven
from vllm_operator_api.model import AttentionCache, LatentCache, StateCache

_WITHOUT_COPIES: Final = frozenset(
    {
        "GptOssForCausalLM",
        "InklingForCausalLM",
        "InklingForConditionalGeneration",
        "Param2MoEForCausalLM",
    }
)
"""Architectures that divide KV heads and never copy them (``model_executor/models/gpt_oss.py:157``,
``models/inkling/nvidia/sconv_swa_attn.py:141``, ``model_executor/models/param2moe.py:121``)."""
_OUTPUT_GROUPS: Final = frozenset({"DeepseekV4ForCausalLM", "DeepseekV4ForConditionalGeneration"})
_HEADS_PER_OUTPUT_GROUP: Final = 8
"""Heads over ``o_groups`` of every published DeepSeek-V4, as vLLM's kernels ask (``WV_GROUP_SIZE`` of
``models/deepseek_v41/common/ops/fused_layout.py``)."""


def attention_heads(case: Case) -> str | None:
    """C1, and C3: latent attention has no KV heads to divide, only these (``config/model.py:1546``, refused before any
    GPU is used). A model without attention has none (``transformers_utils/model_arch_config_convertor.py``).
    """
    attends = any(caches_of(case.facts, AttentionCache)) or any(caches_of(case.facts, LatentCache))
    if not attends and any(caches_of(case.facts, StateCache)):
        return None
    if case.facts.attention_heads % case.tensor:
        return uneven(f"the {case.facts.attention_heads} attention heads", case.tensor)
    return None


def output_groups(case: Case) -> str | None:
    """C1 for DeepSeek-V4, whose output projection is cut by groups of heads (``models/deepseek_v4/attention.py:220``;
    with none on a GPU the first forward pass divides by zero, ``models/deepseek_v4/nvidia/flashmla.py:69``).
    """
    groups = case.facts.attention_heads // _HEADS_PER_OUTPUT_GROUP
    if case.facts.architecture in _OUTPUT_GROUPS and (groups == 0 or groups % case.tensor):
        return uneven(f"the {groups} groups of the attention output", case.tensor)
    return None


def kv_heads(case: Case) -> str | None:
    """C2: KV heads are divided, or each is copied equally often, in every kind of layer for itself
    (``model_executor/layers/linear.py:1053`` and the same assertions in most models, such as ``models/llama.py:149``;
    they stop the engine's workers after they started).
    """
    for cache in caches_of(case.facts, AttentionCache):
        which = "" if cache.kind == "full" else f" of the layers with {cache.kind} attention"
        if cache.kv_heads >= case.tensor:
            if cache.kv_heads % case.tensor:
                return uneven(f"the {cache.kv_heads} KV heads{which}", case.tensor)
        elif case.facts.architecture in _WITHOUT_COPIES:
            name = case.facts.architecture
            return f"vLLM does not copy KV heads of {name}: {cache.kv_heads} are too few for {case.tensor} GPUs"
        elif case.tensor % cache.kv_heads:
            return f"the {cache.kv_heads} KV heads{which} cannot be copied equally often onto {case.tensor} GPUs"
    return None
