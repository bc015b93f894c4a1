"""The command line of ``hack/cluster``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from localk8s import binaries, system_packages
from localk8s.errors import ClusterError
from localk8s.paths import Layout


def main(arguments: Sequence[str]) -> int:
    """Run one command; returns the exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    layout = Layout.default()
    try:
        if options.command == "bin":
            print(binaries.ensure(layout, options.name))
        elif options.command == "prepare":
            if options.tier == "integration":
                system_packages.install_missing(system_packages.INTEGRATION_PACKAGES)
            binaries.ensure_tier(layout, options.tier)
    except ClusterError as error:
        print(f"hack/cluster: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="hack/cluster", description="A local Kubernetes cluster for development.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    bin_command = commands.add_parser("bin", help="print the path of a program, building it when absent")
    bin_command.add_argument("name", metavar="NAME", help=", ".join(sorted(binaries.PROGRAMS)))
    prepare = commands.add_parser("prepare", help="build and fetch all that a tier of tests needs")
    prepare.add_argument("tier", nargs="?", default="node", choices=sorted(binaries.TIERS))
    return parser
