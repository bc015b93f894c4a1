"""Which rows an agent sends to the engine: two endpoints, and of a request's fields the harmless ones.

A row's author is not the service's: fields that name code, templates, grammars or other requests' data never reach
the engine.
"""

from __future__ import annotations

from typing import Any, Final

from vllm_operator_api.queue import RowError

CHAT: Final = "/v1/chat/completions"
EMBEDDINGS: Final = "/v1/embeddings"

ALLOWED_FIELDS: Final[dict[str, frozenset[str]]] = {
    CHAT: frozenset({
        "model", "messages", "temperature", "top_p", "top_k", "min_p", "n", "max_tokens", "max_completion_tokens",
        "min_tokens", "stop", "seed", "presence_penalty", "frequency_penalty", "repetition_penalty", "logprobs",
        "top_logprobs", "ignore_eos",
    }),
    EMBEDDINGS: frozenset({"model", "input", "dimensions", "encoding_format"}),
}  # fmt: skip


def refuse(endpoint: str, body: dict[str, Any]) -> RowError | None:
    """Why a row is not sent, or None."""
    allowed = ALLOWED_FIELDS.get(endpoint)
    if allowed is None:
        return RowError(code="invalid_request", message=f"rows for {endpoint[:200]!r} are not run")
    unknown = sorted(body.keys() - allowed)
    if unknown:
        names = ", ".join(name[:64] for name in unknown[:8])
        return RowError(code="invalid_request", message=f"not allowed in a row's request: {names}")
    return None
