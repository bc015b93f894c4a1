"""Programs of the distribution: installed when missing, or unpacked beside the system.

A package whose installation would start a service (containerd) is only
unpacked; the others bring plain commands.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from localk8s import privilege
from localk8s.commands import run
from localk8s.console import step
from localk8s.errors import ClusterError
from localk8s.locks import file_lock
from localk8s.paths import Layout

SUPPORTED = "Debian 12 or Ubuntu 24.04"

# Debian package -> a program or file that proves it is there. The node's
# network is made with iproute2 and nftables (kube-proxy); the portmap CNI plugin and
# the kubelet call iptables; kube-proxy calls conntrack; pause is compiled with gcc.
NODE_PACKAGES: Mapping[str, str] = {
    "iproute2": "ip",
    "iptables": "iptables",
    "nftables": "nft",
    "conntrack": "conntrack",
    "runc": "runc",
    "containernetworking-plugins": "/usr/lib/cni/bridge",
    "openssl": "openssl",
    "gcc": "gcc",
    "libc6-dev": "/usr/include/stdio.h",
    "util-linux": "unshare",
    "mount": "mount",
}
INTEGRATION_PACKAGES: Mapping[str, str] = {"openssl": "openssl"}

_SBIN = "/usr/local/sbin:/usr/sbin:/sbin"


def search_path() -> str:
    """The search path with the administrator's directories, which a plain user's may lack."""
    return f"{os.environ.get('PATH', '/usr/local/bin:/usr/bin:/bin')}:{_SBIN}"


def missing(packages: Mapping[str, str]) -> list[str]:
    """The packages whose proof is absent."""
    absent = []
    for package, proof in packages.items():
        present = Path(proof).exists() if proof.startswith("/") else shutil.which(proof, path=search_path())
        if not present:
            absent.append(package)
    return absent


def install_missing(packages: Mapping[str, str]) -> None:
    """Install what is absent, with apt, without starting any service."""
    absent = missing(packages)
    if not absent:
        return
    _require_apt(absent)
    with step(f"apt-get install {' '.join(absent)}"):
        install = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "--yes", "--quiet"]
        install += ["--no-install-recommends", "-o", "DPkg::Lock::Timeout=300", *absent]
        with _NoServiceStarts():
            try:
                run(privilege.as_root(install), timeout=900)
            except ClusterError:
                run(privilege.as_root(["apt-get", "update", "--quiet"]), timeout=300)
                run(privilege.as_root(install), timeout=900)
    still = missing(packages)
    if still:
        raise ClusterError(f"installed, but still not found: {', '.join(still)}")


class _NoServiceStarts:
    """Make ``policy-rc.d`` (invoke-rc.d(8)) refuse service starts for the time of an installation.

    One that is there already is respected, unless an installation of ours that was killed left it.
    """

    _POLICY = Path("/usr/sbin/policy-rc.d")
    _MARK = "# made by localk8s for the time of one installation"

    def __enter__(self) -> None:
        self._made = not self._POLICY.exists() or self._MARK in self._POLICY.read_text(errors="replace")
        if self._made:
            script = f"printf '#!/bin/sh\\n{self._MARK}\\nexit 101\\n' > {self._POLICY} && chmod 755 {self._POLICY}"
            run(privilege.as_root(["sh", "-c", script]), timeout=30)

    def __exit__(self, *_: object) -> None:
        if self._made:
            run(privilege.as_root(["rm", "-f", str(self._POLICY)]), timeout=30)


def unpacked(layout: Layout, package: str) -> Path:
    """The directory that holds the files of ``package``, unpacked but not installed.

    The distribution decides the version; the directory is named after it, so a
    newer one in the archive is fetched only when the directory is absent.
    """
    home = layout.tools / f"deb-{package}"
    with file_lock(layout.locks / f"deb-{package}.lock"):
        if home.is_dir():
            return home
        _require_apt([package])
        layout.tools.mkdir(parents=True, exist_ok=True)
        with step(f"fetch the distribution's {package}"), tempfile.TemporaryDirectory(prefix="deb-") as scratch:
            # apt drops its rights to the user _apt, who has to be able to write here.
            Path(scratch).chmod(0o777)
            try:
                run(["apt-get", "download", "--quiet", package], cwd=Path(scratch), timeout=300)
            except ClusterError:
                run(privilege.as_root(["apt-get", "update", "--quiet"]), timeout=300)
                run(["apt-get", "download", "--quiet", package], cwd=Path(scratch), timeout=300)
            archives = list(Path(scratch).glob("*.deb"))
            if len(archives) != 1:
                raise ClusterError(f"apt-get download {package} left {len(archives)} packages")
            partial = layout.tools / f".deb-{package}.partial"
            shutil.rmtree(partial, ignore_errors=True)
            run(["dpkg", "-x", archives[0], partial], timeout=120)
            partial.rename(home)
    return home


def _require_apt(packages: list[str]) -> None:
    if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
        raise ClusterError(
            f"missing: {', '.join(packages)}, and there is no apt-get to install them.\n"
            f"The native cluster is made for {SUPPORTED}; elsewhere install Docker, and kind is used instead.",
            exit_code=2,
        )
