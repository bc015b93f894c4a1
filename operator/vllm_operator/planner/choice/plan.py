"""What the planner answers."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from vllm_operator.planner.engine_settings import EngineSettings
from vllm_operator.planner.inventory.pool import GpuPool
from vllm_operator.planner.layout import Layout
from vllm_operator.planner.memory.use import MemoryUse
from vllm_operator.planner.problem import Considered


class Confidence(StrEnum):
    """How far a prediction can be trusted."""

    HIGH = "High"
    """An engine with these settings was seen, or the size of the KV cache is given: token-exact."""
    MEDIUM = "Medium"
    """Everything is known; activations and CUDA graphs are estimated."""
    LOW = "Low"
    """Something of the model or the engine is not known and was estimated from above."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A layout that is legal and fits."""

    layout: Layout
    settings: EngineSettings
    """As asked, with the chosen ``batched_tokens``."""
    pools: tuple[GpuPool, ...]
    """Where the layout fits, the best first."""
    planned_for: GpuPool
    """The one of them with the least to spare; ``use`` is predicted for it."""
    use: MemoryUse
    legal_tensor: tuple[int, ...]
    considered: tuple[Considered, ...]
    reason: str
    confidence: Confidence
