"""Command line of the image builder."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from pathlib import Path

from images import engine
from images.base import base_version, ensure_base
from images.native import Buildah
from images.targets import TARGETS, Target, check_pins, content_hash
from localk8s.commands import run, succeeds
from localk8s.console import say, step
from localk8s.errors import ClusterError
from localk8s.locks import file_lock
from localk8s.paths import HACK_DIR, Layout

_CLUSTER = HACK_DIR / "cluster"
_LOAD_SECONDS = 3600.0


def main(argv: list[str]) -> int:
    """Run the command line and return its exit status."""
    parser = argparse.ArgumentParser(
        prog="hack/images/build", description="Build the project's images; unchanged ones cost nothing."
    )
    parser.add_argument(
        "target",
        nargs="+",
        choices=["all", "base", *TARGETS],
        metavar="TARGET",
        help=f"all, base, {', '.join(TARGETS)}",
    )
    parser.add_argument("--load", action="store_true", help="import them into the local cluster, when it is up")
    options = parser.parse_args(argv)
    names = list(TARGETS) if "all" in options.target else list(dict.fromkeys(options.target))
    layout = Layout.default()
    try:
        check_pins()
        archives = []
        for name in names:
            if name == "base":
                print(ensure_base(layout))
            else:
                archives += ensure(layout, TARGETS[name])
        for archive in archives:
            print(archive)
        if options.load and archives:
            load(archives)
    except ClusterError as error:
        say(f"hack/images/build: {error}")
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    return 0


def ensure(layout: Layout, target: Target) -> list[Path]:
    """The archives of one image, built when anything that it is made from has changed."""
    directory = layout.root / "images"
    directory.mkdir(parents=True, exist_ok=True)
    with file_lock(layout.locks / "images.lock"):
        docker = engine.answers()
        contexts = _contexts(target)
        outside = ["docker" if docker else f"native {base_version()}", *(_identity(p) for p in contexts.values())]
        content = content_hash(target, " ".join(outside))
        record = directory / f"{target.name}.json"
        archives = _recorded(record, content)
        if archives is None:
            build = engine.build if docker else lambda _, *rest: Buildah(layout).build(*rest)
            archives = build(layout, target, contexts, content)
            record.write_text(
                json.dumps({"content": content, "archives": [str(a) for a in archives]}), encoding="utf-8"
            )
            _link(directory / f"{target.name}.tar", archives[-1])
            _remove_older(directory, target, archives)
    return archives


def load(archives: list[Path]) -> None:
    """Import archives into the local cluster; say so when there is none."""
    if not succeeds([_CLUSTER, "status"]):
        say("  no local cluster is up: images are built, not loaded")
        return
    with step("load into the cluster"):
        run([_CLUSTER, "load-image", *archives], timeout=_LOAD_SECONDS)


def _contexts(target: Target) -> dict[str, Path]:
    """Further build contexts of a target, name -> directory."""
    if target.name != "nats":
        return {}
    return {"nats-bin": Path(run([_CLUSTER, "bin", "nats-server"], timeout=1800).strip()).parent}


def _identity(directory: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(p for p in directory.iterdir() if p.is_file()):
        stat = path.stat()
        digest.update(f"{path}\0{stat.st_size}\0{stat.st_mtime_ns}\0".encode())
    return digest.hexdigest()


def _recorded(record: Path, content: str) -> list[Path] | None:
    """The archives of the last build, when it was of the same content and they are still there."""
    try:
        found = json.loads(record.read_text(encoding="utf-8"))
        archives = [Path(name) for name in found["archives"]]
    except (OSError, ValueError, KeyError):
        return None
    return archives if found["content"] == content and all(a.exists() for a in archives) else None


def _link(link: Path, archive: Path) -> None:
    partial = link.with_suffix(".link")
    partial.unlink(missing_ok=True)
    partial.symlink_to(archive.name)
    partial.replace(link)


def _remove_older(directory: Path, target: Target, current: list[Path]) -> None:
    """Remove archives of earlier contents of this image."""
    keep = {name for a in current for name in (a.name, f"{a.stem}.sizes.json")}
    for path in [*directory.glob(f"{target.name}-*.tar"), *directory.glob(f"{target.name}-*.sizes.json")]:
        if path.name not in keep:
            path.unlink()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
