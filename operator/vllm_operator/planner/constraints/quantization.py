"""C6, C6b and C7: a GPU's slice of a quantised weight holds whole blocks or groups that share a scale.

Which slices: those along the input of a row-parallel layer, that is the inner width of a feed-forward block or of an
expert, and the heads that the output projection of attention or of a recurrent state reads. Weights that are merged
along their output (gate and up, query, key and value) are less strict. MXFP4 experts are padded, so they have no rule
(``model_executor/layers/fused_moe/oracle/mxfp4.py: mxfp4_round_up_hidden_size_and_intermediate_size``); scales per
tensor or per channel have none to cut. Marlin's own tile sizes are padded too
(``model_executor/layers/quantization/utils/marlin_utils.py: marlin_padded_nk``).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from math import gcd
from typing import Final

from vllm_operator.planner.constraints.feed_forward import WHOLE_EXPERTS, expert_shards
from vllm_operator.planner.constraints.rule import Case, caches_of
from vllm_operator.planner.engine_settings import EngineSettings
from vllm_operator_api.model import AttentionCache, ModelFacts, StateCache

_PADDED_EXPERTS: Final = frozenset({"mxfp4", "gpt_oss_mxfp4"})
"""Methods whose experts are padded and whose other layers are left unquantised (``quantization/mxfp4.py``)."""
_PADDED_DENSE: Final = frozenset(
    {
        "BailingMoeV3ForCausalLM",
        "BailingMoeV3VLForConditionalGeneration",
        "DeepseekV4ForCausalLM",
        "DeepseekV4ForConditionalGeneration",
    }
)
"""Architectures that pad dense layers and shared experts to whole fp8 blocks on every GPU
(``models/deepseek_v4/nvidia/model.py:158``, ``model_executor/models/bailing_moe_v3.py:299``)."""
_HALVED_GROUPS: Final = frozenset({
    "awq", "auto_awq", "awq_marlin", "gptq", "auto_gptq", "gptq_marlin", "moe_wna16",
})  # fmt: skip
"""Methods that halve the group size of experts until it fits (``quantization/moe_wna16.py:283``), used when Marlin
refuses the shape (``quantization/auto_awq.py:345``, ``auto_gptq.py:241``)."""
_SMALLEST_GROUP: Final = 32
"""``quantization/moe_wna16.py:286``."""
_SMALLEST_BLOCK: Final = 32
"""Edge of the smallest block that fp8 scales are refined to (``fused_moe/oracle/fp8.py:308``)."""
_REFINED_BLOCKS_FROM: Final = (8, 9)
"""Compute capability with kernels for refined blocks, Triton's: it needs fp8 arithmetic. Marlin, which older GPUs use,
takes blocks of 128 alone (``fused_moe/experts/triton_moe.py``, ``marlin_moe.py: _supports_quant_scheme``)."""
_ONLINE_GROUPS: Final = {"mxfp8": 32, "mxfp4": 32}
"""Group sizes of methods that quantise while loading (``quantization/online/mxfp8.py:59``, ``mxfp4.py:102, 188``)."""


def _feed_forward_inputs(facts: ModelFacts) -> Iterator[tuple[str, int]]:
    """Name and input width of every quantised output projection of a dense layer or shared expert."""
    ignores_shared = facts.quantization is not None and facts.quantization.ignores_shared_experts
    for width in facts.intermediate_sizes:
        shared = facts.experts is not None and width % facts.experts.intermediate_size == 0
        if not (shared and ignores_shared):
            yield "the feed-forward width", width


def _mixer_inputs(facts: ModelFacts) -> Iterator[tuple[str, int]]:
    """Name and input width of every quantised output projection of attention or of a recurrent state."""
    if facts.quantization is not None and facts.quantization.ignores_attention:
        return
    for attention in caches_of(facts, AttentionCache):
        yield "the attention output", facts.attention_heads * attention.value_dim
    for state in caches_of(facts, StateCache):
        yield f"the {state.kind} output", state.heads * state.head_dim


def _block(facts: ModelFacts) -> tuple[int, int] | None:
    """Edges of fp8 blocks; None without. A block of one row is a group."""
    quantization = facts.quantization
    if quantization is None or quantization.block is None or quantization.weight_bits != 8:
        return None
    return None if quantization.block[0] == 1 else quantization.block


def _group(facts: ModelFacts, settings: EngineSettings) -> int | None:
    """Weights along the input that share a scale, None without such groups."""
    quantization = facts.quantization
    if quantization is None:
        return _ONLINE_GROUPS.get(settings.quantization or "")
    if quantization.method in _PADDED_EXPERTS:
        return None
    if quantization.block is not None:
        return quantization.block[1] if quantization.block[0] == 1 else None
    return quantization.group_size


def _slices(what: str, width: int, gpus: int) -> str:
    return f"{what} of {width} over {gpus} GPUs is {width // gpus} each"


def block_of_dense(case: Case) -> str | None:
    """C6: fp8 blocks outside the experts (``quantization/utils/fp8_utils.py: validate_fp8_block_shape``). Outputs that
    are merged need whole blocks too in checkpoints of compressed-tensors, cut or not; others are let through
    (``model_executor/layers/linear.py: _maybe_allow_fp8_block_shape_mismatch``).
    """
    block = _block(case.facts)
    if block is None:
        return None
    merged = _method(case.facts) == "compressed-tensors"
    padded = case.facts.architecture in _PADDED_DENSE
    for name, width in chain(() if padded else _feed_forward_inputs(case.facts), _mixer_inputs(case.facts)):
        if width % case.tensor:
            continue
        shard = width // case.tensor
        if (case.tensor > 1 and shard % block[1]) or (merged and shard % block[0]):
            return f"{_slices(name, width, case.tensor)}, {_part_of(f'an fp8 block of {block[0]} x {block[1]}')}"
    return None


def block_of_experts(case: Case) -> str | None:
    """C6b: fp8 blocks of experts. vLLM refines the scales to smaller blocks of at least 32 (``fused_moe/oracle/fp8.py:
    refine_fp8_moe_block_shape``); checkpoints of compressed-tensors are refused instead
    (``compressed_tensors_moe_w8a8_fp8.py``, ``fp8_utils.py: validate_fp8_block_shape_moe``).
    """
    block, experts, shards = _block(case.facts), case.facts.experts, expert_shards(case.layout)
    if block is None or experts is None or experts.intermediate_size % shards:
        return None
    shard = experts.intermediate_size // shards
    if shard % block[0] == 0 and (shards == 1 or shard % block[1] == 0):
        return None
    slices = _slices("the experts' width", experts.intermediate_size, shards)
    refined = gcd(*block, shard, case.facts.hidden_size)
    if _method(case.facts) == "compressed-tensors" or refined < _SMALLEST_BLOCK:
        return f"{slices}, {_part_of(f'an fp8 block of {block[0]} x {block[1]}')}; {WHOLE_EXPERTS}"
    found, needed = case.device.compute_capability, _REFINED_BLOCKS_FROM
    if case.device.vendor == "nvidia" and found is not None and found < needed:
        return (
            f"{slices}, and fp8 blocks cut down to {refined} need compute capability {needed[0]}.{needed[1]} where "
            f"this GPU has {found[0]}.{found[1]}; {WHOLE_EXPERTS}"
        )
    return None


def group_of_dense(case: Case) -> str | None:
    """C7: groups outside the experts (``distributed/utils.py: verify_group_size_divides_partition``;
    ``quantization/auto_awq.py:819``; ``kernels/linear/mixed_precision/marlin.py: can_implement``;
    ``quantization/modelopt.py:1995, 2297``). A group as wide as the layer is copied, not cut.
    """
    group = _group(case.facts, case.settings)
    if group is None or case.tensor == 1:
        return None
    for name, width in chain(_feed_forward_inputs(case.facts), _mixer_inputs(case.facts)):
        if group < width and width % case.tensor == 0 and width // case.tensor % group:
            return f"{_slices(name, width, case.tensor)}, {_part_of(f'a group of {group}')}"
    return None


def group_of_experts(case: Case) -> str | None:
    """C7: groups of experts (``compressed_tensors_moe_wna16.py:244``, ``quantization/modelopt.py:1294``,
    ``moe_wna16.py:283``). NVFP4's own classes do not check it, but give a GPU the scales of other weights than it holds
    (``fused_moe/routed_experts.py: _load_w2``).
    """
    group, experts, shards = _group(case.facts, case.settings), case.facts.experts, expert_shards(case.layout)
    if group is None or experts is None or shards == 1 or experts.intermediate_size % shards:
        return None
    shard = experts.intermediate_size // shards
    smallest = _SMALLEST_GROUP if _method(case.facts) in _HALVED_GROUPS else group
    fitting = group
    while fitting >= smallest and shard % fitting:
        fitting //= 2
    if fitting >= smallest:
        return None
    slices = _slices("the experts' width", experts.intermediate_size, shards)
    return f"{slices}, {_part_of(f'a group of {group}')}; {WHOLE_EXPERTS}"


def _method(facts: ModelFacts) -> str | None:
    return None if facts.quantization is None else facts.quantization.method


def _part_of(what: str) -> str:
    return f"so a GPU would hold part of {what} that shares one scale"
