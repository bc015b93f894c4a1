"""Where things lie: the cache of built artefacts and the state of the cluster.

Everything is below one directory outside the source tree, so that a second
clone or a clean checkout finds what was built before.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

HACK_DIR = Path(__file__).resolve().parent.parent


def default_cache_root() -> Path:
    """``$VLLM_OPERATOR_CACHE``, else the XDG cache directory of the user."""
    explicit = os.environ.get("VLLM_OPERATOR_CACHE")
    if explicit:
        return Path(explicit).absolute()
    xdg = os.environ.get("XDG_CACHE_HOME")
    base = Path(xdg) if xdg else Path.home() / ".cache"
    return base.absolute() / "vllm-operator"


@dataclass(frozen=True)
class Layout:
    """The directories below the cache root."""

    root: Path

    @classmethod
    def default(cls) -> Layout:
        """The layout of this user, from the environment."""
        return cls(default_cache_root())

    @property
    def bin(self) -> Path:
        """Programs, each at ``<name>-<version>/<name>``."""
        return self.root / "bin"

    @property
    def locks(self) -> Path:
        """Lock files; kept for ever, they are empty."""
        return self.root / "locks"

    @property
    def tools(self) -> Path:
        """Unpacked toolchains and distribution packages."""
        return self.root / "tools"

    @property
    def cluster(self) -> Path:
        """State of the local cluster."""
        return self.root / "cluster"

    @property
    def kubeconfig(self) -> Path:
        """Cluster-admin kubeconfig of the running cluster."""
        return self.cluster / "kubeconfig"

    @property
    def logs(self) -> Path:
        """One log file per component of the native node."""
        return self.cluster / "logs"

    @property
    def containerd(self) -> Path:
        """The store of containerd: images survive ``down`` here."""
        return self.cluster / "containerd"

    @property
    def node(self) -> Path:
        """Everything of the native node that does not outlive it."""
        return self.cluster / "node"
