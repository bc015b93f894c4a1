"""mount(2), for the private mount namespace of the native node."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

# <linux/mount.h>
MS_BIND = 0x1000
MS_REC = 0x4000
MS_SHARED = 1 << 20
MNT_DETACH = 2

_libc = ctypes.CDLL(None, use_errno=True)


def _mount(source: str, target: str, kind: str | None, flags: int, options: str | None) -> None:
    failed = _libc.mount(
        source.encode(),
        target.encode(),
        kind.encode() if kind else None,
        ctypes.c_ulong(flags),
        options.encode() if options else None,
    )
    if failed:
        code = ctypes.get_errno()
        raise OSError(code, f"mount {source} on {target}: {os.strerror(code)}")


def tmpfs(target: str, mode: str = "755") -> None:
    """A new tmpfs on ``target``."""
    _mount("tmpfs", target, "tmpfs", 0, f"mode={mode}")


def share_all() -> None:
    """Make every mount shared within this namespace: the kubelet hands mounts on to containers."""
    _mount("none", "/", None, MS_REC | MS_SHARED, None)


def bind_fd(fd: int, target: str) -> None:
    """Bind the directory open at ``fd`` on ``target``, even when its path is covered by another mount by now."""
    _mount(f"/proc/self/fd/{fd}", target, None, MS_BIND | MS_REC, None)


def points_below(directory: Path, mountinfo: str) -> list[Path]:
    """The mount points strictly below ``directory``, innermost first, from the text of /proc/self/mountinfo."""
    points = {Path(line.split()[4]) for line in mountinfo.splitlines()}
    return sorted((p for p in points if p != directory and p.is_relative_to(directory)), reverse=True)


def detach(target: Path) -> None:
    """Unmount ``target`` lazily."""
    if _libc.umount2(str(target).encode(), MNT_DETACH):
        code = ctypes.get_errno()
        raise OSError(code, f"unmount {target}: {os.strerror(code)}")


def bind(source: Path, target: Path) -> None:
    """Bind a file or directory over another."""
    _mount(str(source), str(target), None, MS_BIND, None)
