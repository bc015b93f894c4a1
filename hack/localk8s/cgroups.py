"""The control group below which the kubelet keeps its pods, on cgroup v1 (also hybrid) and v2."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

from localk8s.errors import ClusterError

_V2_CONTROLLERS = ("cpu", "cpuset", "memory", "pids", "io", "hugetlb")


def hierarchies(mountinfo: str) -> list[tuple[Path, int]]:
    """(mount point, version) of the hierarchies that carry controllers, from /proc/self/mountinfo.

    With any v1 hierarchy present the v2 one of a hybrid machine is left out:
    the kubelet and runc then work on v1.
    """
    found: list[tuple[Path, int]] = []
    for line in mountinfo.splitlines():
        before, separator, after = line.partition(" - ")
        if not separator:
            continue
        point, kind = Path(before.split()[4]), after.split()[0]
        if kind in ("cgroup", "cgroup2"):
            found.append((point, 1 if kind == "cgroup" else 2))
    if any(version == 1 for _, version in found):
        return [entry for entry in found if entry[1] == 1]
    return found


def _current() -> list[tuple[Path, int]]:
    return hierarchies(Path("/proc/self/mountinfo").read_text(encoding="utf-8"))


def create(name: str) -> None:
    """Make the group in every hierarchy, with all controllers that a kubelet asks for."""
    for point, version in _current():
        group = point / name
        group.mkdir(exist_ok=True)
        if version == 2:
            _delegate(point)
            _delegate(group)
        elif (point / "cpuset.cpus").exists():
            # A new v1 cpuset is empty and takes no process.
            for setting in ("cpuset.cpus", "cpuset.mems"):
                (group / setting).write_text((point / setting).read_text())


def _delegate(group: Path) -> None:
    available = (group / "cgroup.controllers").read_text().split()
    for controller in _V2_CONTROLLERS:
        if controller in available:
            with contextlib.suppress(OSError):
                (group / "cgroup.subtree_control").write_text(f"+{controller}")


def remove(name: str, seconds: float = 10) -> None:
    """Remove the group and all below it; its processes must be dying already."""
    deadline = time.monotonic() + seconds
    for point, _ in _all_hierarchies():
        group = point / name
        while group.exists():
            _remove_tree(group)
            if not group.exists():
                break
            if time.monotonic() > deadline:
                raise ClusterError(f"{group} still has processes; end them and run the command again")
            time.sleep(0.02)


def present(name: str) -> bool:
    """Whether any hierarchy has the group."""
    return any((point / name).exists() for point, _ in _all_hierarchies())


def _all_hierarchies() -> list[tuple[Path, int]]:
    # runc makes groups in the v2 hierarchy of a hybrid machine too.
    text = Path("/proc/self/mountinfo").read_text(encoding="utf-8")
    v2_only = "\n".join(line for line in text.splitlines() if " - cgroup2 " in line)
    return list(dict.fromkeys(hierarchies(text) + hierarchies(v2_only)))


def _remove_tree(group: Path) -> None:
    for directory, _, _ in os.walk(group, topdown=False):
        with contextlib.suppress(OSError):
            Path(directory).rmdir()
