"""What of the client needs no server: paths and errors."""

from __future__ import annotations

import pytest

from vllm_operator.kube.aiohttp_client import AiohttpKubeClient, error_of, path_of
from vllm_operator.kube.connection import Connection
from vllm_operator.kube.errors import (
    AlreadyExistsError,
    ConflictError,
    KubeError,
    NotFoundError,
    RetryableError,
    TerminalError,
)
from vllm_operator.kube.kinds import DEPLOYMENT, LLM_SERVICE, NODE, POD, Kind, ObjectRef


@pytest.mark.parametrize(
    ("kind", "namespace", "name", "subresource", "path"),
    [
        (POD, "ns", "p", None, "/api/v1/namespaces/ns/pods/p"),
        (POD, "", "", None, "/api/v1/pods"),
        (NODE, "", "n", None, "/api/v1/nodes/n"),
        (DEPLOYMENT, "ns", "", None, "/apis/apps/v1/namespaces/ns/deployments"),
        (
            LLM_SERVICE,
            "ns",
            "s",
            "status",
            "/apis/inference.vllm-operator.io/v1alpha1/namespaces/ns/llmservices/s/status",
        ),
        (POD, "ns", "../x", None, "/api/v1/namespaces/ns/pods/..%2Fx"),
    ],
)
def test_paths(kind: Kind, namespace: str, name: str, subresource: str | None, path: str) -> None:
    assert path_of(kind, namespace, name, subresource) == path


@pytest.mark.parametrize(
    ("status", "reason", "want"),
    [
        (404, "NotFound", NotFoundError),
        (409, "Conflict", ConflictError),
        (409, "AlreadyExists", AlreadyExistsError),
        (429, "TooManyRequests", RetryableError),
        (500, "", RetryableError),
        (503, "", RetryableError),
        (400, "BadRequest", TerminalError),
        (401, "Unauthorized", TerminalError),
        (403, "Forbidden", TerminalError),
        (410, "Expired", TerminalError),
        (422, "Invalid", TerminalError),
    ],
)
def test_errors(status: int, reason: str, want: type[KubeError]) -> None:
    error = error_of(status, {"reason": reason, "message": "m" * 9000}, "get Pod p")
    assert type(error) is want
    assert (error.status, error.reason, len(error.message)) == (status, reason, 2048)


def test_an_error_without_words_gets_some() -> None:
    assert error_of(502, {}, "get Pod p").message == "get Pod p: HTTP 502"


async def test_a_stopped_client_is_retryable() -> None:
    client = AiohttpKubeClient(Connection(server="http://127.0.0.1:1"), user_agent="test")
    with pytest.raises(RetryableError, match="not started"):
        await client.get(ObjectRef("Pod", "ns", "p"))
