"""Login by a kubeconfig's ``exec`` plugin, as managed clusters use it: for commands that a person runs.

The plugin prints an ``ExecCredential`` (https://kubernetes.io/docs/reference/config-api/client-authentication.v1/).
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

_SECONDS: Final = 120.0
"""A plugin may ask a person to log in with a browser."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecCredential:
    """What a plugin gives: a token, a certificate with its key, or both."""

    token: str | None
    client_certificate: str | None
    client_key: str | None


def run_exec_plugin(settings: Mapping[str, Any], directory: Path) -> ExecCredential:
    """Run the plugin that ``users[].user.exec`` describes; ``directory`` is the kubeconfig's.

    Raises:
        ValueError: it is missing, fails, takes too long or prints no credential.
    """
    command = str(settings["command"])
    program = str(directory / command) if "/" in command and not Path(command).is_absolute() else command
    arguments = [str(argument) for argument in settings.get("args") or ()]
    environment = {**os.environ, **{str(e["name"]): str(e["value"]) for e in settings.get("env") or ()}}
    environment["KUBERNETES_EXEC_INFO"] = json.dumps(
        {"apiVersion": settings.get("apiVersion"), "kind": "ExecCredential", "spec": {"interactive": False}}
    )
    try:
        done = subprocess.run(
            [program, *arguments], env=environment, capture_output=True, timeout=_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ValueError(f"the login plugin {command} cannot be run: {error}") from error
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip()[-300:]
        raise ValueError(f"the login plugin {command} ended with exit code {done.returncode}: {said}")
    try:
        status = json.loads(done.stdout)["status"]
        credential = ExecCredential(
            token=status.get("token"),
            client_certificate=status.get("clientCertificateData"),
            client_key=status.get("clientKeyData"),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"the login plugin {command} prints no ExecCredential with a status") from error
    if credential.token is None and credential.client_certificate is None:
        raise ValueError(f"the login plugin {command} gives neither a token nor a certificate")
    return credential
