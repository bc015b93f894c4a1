"""Facts from the documents of a model, wherever they were read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from vllm_operator.planner.facts.architecture.layers import layer_count
from vllm_operator.planner.facts.config import model_facts
from vllm_operator.planner.facts.document import parse_json
from vllm_operator.planner.facts.gguf import GUESS, read_gguf
from vllm_operator.planner.facts.mistral import from_mistral, is_mistral
from vllm_operator.planner.facts.text_config import text_fields
from vllm_operator.planner.facts.weights import LoadedWeights
from vllm_operator_api.model import ModelFacts, WeightsSource


@dataclass(frozen=True, slots=True)
class Documents:
    """A model's configuration, parsed."""

    config: Mapping[str, Any]
    """In the names of a ``config.json``."""
    quantization: Mapping[str, Any] | None = None

    @property
    def layers(self) -> int:
        """Layers of the model; what comes after them in the checkpoint is for multi-token prediction."""
        return layer_count(text_fields(self.config))


def read_documents(config: bytes, name: str, quantization: bytes | None, quantization_name: str | None) -> Documents:
    """The documents from their files' bytes.

    Raises:
        ModelError: one is not JSON, or too large.
    """
    document = parse_json(config, name)
    if is_mistral(document):
        document = from_mistral(document)
    separate = None if quantization is None else parse_json(quantization, quantization_name or "")
    return Documents(document, separate)


def assemble(documents: Documents, weights: LoadedWeights, *, source: str, revision: str | None = None) -> ModelFacts:
    """The facts.

    Raises:
        ModelError: the configuration is none that the planner understands.
    """
    return model_facts(
        documents.config, source=source, weights=weights, revision=revision, hf_quant_config=documents.quantization
    )


def assemble_gguf(header: bytes, name: str, file_bytes: int, *, source: str, revision: str | None = None) -> ModelFacts:
    """The facts of a GGUF model from the beginning of its (first) file.

    Raises:
        ModelError: the header is none that is understood.
    """
    found = read_gguf(header, name)
    weights = LoadedWeights(total_bytes=max(found.tensor_bytes, 1), source=WeightsSource.HEADERS)
    if file_bytes > found.tensor_bytes * 2:  # of several parts only the first was read
        weights = LoadedWeights(total_bytes=file_bytes, source=WeightsSource.FILES)
    facts = model_facts(found.config, source=source, weights=weights, revision=revision)
    return replace(facts, guesses=(GUESS, *facts.guesses)[:8])
