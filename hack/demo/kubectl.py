"""kubectl as a subprocess."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

Found = TypeVar("Found")


class KubectlError(RuntimeError):
    """kubectl ended with an error; the text is what it printed."""


class Kubectl:
    """kubectl with a fixed kubeconfig and namespace. Every call has a timeout in seconds."""

    def __init__(self, binary: str, kubeconfig: Path, namespace: str = "default") -> None:
        self.binary = binary
        self.kubeconfig = kubeconfig
        self.namespace = namespace

    def command(self, *args: str) -> list[str]:
        """The full command line for ``args``."""
        return [self.binary, f"--kubeconfig={self.kubeconfig}", f"--namespace={self.namespace}", *args]

    def __call__(self, *args: str, stdin: str | None = None, timeout: float = 120.0) -> str:
        """Run and return standard output.

        Raises:
            KubectlError: exit status other than 0, with both outputs.
        """
        done = subprocess.run(
            self.command(*args), input=stdin, capture_output=True, text=True, timeout=timeout, check=False
        )
        if done.returncode != 0:
            raise KubectlError(f"kubectl {' '.join(args)}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def json(self, *args: str) -> Any:
        """Run with ``-o json`` and return the parsed answer."""
        return json.loads(self(*args, "-o", "json"))

    def get(self, resource: str, name: str) -> dict[str, Any] | None:
        """One object, None when it does not exist."""
        text = self("get", resource, name, "-o", "json", "--ignore-not-found")
        return json.loads(text) if text.strip() else None

    def items(self, resource: str, selector: str = "") -> list[dict[str, Any]]:
        """All objects of a resource in the namespace."""
        found: list[dict[str, Any]] = self.json("get", resource, *(["-l", selector] if selector else []))["items"]
        return found

    def apply(self, manifest: str | dict[str, Any] | list[dict[str, Any]]) -> str:
        """Apply YAML or JSON."""
        if isinstance(manifest, list):
            manifest = {"apiVersion": "v1", "kind": "List", "items": manifest}
        text = manifest if isinstance(manifest, str) else json.dumps(manifest)
        return self("apply", "-f", "-", stdin=text)

    def wait(self, condition: str, *objects: str, timeout_seconds: int = 300) -> str:
        """``kubectl wait --for=<condition>``."""
        return self(
            "wait", f"--for={condition}", *objects, f"--timeout={timeout_seconds}s", timeout=timeout_seconds + 30
        )


def eventually(
    probe: Callable[[], Found | None], *, what: str, timeout_seconds: float, every_seconds: float = 0.5
) -> Found:
    """Call ``probe`` until it returns something true.

    Raises:
        TimeoutError: it did not in time; the message names ``what`` and the last error.
    """
    deadline = time.monotonic() + timeout_seconds
    last = ""
    while True:
        try:
            found = probe()
        except KubectlError as error:
            found, last = None, f" (last error: {error})"
        if found:
            return found
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {timeout_seconds:.0f} s for {what}{last}")
        time.sleep(every_seconds)


def condition(manifest: dict[str, Any] | None, condition_type: str) -> dict[str, Any]:
    """A condition of an object's status; empty when it has none of that type."""
    conditions = ((manifest or {}).get("status") or {}).get("conditions") or []
    return next((entry for entry in conditions if entry["type"] == condition_type), {})
