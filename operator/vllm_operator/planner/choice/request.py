"""What the planner is asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from vllm_operator.planner.engine_settings import EngineSettings

BATCHED_TOKENS_CANDIDATES: Final = (8192, 2048)
"""Values of --max-num-batched-tokens, the first that fits: vLLM's own defaults for large and for small GPUs
(``engine/arg_utils.py: get_batch_defaults``)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenLayout:
    """Degrees that the user has set; None: the planner chooses."""

    tensor: int | None = None
    pipeline: int | None = None
    data: int | None = None
    expert_parallel: bool | None = None

    @property
    def anything(self) -> bool:
        """Whether the user has set one."""
        return (self.tensor, self.pipeline, self.data, self.expert_parallel) != (None, None, None, None)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRequest:
    """Everything that a choice depends on beside the model and the pools."""

    resource_name: str
    settings: EngineSettings
    """With the ``batched_tokens`` that the user has given; see ``batched_tokens_candidates``."""
    batched_tokens_candidates: tuple[int, ...] = BATCHED_TOKENS_CANDIDATES
    """Tried in this order, largest first; one when the user has given it."""
    given: GivenLayout = GivenLayout()
    products: tuple[str, ...] = ()
    """Allowed products, the preferred first; empty: any."""
    min_concurrency: int = 1
    """Requests of full length that the KV cache must hold at once."""
    max_gpus_per_pod: int | None = None
    allow_multi_node: bool = False
    vllm_version: str = ""
    observed_overheads: Mapping[str, int] = field(default_factory=dict)
    """Bytes per GPU by ``calibration.overhead_key``: what engines were seen to use."""
