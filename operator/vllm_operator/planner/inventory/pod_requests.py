"""How many accelerators pods ask for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Final

from vllm_operator.planner.inventory.reading import whole_number

_ENDED: Final = frozenset({"Succeeded", "Failed"})


def pods_that_count(node: str) -> str:
    """The field selector of the pods that take something of a node."""
    return ",".join((f"spec.nodeName={node}", *(f"status.phase!={phase}" for phase in sorted(_ENDED))))


def requested(pods: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """The sum, by extended resource, over pods that have not ended."""
    total: Counter[str] = Counter()
    for pod in pods:
        if (pod.get("status") or {}).get("phase") not in _ENDED:
            total.update(requested_by(pod))
    return dict(total)


def requested_by(pod: Mapping[str, Any]) -> dict[str, int]:
    """What one pod asks for, as the scheduler counts it.

    The sum over its containers and sidecars, or what one init container needs while it runs, if that is more.
    """
    spec = pod.get("spec") or {}
    total: Counter[str] = Counter()
    for container in spec.get("containers") or ():
        total.update(_extended(container))
    most: Counter[str] = Counter()
    sidecars: Counter[str] = Counter()
    for container in spec.get("initContainers") or ():
        if container.get("restartPolicy") == "Always":
            sidecars.update(_extended(container))
            most |= sidecars
        else:
            most |= sidecars + Counter(_extended(container))
    return dict((total + sidecars) | most)


def _extended(container: Mapping[str, Any]) -> dict[str, int]:
    resources = container.get("resources") or {}
    asked = {**(resources.get("limits") or {}), **(resources.get("requests") or {})}
    return {name: number for name, text in asked.items() if "/" in name and (number := whole_number(text))}
