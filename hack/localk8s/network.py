"""The host's side of the native node's network: one veth link and the routes through it.

The cluster's ranges also get blackhole routes of a worse metric. They come
first and are kept by ``down``: without them whatever a client still sends to a
cluster that is gone (or not there yet) would follow the default route out of
the machine. ``purge`` removes them, and they do not survive a reboot.
"""

from __future__ import annotations

import ipaddress
import json
from pathlib import Path
from typing import Any

from localk8s import node_config as cfg
from localk8s.commands import run, succeeds
from localk8s.errors import ClusterError

LINK = "localk8s"
_RANGES = (cfg.NODE_SUBNET, cfg.SERVICE_CIDR, cfg.POD_CIDR)
_LAST_RESORT_METRIC = "4096"


def conflicts(routes: list[dict[str, Any]]) -> list[str]:
    """Routes of others (``ip -json route show``) that would win over the cluster's inside its ranges."""
    ours = [ipaddress.ip_network(text) for text in _RANGES]
    found = []
    for route in routes:
        destination = str(route.get("dst", "default"))
        if destination == "default" or route.get("dev") == LINK or route.get("type") == "blackhole":
            continue
        try:
            network = ipaddress.ip_network(destination)
        except ValueError:
            continue
        if any(network.version == own.version and network.subnet_of(own) for own in ours):  # type: ignore[arg-type]
            found.append(f"{destination} dev {route.get('dev', '?')}")
    return found


def refuse_conflicts() -> None:
    """``ClusterError`` when the machine uses one of the cluster's ranges already."""
    found = conflicts(json.loads(run(["ip", "-json", "-4", "route", "show"], timeout=10) or "[]"))
    if found:
        raise ClusterError(
            f"this machine already routes {', '.join(found)}, inside the ranges of the local cluster "
            f"({', '.join(_RANGES)}).\nTake that route away while the cluster is in use.",
            exit_code=2,
        )


def connect(node_pid: int) -> None:
    """Link this network namespace with the node's, where the other end is called eth0."""
    for cidr in _RANGES:
        run(["ip", "route", "replace", "blackhole", cidr, "metric", _LAST_RESORT_METRIC], timeout=10)
    disconnect()
    run(["ip", "link", "add", LINK, "type", "veth", "peer", "name", "eth0", "netns", str(node_pid)], timeout=10)
    run(["ip", "address", "add", f"{cfg.HOST_ADDRESS}/24", "dev", LINK], timeout=10)
    run(["ip", "link", "set", LINK, "up"], timeout=10)
    for cidr in (cfg.SERVICE_CIDR, cfg.POD_CIDR):
        run(["ip", "route", "replace", cidr, "via", cfg.NODE_ADDRESS], timeout=10)


def connected() -> bool:
    """Whether the host's end of the link exists."""
    return Path("/sys/class/net", LINK).exists()


def disconnect() -> None:
    """Remove the link, and with it its routes; nothing when it is gone already."""
    if connected() and not succeeds(["ip", "link", "delete", LINK]) and connected():
        raise ClusterError(f"cannot remove the network link {LINK}")


def remove_last_resort_routes() -> None:
    """Take the blackhole routes away."""
    for cidr in _RANGES:
        succeeds(["ip", "route", "delete", "blackhole", cidr, "metric", _LAST_RESORT_METRIC])
