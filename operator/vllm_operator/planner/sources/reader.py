"""``vllm-operator model-facts``: reads a model's facts in a short Job in the user's namespace.

The result is the container's termination message, whatever it is. Exit code 0 says that reading again at once would
tell the same (facts, a fault of the user's, a hub that asks to wait); 1 that it may pass, so that the Job tries again.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from vllm_operator.planner.facts.errors import ModelError, TransientModelError
from vllm_operator.planner.sources.builtin import builtin_facts
from vllm_operator.planner.sources.directory import read_directory
from vllm_operator.planner.sources.hub import read_hub
from vllm_operator.planner.sources.hub_client import HubUnreachableError
from vllm_operator_api.conditions import Reason
from vllm_operator_api.model import ModelFacts
from vllm_operator_api.runtime import (
    MAX_TERMINATION_MESSAGE_BYTES,
    MODEL_FACTS_CONFIG_ENV,
    MODEL_MOUNT_PATH,
    TERMINATION_MESSAGE_PATH,
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
        document = _message(ModelFactsResult(facts=_read(config, root)))
    except TransientModelError as error:
        document, code = _message(_failure(error)), 0 if error.reason is Reason.HUB_RATE_LIMITED else 1
    except ModelError as error:
        document = _message(_failure(error))
    report.write_bytes(document)
    sys.stdout.write(document.decode(errors="replace") + "\n")
    return code


def _message(result: ModelFactsResult) -> bytes:
    """The termination message.

    Raises:
        ModelError: the facts are longer than the kubelet takes; cut, they would be none.
    """
    document = result.model_dump_json(exclude_none=True).encode()
    if len(document) > MAX_TERMINATION_MESSAGE_BYTES:
        raise ModelError(
            Reason.MODEL_CONFIG_INVALID,
            f"the model's layers are of so many kinds that their description has {len(document)} bytes; "
            f"at most {MAX_TERMINATION_MESSAGE_BYTES} can be reported",
        )
    return document


def _read(config: ModelFactsConfig, root: Path) -> ModelFacts:
    if config.path is not None:
        return read_directory(Path(config.path), root)
    repository = config.hub_repository or ""
    token_file = Path(config.hub_token_file) if config.hub_token_file is not None else None
    try:
        return read_hub(repository, config.hub_revision, config.hub_endpoint, token_file)
    except HubUnreachableError as error:
        known = builtin_facts(repository, error.message)
        if known is None:
            raise
        return known


def _failure(error: ModelError) -> ModelFactsResult:
    wait = error.retry_after_seconds if isinstance(error, TransientModelError) else None
    return ModelFactsResult(
        error=ModelFactsError(reason=error.reason.value, message=error.message[:_MAX_MESSAGE], retry_after_seconds=wait)
    )
