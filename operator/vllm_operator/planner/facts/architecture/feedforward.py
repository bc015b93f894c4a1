"""Feed-forward blocks: which layers have experts, how wide they are, and their weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from vllm_operator.planner.facts.architecture.blocks import Block, Part, Weight, column, replicated, vector
from vllm_operator.planner.facts.fields import Fields
from vllm_operator_api.model import ExpertFacts

_EXPERT_COUNTS: Final = ("num_experts", "moe_num_experts", "n_routed_experts", "num_local_experts")
"""The first that is given counts (``transformers_utils/model_arch_config_convertor.py``)."""
_EXPERTS_PER_TOKEN: Final = (
    "num_experts_per_tok", "num_experts_per_token", "top_k_experts", "moe_topk", "moe_top_k", "experts_per_token",
)  # fmt: skip
_DENSE_WIDTHS: Final = ("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size", "d_ff")
_EXPERT_WIDTHS: Final = ("moe_intermediate_size", "expert_intermediate_size", "moe_ffn_hidden_size")
_SHARED_WIDTHS: Final = (
    "moe_shared_expert_intermediate_size", "shared_expert_intermediate_size", "share_expert_dim",
    "shared_intermediate_size",
)  # fmt: skip
_SHARED_COUNTS: Final = ("n_shared_experts", "num_shared_experts", "moe_num_shared_experts", "shared_expert_num")
_LATENT_WIDTHS: Final = ("moe_latent_size", "routed_expert_hidden_size")
"""Width in which the routed experts work, where it is not the hidden size (Nemotron-3, Kimi-K3)."""
_UNGATED_ACTIVATIONS: Final = frozenset({"relu2", "squared_relu"})
_UNGATED_MODELS: Final = frozenset(
    {
        "bloom", "falcon", "RefinedWeb", "RefinedWebModel", "gpt2", "gpt_bigcode", "gpt_neox", "gptj", "mpt", "opt",
        "nemotron", "nemotron_h", "phi", "starcoder2",
    }
)  # fmt: skip
"""Two matrices per feed-forward block instead of three."""
_MODULES: Final = {
    "gemma4_text": "moe", "kimi_linear": "block_sparse_moe", "llama4_text": "feed_forward",
    "minimax_m2": "block_sparse_moe", "minimax_m3": "block_sparse_moe", "minimax_m3_text": "block_sparse_moe",
    "minimax_m3_vl": "block_sparse_moe", "mixtral": "block_sparse_moe", "nemotron_h": "mixer",
    "phimoe": "block_sparse_moe",
}  # fmt: skip
"""Name of the module of experts in checkpoints, as lists of what is not quantised have it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Experts:
    """The mixture of experts of one layer."""

    facts: ExpertFacts
    hidden: int
    """What the experts work in: the hidden size, or a latent."""
    shared_width: int
    """Of all shared experts together; 0: none."""
    gated: bool
    module: str
    shared_gate: bool = False


@dataclass(frozen=True, slots=True)
class FeedForward:
    """The feed-forward blocks of a model."""

    blocks: tuple[Block, ...]
    """One per layer."""
    experts: ExpertFacts | None


def feed_forward(text: Fields, *, layers: int, hidden: int) -> FeedForward:
    """The feed-forward block of each layer."""
    experts = experts_of(text, hidden)
    dense = dense_block(hidden, dense_width(text, hidden), gated=is_gated(text))
    if experts is None:
        return FeedForward((dense,) * layers, None)
    sparse = experts_block(experts, hidden)
    if text.flag("enable_moe_block"):  # Gemma 4: both, side by side
        return FeedForward((_joined(dense, sparse),) * layers, experts.facts)
    has_experts = sparse_layers(text, layers)
    return FeedForward(tuple(sparse if has_experts(layer) else dense for layer in range(layers)), experts.facts)


def dense_width(text: Fields, hidden: int) -> int:
    """Width of a dense feed-forward block.

    Llama 4 and MiniMax-M3 have a width of their own for layers without experts. GPT-2 and its like: four times the
    hidden size.
    """
    return text.number("intermediate_size_mlp", "dense_intermediate_size", *_DENSE_WIDTHS) or 4 * hidden


def is_gated(text: Fields) -> bool:
    """Whether a block has a gate beside the projection up."""
    activation = text.name("mlp_hidden_act", "hidden_act", "activation_function") or ""
    return activation not in _UNGATED_ACTIVATIONS and (text.name("model_type") or "") not in _UNGATED_MODELS


def dense_block(hidden: int, width: int, *, gated: bool, module: str = "mlp", part: Part = Part.DENSE) -> Block:
    """Up, perhaps gate, and down."""
    return Block(tuple(_projections(module, hidden, width, part, gated=gated)), widths=(width,))


