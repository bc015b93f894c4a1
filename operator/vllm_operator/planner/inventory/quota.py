"""How many accelerators the ResourceQuotas of a namespace still allow."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from vllm_operator.planner.inventory.reading import whole_number


def quota_left(resource_quotas: Iterable[Mapping[str, Any]], resource_name: str) -> int | None:
    """The least that any quota leaves of ``requests.<resource>`` (extended resources have no other quota).

    None: no quota limits it. A quota with scopes is left out: it concerns some pods only. What is used counts the
    asker's own pods, too.
    """
    key = f"requests.{resource_name}"
    left = []
    for quota in resource_quotas:
        spec, status = _mapping(quota.get("spec")), _mapping(quota.get("status"))
        if spec.get("scopes") or spec.get("scopeSelector"):
            continue
        hard = whole_number(_mapping(spec.get("hard")).get(key))
        if hard is None:
            continue
        used = whole_number(_mapping(status.get("used")).get(key, "0")) or 0
        left.append(max(hard - used, 0))
    return min(left, default=None)


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
