"""The command line of ``hack/cluster``."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from localk8s import binaries, privilege, system_packages
from localk8s.console import say
from localk8s.errors import ClusterError
from localk8s.kind_cluster import KindCluster, docker_answers
from localk8s.native import NativeCluster
from localk8s.paths import HACK_DIR, Layout

_CANNOT = """no cluster can be brought up here: no Docker engine answers, and this user is not root, nor allowed sudo.
Do one of these and run the command again:
  - start Docker (or let this user use it: `docker info` has to work); kind is used then
  - run it as root, or allow this user sudo; the native node is used then"""


def main(arguments: Sequence[str]) -> int:
    """Run one command; returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        return _run(options, Layout.default())
    except ClusterError as error:
        print(f"hack/cluster: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130


def _run(options: argparse.Namespace, layout: Layout) -> int:
    command = options.command
    if command == "bin":
        print(binaries.ensure(layout, options.name))
    elif command == "kubeconfig":
        print(layout.kubeconfig)
    elif command == "prepare":
        _prepare(layout, options.tier)
    elif command == "up":
        _up(layout, options.backend)
    else:
        return _on_cluster(options, layout)
    return 0


def _prepare(layout: Layout, tier: str) -> None:
    if tier == "node":
        _cluster(layout, _choose("auto")).prepare()
        return
    if tier == "integration":
        system_packages.install_missing(system_packages.INTEGRATION_PACKAGES)
    binaries.ensure_tier(layout, tier)


def _up(layout: Layout, wanted: str) -> None:
    started = time.monotonic()
    backend = _choose(wanted)
    cluster = _cluster(layout, backend)
    cluster.prepare()
    layout.cluster.mkdir(parents=True, exist_ok=True)
    if backend == "native" and not privilege.is_root():
        _again_as_root(layout, ["up", "--backend", "native"])
        return
    _backend_file(layout).write_text(backend)
    cluster.up()
    say(f"cluster up ({backend}) in {time.monotonic() - started:.1f} s; KUBECONFIG={layout.kubeconfig}")


def _on_cluster(options: argparse.Namespace, layout: Layout) -> int:
    """The commands that concern the cluster of the last ``up``."""
    backend = _recorded_backend(layout)
    if backend is None:
        if options.command in ("down", "purge"):
            say("there is no cluster")
            return 0
        raise ClusterError("there is no cluster; start one with: hack/cluster up")
    if backend == "native" and not privilege.is_root():
        arguments = [options.command]
        arguments += [str(Path(archive).absolute()) for archive in getattr(options, "archive", [])]
        _again_as_root(layout, arguments)
        return 0
    cluster = _cluster(layout, backend)
    if options.command == "down":
        cluster.down()
    elif options.command == "purge":
        cluster.purge()
    elif options.command == "load-image":
        cluster.load_images([Path(archive) for archive in options.archive])
    elif options.command == "images":
        for name, digest in sorted(cluster.images().items()):
            print(name, digest)
    elif options.command == "status":
        healthy = cluster.healthy()
        print(json.dumps({"backend": backend, "ready": healthy, "kubeconfig": str(layout.kubeconfig)}))
        return 0 if healthy else 1
    return 0


def _choose(wanted: str) -> str:
    if wanted != "auto":
        return wanted
    if docker_answers():
        return "kind"
    if privilege.can_be_root():
        return "native"
    raise ClusterError(_CANNOT, exit_code=2)


def _cluster(layout: Layout, backend: str) -> KindCluster | NativeCluster:
    return KindCluster(layout) if backend == "kind" else NativeCluster(layout)


def _backend_file(layout: Layout) -> Path:
    return layout.cluster / "backend"


def _recorded_backend(layout: Layout) -> str | None:
    try:
        return _backend_file(layout).read_text()
    except FileNotFoundError:
        return None


def _again_as_root(layout: Layout, arguments: list[str]) -> None:
    """Run this program with other arguments as root, on the same cache."""
    environment = [f"VLLM_OPERATOR_CACHE={layout.root}", f"PYTHONPATH={HACK_DIR}", f"PATH={os.environ['PATH']}"]
    command = privilege.as_root(["env", *environment, sys.executable, "-m", "localk8s", *arguments])
    os.execvp(command[0], command)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="hack/cluster", description="A local Kubernetes cluster for development.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    up = commands.add_parser("up", help="bring the cluster up; kept when it is up and healthy already")
    up.add_argument("--backend", choices=("auto", "kind", "native"), default="auto", help="default: kind with Docker")
    commands.add_parser("down", help="end the cluster and remove its traces; the native image store stays")
    commands.add_parser("purge", help="down, and remove the image store too")
    commands.add_parser("status", help="say whether the cluster is ready (exit status 0 or 1)")
    commands.add_parser("kubeconfig", help="print the path of the kubeconfig")
    load = commands.add_parser("load-image", help="import OCI or docker archives into the cluster")
    load.add_argument("archive", nargs="+", metavar="FILE.tar")
    commands.add_parser("images", help="list the images that the cluster has")
    bin_command = commands.add_parser("bin", help="print the path of a program, building it when absent")
    bin_command.add_argument("name", metavar="NAME", help=", ".join(sorted(binaries.PROGRAMS)))
    prepare = commands.add_parser("prepare", help="build and fetch all that a tier of tests needs")
    prepare.add_argument("tier", nargs="?", default="node", choices=sorted(binaries.TIERS))
    return parser