def experts_of(text: Fields, hidden: int) -> Experts | None:
    """The experts of a layer that has them; None: no layer has."""
    count = text.number(*_EXPERT_COUNTS)
    if count is None or (count == 1 and text.number(*_EXPERT_WIDTHS) is None):  # one expert is none (Jamba's dense)
        return None
    width = text.number(*_EXPERT_WIDTHS) or text.number(*_DENSE_WIDTHS) or 4 * hidden
    per_token = text.number(*_EXPERTS_PER_TOKEN) or 1
    latent = text.number(*_LATENT_WIDTHS)
    return Experts(
        facts=ExpertFacts(
            experts=count, experts_per_token=min(per_token, count), intermediate_size=width, input_size=latent
        ),
        hidden=latent or hidden,
        shared_width=_shared_width(text, width),
        gated=is_gated(text),
        module=_MODULES.get(text.name("model_type") or "", "mlp"),
        shared_gate="shared_expert_intermediate_size" in text,
    )


def _shared_width(text: Fields, expert_width: int) -> int:
    """Nemotron-H multiplies a given width by the count (``models/nemotron_h.py``), as does MiniMax-M3."""
    given = text.count(*_SHARED_WIDTHS)
    count = text.count(*_SHARED_COUNTS)
    if given:
        multiplied = "moe_shared_expert_intermediate_size" in text or "shared_intermediate_size" in text
        return given * (max(1, count) if multiplied else 1)
    if (text.name("model_type") or "").startswith("llama4"):  # always one (models/llama4.py)
        return expert_width
    return count * expert_width


def experts_block(experts: Experts, hidden: int) -> Block:
    """Router, routed and shared experts."""
    module, facts = experts.module, experts.facts
    weights = [
        Weight(f"{module}.gate", facts.experts, hidden, Part.OTHER, replicated=True, linear=False),
        vector(f"{module}.gate.bias", facts.experts),
        *_projections(
            f"{module}.experts.0",
            experts.hidden,
            facts.intermediate_size,
            Part.EXPERTS,
            gated=experts.gated,
            copies=facts.experts,
        ),
    ]
    if experts.hidden != hidden:
        weights += [
            replicated(f"{module}.fc1_latent_proj", hidden, experts.hidden, Part.SHARED),
            replicated(f"{module}.fc2_latent_proj", experts.hidden, hidden, Part.SHARED),
            vector(f"{module}.routed_expert_norm", experts.hidden),
        ]
    if experts.shared_width:
        weights += _projections(
            f"{module}.shared_experts", hidden, experts.shared_width, Part.SHARED, gated=experts.gated
        )
    if experts.shared_gate:
        weights.append(vector(f"{module}.shared_expert_gate", hidden))
    return Block(tuple(weights), widths=(experts.shared_width,) if experts.shared_width else ())


def sparse_layers(text: Fields, layers: int) -> Callable[[int], bool]:
    """Which layers have experts, by whichever of the many spellings the configuration uses."""
    kinds = text.names("mlp_layer_types")
    if kinds is not None:
        return lambda layer: layer < len(kinds) and kinds[layer] != "dense"
    frequencies = text.raw("moe_layer_freq")
    if isinstance(frequencies, list):
        flags = text.numbers("moe_layer_freq") or []
        return lambda layer: layer < len(flags) and flags[layer] != 0
    listed = _listed_layers(text)
    if listed is not None:
        return lambda layer: layer in listed
    if "interleave_moe_layer_step" in text:  # Llama 4
        step = max(1, text.count("interleave_moe_layer_step"))
        return lambda layer: (layer + 1) % step == 0
    if "expert_layer_period" in text:  # Jamba
        period, offset = text.required("expert_layer_period"), text.count("expert_layer_offset")
        return lambda layer: layer % period == offset
    if "moe_layer_interval" in text:  # ERNIE
        interval, start = text.required("moe_layer_interval"), text.count("moe_layer_start_index")
        end = text.count("moe_layer_end_index") or layers - 1
        return lambda layer: (layer + 1) % interval == 0 and start <= layer <= end
    first = text.count("first_k_dense_replace", "num_dense_layers", "n_dense_layers")
    every = max(1, text.count("moe_layer_freq", "decoder_sparse_step"))
    dense = frozenset(text.numbers("mlp_only_layers") or ())
    if "decoder_sparse_step" in text:  # Qwen: counted from 1
        return lambda layer: layer not in dense and (layer + 1) % every == 0
    return lambda layer: layer >= first and layer % every == 0


def _listed_layers(text: Fields) -> frozenset[int] | None:
    listed = text.numbers("moe_layers") if isinstance(text.raw("moe_layers"), list) else None
    if listed is not None:
        return frozenset(listed)
    enumerated = text.raw("moe_layers_enum")
    if isinstance(enumerated, str) and enumerated:  # Step 3: "4,5,6"
        return frozenset(int(entry) for entry in enumerated[:4096].split(",") if entry.strip().isdecimal())
    return None


def _projections(module: str, inputs: int, width: int, part: Part, *, gated: bool, copies: int = 1) -> list[Weight]:
    up = [column(f"{module}.gate_proj", inputs, width, part)] if gated else []
    up += [column(f"{module}.up_proj", inputs, width, part), column(f"{module}.down_proj", width, inputs, part)]
    if copies == 1:
        return up
    return [Weight(weight.name, weight.outputs, weight.inputs, part, copies=copies) for weight in up]


def _joined(first: Block, second: Block) -> Block:
    return Block(first.weights + second.weights, first.caches + second.caches, first.widths + second.widths)
