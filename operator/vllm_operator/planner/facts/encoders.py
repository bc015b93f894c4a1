"""Estimated weights of the encoders for pictures and sound."""

from __future__ import annotations

from typing import Final

from vllm_operator.planner.facts.architecture.blocks import Part, Weight
from vllm_operator.planner.facts.fields import Fields

_HIDDEN: Final = ("vt_hidden_size", "hidden_size", "embed_dim", "d_model", "width")
_LAYERS: Final = ("vt_num_hidden_layers", "depth", "num_hidden_layers", "encoder_layers", "layers", "num_layers")
_WIDTH: Final = ("vt_intermediate_size", "intermediate_size", "encoder_ffn_dim", "mlp_dim")
_OUTPUT: Final = ("out_hidden_size", "text_hidden_size", "projection_dim")
_MERGED: Final = 4
"""Patches that become one token: 2 x 2, as ``spatial_merge_size`` mostly is."""
_GATED: Final = frozenset({"silu", "swiglu"})


def encoder_weights(sections: list[Fields], hidden: int) -> list[Weight]:
    """A transformer per encoder, its patch embedding, and a projector of two layers onto the ``hidden`` size."""
    weights: list[Weight] = []
    for number, section in enumerate(sections):
        width, layers = section.number(*_HIDDEN), section.number(*_LAYERS)
        if width is None or layers is None or layers > 256:
            continue
        inner = section.number(*_WIDTH) or 4 * width
        matrices = 3 if section.name("hidden_act") in _GATED else 2
        output = section.number(*_OUTPUT) or hidden
        patch = (section.number("patch_size") or 14) ** 2 * 3 * (section.number("temporal_patch_size") or 1)
        deep = section.entries("deepstack_visual_indexes") or []
        merged = width * _MERGED
        projector = merged * merged + merged * output
        name = f"encoder.{number}"
        weights += [
            _weight(f"{name}.blocks", layers * (4 * width + matrices * inner), width),
            _weight(f"{name}.patch_embed", min(patch, 10**6), width),
            _weight(f"{name}.position", section.number("num_position_embeddings") or 1024, width),
            _weight(f"{name}.projector", projector * (1 + len(deep)), 1),
        ]
    return weights


def _weight(name: str, outputs: int, inputs: int) -> Weight:
    return Weight(name, outputs, inputs, Part.ENCODER, linear=False)
