"""kubectl against a control plane of a test."""

from __future__ import annotations

import subprocess
from pathlib import Path

from localk8s import binaries
from localk8s.paths import Layout


class KubectlError(Exception):
    """What kubectl wrote when it refused."""


class Kubectl:
    """kubectl as a cluster administrator."""

    def __init__(self, kubeconfig: Path) -> None:
        self._command = [str(binaries.ensure(Layout.default(), "kubectl")), f"--kubeconfig={kubeconfig}"]

    def __call__(self, *arguments: str, stdin: str | None = None) -> str:
        """Standard output; an error carries what kubectl wrote.

        Raises:
            KubectlError: kubectl ended with another status than 0.
        """
        done = subprocess.run(
            [*self._command, *arguments], input=stdin, capture_output=True, text=True, timeout=60, check=False
        )
        if done.returncode != 0:
            raise KubectlError(done.stderr)
        return done.stdout
