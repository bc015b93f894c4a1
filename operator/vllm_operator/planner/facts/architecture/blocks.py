"""What a model is made of, as the planner sees it: layers that keep something per request and hold weights."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from vllm_operator_api.model import Cache


class Part(StrEnum):
    """What a weight belongs to."""

    EMBEDDING = "embedding"
    HEAD = "head"
    ATTENTION = "attention"
    STATE = "state"
    """State-space and linear attention layers."""
    DENSE = "dense"
    EXPERTS = "experts"
    """Routed experts."""
    SHARED = "shared"
    """Experts that every token goes through."""
    OTHER = "other"
    """Norms, routers, biases."""
    ENCODER = "encoder"
    """Vision or audio."""


@dataclass(frozen=True, slots=True)
class Weight:
    """One weight of a layer, or ``copies`` alike ones."""

    name: str
    """As in the checkpoint, below the layer: ``self_attn.q_proj``. Of many experts the first one's."""
    outputs: int
    inputs: int
    part: Part
    copies: int = 1
    replicated: bool = False
    """Whole on every GPU of a tensor-parallel group."""
    linear: bool = True
    """A linear layer or experts: what a quantisation may cover."""

    @property
    def elements(self) -> int:
        """Parameters."""
        return self.outputs * self.inputs * self.copies


@dataclass(frozen=True, slots=True)
class Block:
    """A part of a layer: its attention (or state), or its feed-forward block."""

    weights: tuple[Weight, ...] = ()
    caches: tuple[Cache, ...] = ()
    widths: tuple[int, ...] = ()
    """Widths that tensor parallelism cuts: of dense feed-forward blocks and shared experts."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer of the model."""

    blocks: tuple[Block, ...]


def column(name: str, inputs: int, outputs: int, part: Part) -> Weight:
    """A linear layer that tensor parallelism cuts."""
    return Weight(name, outputs, inputs, part)


def replicated(name: str, inputs: int, outputs: int, part: Part) -> Weight:
    """A linear layer that every GPU holds whole."""
    return Weight(name, outputs, inputs, part, replicated=True)


def vector(name: str, elements: int) -> Weight:
    """A norm, a bias, a scale: never quantised, whole on every GPU."""
    return Weight(name, elements, 1, Part.OTHER, replicated=True, linear=False)
