"""Facts that the user gives (``spec.model.facts``), over what was read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from vllm_operator.planner.facts.config import model_facts
from vllm_operator.planner.facts.document import parse_json
from vllm_operator.planner.facts.errors import invalid
from vllm_operator.planner.facts.mistral import from_mistral, is_mistral
from vllm_operator.planner.facts.weights import MAX_BYTES, LoadedWeights
from vllm_operator_api.model import ModelFacts, WeightFacts, WeightsSource
from vllm_operator_api.quantities import BYTES_PER_GIB

SOURCE: Final = "spec.model.facts"
_KNOWN: Final = frozenset({"weightsGiB", "config"})


def apply_override(facts: ModelFacts | None, override: Mapping[str, Any]) -> ModelFacts:
    """``facts`` with what ``override`` gives: ``weightsGiB``, the size of the weights that vLLM loads, and ``config``,
    a ``config.json`` as text or as an object, which replaces all that was read.

    Raises:
        ModelError: a value is none that a model can have, or nothing gives the shapes.
    """
    unknown = sorted(set(override) - _KNOWN)
    if unknown:
        invalid(f"{unknown[0][:50]} is no fact that can be given; {' and '.join(sorted(_KNOWN))} can")
    weights_bytes = _bytes(override.get("weightsGiB"))
    config = override.get("config")
    if config is not None:
        given = None
        if weights_bytes is not None:
            given = LoadedWeights(total_bytes=weights_bytes, source=WeightsSource.GIVEN)
        return model_facts(_config(config), source=SOURCE, weights=given)
    if facts is None:
        invalid("config is missing: the shapes of the model are not known otherwise")
    return facts if weights_bytes is None else replace(facts, weights=_scaled(facts.weights, weights_bytes))


def _bytes(gib: Any) -> int | None:
    if gib is None:
        return None
    if isinstance(gib, bool) or not isinstance(gib, int | float) or not 0 < gib <= MAX_BYTES / BYTES_PER_GIB:
        invalid(f"weightsGiB={str(gib)[:50]} is no size that weights have")
    return max(1, int(gib * BYTES_PER_GIB))


def _config(config: Any) -> dict[str, Any]:
    if isinstance(config, str):
        config = parse_json(config.encode(), "config")
    if not isinstance(config, Mapping):
        invalid(f"config is a {type(config).__name__}; it must be the content of a config.json")
    return from_mistral(config) if is_mistral(config) else dict(config)


def _scaled(weights: WeightFacts, total: int) -> WeightFacts:
    def scaled(part: int) -> int:
        return min(total, part * total // weights.total_bytes)

    return WeightFacts(
        total_bytes=total,
        source=WeightsSource.GIVEN,
        embedding_bytes=scaled(weights.embedding_bytes),
        head_bytes=scaled(weights.head_bytes),
        expert_bytes=scaled(weights.expert_bytes),
        replicated_bytes=scaled(weights.replicated_bytes),
        encoder_bytes=scaled(weights.encoder_bytes),
    )
