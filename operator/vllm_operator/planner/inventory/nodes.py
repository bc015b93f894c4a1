"""Whether a node takes pods, what it offers, and which of its taints last."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import Any, Final

from vllm_operator.planner.device import Vendor
from vllm_operator.planner.inventory.pool import Taint
from vllm_operator.planner.inventory.reading import whole_number
from vllm_operator_api.quantities import parse_bytes

Manifest = dict[str, Any]

_REPELLING: Final = frozenset({"NoSchedule", "NoExecute"})
_PASSING_TAINT_PREFIX: Final = "node.kubernetes.io/"
"""Taints by the state of a node: not-ready, unreachable, memory-pressure, out-of-service …"""
_PASSING_TAINTS: Final = frozenset(
    {
        "node.cloudprovider.kubernetes.io/uninitialized",
        "ToBeDeletedByClusterAutoscaler",
        "karpenter.sh/disrupted",
        "karpenter.sh/disruption",
        "karpenter.sh/unregistered",
    }
)
"""Put on by a provisioner while it brings a node up or takes it down."""
_OS_LABEL: Final = "kubernetes.io/os"
_VENDORS: Final[tuple[tuple[re.Pattern[str], Vendor], ...]] = (
    (re.compile(r"^nvidia\.com/(gpu|mig-[0-9a-z.+-]+?)(\.shared)?$"), "nvidia"),
    (re.compile(r"^amd\.com/(gpu|[a-z]{3}_nps[0-9])$"), "amd"),
    (re.compile(r"^gpu\.intel\.com/(i915|xe)$"), "intel"),
    (re.compile(r"^habana\.ai/gaudi$"), "habana"),
)
_VENDOR_PREFIXES: Final[tuple[tuple[str, Vendor], ...]] = (
    ("nvidia.com/", "nvidia"),
    ("amd.com/", "amd"),
    ("gpu.intel.com/", "intel"),
    ("habana.ai/", "habana"),
)
_OTHER_ACCELERATORS: Final = (
    "nvidia.com/",
    "amd.com/",
    "habana.ai/",
    "google.com/tpu",
    "aws.amazon.com/neuron",
    "huawei.com/Ascend",
    "cambricon.com/",
)
_COUNTERS: Final = "gpu.intel.com/"
"""Intel's plugin makes resources of shares, tiles and memory, too: they are no devices."""
_MAX_CPU_DIGITS: Final = 12


@lru_cache(maxsize=256)
def vendor_of(resource_name: str) -> Vendor | None:
    """The vendor whose device plugin offers this resource as an accelerator; None when no known one does."""
    return next((vendor for pattern, vendor in _VENDORS if pattern.match(resource_name)), None)


def vendor_by_prefix(resource_name: str) -> Vendor:
    """The vendor in a resource's name; NVIDIA where it has none (a profile may give a resource any name)."""
    return next((vendor for prefix, vendor in _VENDOR_PREFIXES if resource_name.startswith(prefix)), "nvidia")


@lru_cache(maxsize=256)
def looks_like_accelerator(resource_name: str) -> bool:
    """Whether a user may have meant this extended resource when speaking of GPUs."""
    if vendor_of(resource_name) is not None or resource_name.startswith(_OTHER_ACCELERATORS):
        return True
    return "/" in resource_name and "gpu" in resource_name and not resource_name.startswith(_COUNTERS)


def node_ready(node: Manifest) -> bool:
    """Whether the node's kubelet answers and takes pods."""
    conditions = (node.get("status") or {}).get("conditions") or []
    return any(condition.get("type") == "Ready" and condition.get("status") == "True" for condition in conditions)


def why_unusable(node: Manifest) -> str | None:
    """Why no pod can go to the node now, whatever it asks for; None when one can."""
    metadata, spec = node["metadata"], node.get("spec") or {}
    if metadata.get("deletionTimestamp"):
        return "is being deleted"
    if not node_ready(node):
        return "is not Ready"
    if spec.get("unschedulable"):
        return "is cordoned"
    for taint in spec.get("taints") or ():
        key = str(taint.get("key", ""))
        if taint.get("effect") in _REPELLING and (key.startswith(_PASSING_TAINT_PREFIX) or key in _PASSING_TAINTS):
            return f"takes no pods while it has the taint {key}"
    os = (metadata.get("labels") or {}).get(_OS_LABEL, "linux")
    return None if os == "linux" else f"runs {os}"


def lasting_taints(node: Manifest) -> tuple[Taint, ...]:
    """Taints that keep pods away unless they tolerate them, sorted."""
    return tuple(
        sorted(
            {
                Taint(key=str(taint.get("key", "")), value=str(taint.get("value") or ""), effect=taint["effect"])
                for taint in (node.get("spec") or {}).get("taints") or ()
                if taint.get("effect") in _REPELLING
            }
        )
    )


def offered(node: Manifest) -> dict[str, int]:
    """Accelerator-like resources and how many of each are allocatable, those with none that have capacity included."""
    status = node.get("status") or {}
    allocatable: Mapping[str, Any] = status.get("allocatable") or {}
    capacity: Mapping[str, Any] = status.get("capacity") or {}
    found = {}
    for name in allocatable.keys() | capacity.keys():
        if "/" not in name:
            continue
        number = whole_number(allocatable.get(name, "0")) or 0
        if number or whole_number(capacity.get(name, "0")):
            found[name] = number
    return found


def cpu_millis(node: Manifest) -> int:
    """Allocatable CPU in thousandths of a core; 0 when it is not stated."""
    return _cpu_millis(str(((node.get("status") or {}).get("allocatable") or {}).get("cpu", "0")))


def memory_bytes(node: Manifest) -> int:
    """Allocatable host memory; 0 when it is not stated."""
    return _memory_bytes(str(((node.get("status") or {}).get("allocatable") or {}).get("memory", "0")))


@lru_cache(maxsize=256)
def _cpu_millis(text: str) -> int:
    if len(text) > _MAX_CPU_DIGITS:
        return 0
    try:
        millis = Decimal(text[:-1]) if text.endswith("m") else Decimal(text) * 1000
    except InvalidOperation:
        return 0
    return int(millis) if millis.is_finite() and 0 < millis < 10**9 else 0


@lru_cache(maxsize=256)
def _memory_bytes(text: str) -> int:
    try:
        return parse_bytes(text) if len(text) <= 2 * _MAX_CPU_DIGITS else 0
    except ValueError:
        return 0
