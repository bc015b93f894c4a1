"""The chart, rendered by helm without a cluster."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from localk8s import binaries
from localk8s.paths import Layout

CHART = Path(__file__).resolve().parents[2] / "charts" / "vllm-operator"
RELEASE = "vllm-operator"
NAMESPACE = "vllm-operator-system"

Manifest = dict[str, Any]


class HelmError(Exception):
    """helm refused; the text is what it wrote."""


@cache
def helm_binary() -> Path:
    return binaries.ensure(Layout.default(), "helm")


def helm(*arguments: str, kubeconfig: Path | None = None) -> str:
    """Standard output of one helm command.

    Raises:
        HelmError: it failed.
    """
    environment = {"HOME": "/nonexistent", "PATH": "/usr/bin:/bin", "KUBECONFIG": str(kubeconfig or "/nonexistent")}
    done = subprocess.run(
        [helm_binary(), *arguments], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    if done.returncode != 0:
        raise HelmError(done.stderr)
    return done.stdout


def render_text(*settings: str, release: str = RELEASE, namespace: str = NAMESPACE) -> str:
    """``helm template`` with ``settings`` as in ``--set``."""
    flags = [flag for setting in settings for flag in ("--set", setting)]
    return helm("template", release, str(CHART), "--namespace", namespace, *flags)


@cache
def render(*settings: str, release: str = RELEASE, namespace: str = NAMESPACE) -> tuple[Manifest, ...]:
    """The chart's manifests. Rendered once for equal arguments: do not change what is returned."""
    documents = yaml.load_all(render_text(*settings, release=release, namespace=namespace), Loader=yaml.CSafeLoader)
    return tuple(document for document in documents if document)


def of_kind(manifests: tuple[Manifest, ...], kind: str) -> list[Manifest]:
    return [manifest for manifest in manifests if manifest["kind"] == kind]


def one(manifests: tuple[Manifest, ...], kind: str, name: str) -> Manifest:
    """The only manifest of this kind and name."""
    (found,) = (manifest for manifest in of_kind(manifests, kind) if manifest["metadata"]["name"] == name)
    return found
