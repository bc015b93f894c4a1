"""``vllm-operator model-facts``: reads a model's facts in a short Job in the user's namespace.

The result is the container's termination message, whatever it is. Exit code 0 says that reading again would tell the
same (facts, or a fault of the user's); 1 that it may pass, so that the Job tries again.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from vllm_operator.planner.facts import ModelError
from vllm_operator.planner.facts_directory import TransientModelError, read_directory
from vllm_operator.planner.facts_hub import read_hub
from vllm_operator_api.runtime import (
    MAX_TERMINATION_MESSAGE_BYTES,
    MODEL_FACTS_CONFIG_ENV,
    MODEL_MOUNT_PATH,
    TERMINATION_MESSAGE_PATH,
    ModelFacts,
    ModelFactsConfig,
    ModelFactsError,
    ModelFactsResult,
)

_MAX_MESSAGE: Final = 800
"""Characters: well below the kubelet's limit, even if each needs four bytes."""


def run() -> int:
    """Read as the environment says and write the termination message. Returns the exit code."""
    text = os.environ.get(MODEL_FACTS_CONFIG_ENV, "")
    try:
        config = ModelFactsConfig.model_validate_json(text)
    except ValidationError as error:
        sys.stderr.write(f"{MODEL_FACTS_CONFIG_ENV} is not a ModelFactsConfig: {error}\n")
        return 2
    return read_and_report(config, root=Path(MODEL_MOUNT_PATH), report=Path(TERMINATION_MESSAGE_PATH))


def read_and_report(config: ModelFactsConfig, *, root: Path, report: Path) -> int:
    """Read the model and write the ``ModelFactsResult`` to ``report``."""
    code = 0
    try:
        result = ModelFactsResult(facts=_read(config, root))
    except TransientModelError as error:
        result, code = _failure(error), 1
    except ModelError as error:
        result = _failure(error)
    document = result.model_dump_json(exclude_none=True).encode()[:MAX_TERMINATION_MESSAGE_BYTES]
    report.write_bytes(document)
    sys.stdout.write(document.decode(errors="replace") + "\n")
    return code


def _read(config: ModelFactsConfig, root: Path) -> ModelFacts:
    if config.path is not None:
        return read_directory(Path(config.path), root)
    return read_hub(config.hub_repository or "", config.hub_revision, config.hub_endpoint)


def _failure(error: ModelError) -> ModelFactsResult:
    return ModelFactsResult(error=ModelFactsError(reason=error.reason.value, message=error.message[:_MAX_MESSAGE]))
