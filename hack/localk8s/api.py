"""The few calls to a Kubernetes API server that bringing one up takes."""

from __future__ import annotations

import http.client
import json
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from localk8s.errors import ClusterError

JSON = "application/json"
JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"  # JSON is YAML


class ApiError(ClusterError):
    """The server answered with an error status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"API server: {status} {message}")
        self.status = status


class ApiClient:
    """Blocking JSON requests with a bearer token to one API server, whose certificate is checked."""

    def __init__(self, server_url: str, ca_file: Path, token: str) -> None:
        self._server_url = server_url
        self._ca_file = ca_file
        self._token = token
        self._context: ssl.SSLContext | None = None

    def request(
        self, method: str, path: str, body: object | None = None, *, content_type: str = JSON, timeout: float = 10
    ) -> dict[str, Any]:
        """One request; the decoded answer, or ``ApiError`` for a status of 400 and above.

        A server that cannot be reached raises ``OSError``.
        """
        raw = self._raw(method, path, body, content_type, timeout)
        decoded = json.loads(raw) if raw else {}
        if not isinstance(decoded, dict):
            raise ClusterError(f"API server: {method} {path} answered something other than an object")
        return decoded

    def ready(self, path: str = "/readyz") -> bool:
        """Whether the server is there and says it is ready."""
        try:
            self._raw("GET", path, None, JSON, 2.0)
        except (OSError, ApiError, http.client.HTTPException):
            return False
        return True

    def exists(self, path: str) -> bool:
        """Whether the object at ``path`` is there; False also while the server is not."""
        try:
            self.request("GET", path)
        except (OSError, ApiError, http.client.HTTPException):
            return False
        return True

    def apply(self, path: str, manifest: dict[str, Any]) -> dict[str, Any]:
        """Server-side apply of ``manifest`` at ``path``."""
        return self.request("PATCH", f"{path}?fieldManager=localk8s&force=true", manifest, content_type=APPLY_PATCH)

    def _raw(self, method: str, path: str, body: object | None, content_type: str, timeout: float) -> bytes:
        if self._context is None:
            # Not at construction: the server writes its certificate when it starts. No system trust store, no proxy.
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            self._context.load_verify_locations(cafile=str(self._ca_file))
        request = urllib.request.Request(
            self._server_url + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {self._token}", "Content-Type": content_type, "Accept": JSON},
        )
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=self._context)
        )
        try:
            with opener.open(request, timeout=timeout) as response:
                data = response.read()
        except urllib.error.HTTPError as error:
            raise ApiError(error.code, _message(error.read())) from None
        if not isinstance(data, bytes):
            raise ClusterError("API server: no bytes in the answer")
        return data


def _message(body: bytes) -> str:
    try:
        status = json.loads(body)
    except ValueError:
        return body[:300].decode(errors="replace")
    return str(status.get("message", status)) if isinstance(status, dict) else str(status)


def wait_until(condition: Callable[[], bool], seconds: float, what: str, *, interval: float = 0.05) -> None:
    """Poll ``condition``; ``ClusterError`` naming ``what`` when it stays false for ``seconds``."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise ClusterError(f"timed out after {seconds:.0f} s waiting for {what}")
        time.sleep(interval)
