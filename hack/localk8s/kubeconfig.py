"""Kubeconfig files with a bearer token."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path

CONTEXT = "vllm-operator"


def render(server_url: str, ca_pem: bytes, token: str, *, context: str = CONTEXT, user: str = "admin") -> str:
    """A kubeconfig with one context; JSON, which every reader of YAML takes."""
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": context,
        "clusters": [
            {
                "name": context,
                "cluster": {
                    "server": server_url,
                    "certificate-authority-data": base64.b64encode(ca_pem).decode("ascii"),
                },
            }
        ],
        "users": [{"name": user, "user": {"token": token}}],
        "contexts": [{"name": context, "context": {"cluster": context, "user": user}}],
    }
    return json.dumps(document, indent=2) + "\n"


def write(path: Path, text: str, owner: tuple[int, int] | None = None) -> None:
    """Write ``text`` whole or not at all, readable by its owner only."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(fd, "w", encoding="utf-8") as stream:
        stream.write(text)
    if owner is not None:
        os.chown(partial, *owner)
    partial.replace(path)
