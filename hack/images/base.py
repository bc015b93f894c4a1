"""The base image of native builds: Debian's minimal system with Python, in place of the official `python` image."""

from __future__ import annotations

import shutil
from pathlib import Path

from localk8s import privilege, system_packages, versions
from localk8s.commands import run
from localk8s.console import step
from localk8s.locks import file_lock
from localk8s.paths import Layout

_PACKAGES = ("python3", "python3-venv", "ca-certificates")
# What a running container never reads; `python3 -m venv` needs /usr/share/python-wheels, licences stay.
_DROPPED = (
    "var/cache/apt", "var/lib/apt/lists", "var/log", "usr/share/doc", "usr/share/info", "usr/share/locale",
    "usr/share/lintian", "usr/share/man",
)  # fmt: skip
_BUILDER: dict[str, str] = {
    "debootstrap": "debootstrap",
    "debian-archive-keyring": "/usr/share/keyrings/debian-archive-keyring.gpg",
}


def base_version() -> str:
    """What names the base: release and revision of its recipe."""
    pinned = versions.load()
    return f"{pinned['BASE_SUITE']}-{pinned['BASE_REVISION']}"


def ensure_base(layout: Layout) -> Path:
    """The base's root file system as a tar, made when it is absent (under a minute)."""
    output = layout.root / "images" / f"base-{base_version()}.tar"
    if output.exists():
        return output
    with file_lock(layout.locks / "images-base.lock"):
        if output.exists():
            return output
        system_packages.install_missing(_BUILDER)
        root = layout.root / "images" / f".base-{base_version()}"
        run(privilege.as_root(["rm", "-rf", root]))
        output.parent.mkdir(parents=True, exist_ok=True)
        suite = versions.version("BASE_SUITE")
        with step(f"debootstrap {suite}"):
            include = ",".join(_PACKAGES)
            run(
                privilege.as_root(["debootstrap", "--variant=minbase", f"--include={include}", suite, root]),
                timeout=1200,
            )
        for name in _DROPPED:
            run(privilege.as_root(["find", root / name, "-mindepth", "1", "-not", "-type", "d", "-delete"]))
        partial = output.with_suffix(".partial")
        run(privilege.as_root(["tar", "--numeric-owner", "--sort=name", "-C", root, "-cf", partial, "."]), timeout=300)
        shutil.move(partial, output)
        run(privilege.as_root(["rm", "-rf", root]))
    return output
