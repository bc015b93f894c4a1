"""Lists what the inventory needs beside nodes, in the background, and hands it to ``ClusterInventory``.

What pods ask for is counted per node that has accelerators (``spec.nodeName=…``, from the API server's memory, where
pods are indexed by node): the pods of a few nodes are held at a time, and ten thousand pods elsewhere cost nothing. A
watch of all pods would bring each of their changes for ever, and a list of all of them some 80 MB. It is done only
while a service waits for accelerators or is being planned, at most every half minute; in an installation for some
namespaces, which may not list other pods, never, and then nothing is known of what is free.

Kinds that a cluster lacks (404) or does not show (403) are taken as empty and asked for again later.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import structlog

from vllm_operator.engine.clock import Clock
from vllm_operator.kube.client import KubeClient
from vllm_operator.kube.errors import KubeError, NotFoundError, TerminalError
from vllm_operator.kube.kinds import (
    LEADER_WORKER_SET,
    LLM_SERVICE,
    NODE_POOL,
    POD,
    RESOURCE_QUOTA,
    RESOURCE_SLICE,
    Key,
    Kind,
    Manifest,
)
from vllm_operator.llmservice.cluster_inventory import ClusterInventory
from vllm_operator.llmservice.observe import CacheView
from vllm_operator.planner.inventory.dra import DRIVER, gpus_by_node
from vllm_operator.planner.inventory.pod_requests import pods_that_count, requested
from vllm_operator_api.conditions import LLMServiceCondition, Reason

_TICK_SECONDS: Final = 5.0
_COUNT_SECONDS: Final = 30.0
"""Least time between two counts of what pods ask for."""
_OPTIONAL_SECONDS: Final = 60.0
"""Between two looks at kinds that a cluster may lack."""
_FORGET_SECONDS: Final = 120.0
"""A count that is older is not used any more."""
_FORBIDDEN_SECONDS: Final = 600.0
"""After a 403, until the same is asked for again."""
_AT_ONCE: Final = 4
_PAUSE_SECONDS: Final = 0.05
"""Between two groups of requests: at most 80 a second."""
_BEING_PLANNED: Final = frozenset({Reason.READING_MODEL_FACTS, Reason.WAITING_FOR_CAPACITY})
_NOT_PLACED: Final = frozenset({Reason.STARTING, Reason.UNSCHEDULABLE, Reason.POD_REJECTED, Reason.WAKING})
_OLDER_SLICES: Final = replace(RESOURCE_SLICE, api_version="resource.k8s.io/v1beta1")
"""Of Kubernetes before 1.34."""
_log: Final = structlog.stdlib.get_logger(__name__)


class ClusterSources:
    """The background task. ``look`` once before services are planned, then ``run``."""

    def __init__(
        self,
        client: KubeClient,
        cache: CacheView,
        cluster: ClusterInventory,
        clock: Clock,
        *,
        count_pods: bool,
        on_change: Callable[[Key], None],
    ) -> None:
        """``count_pods``: the client may list the pods of all namespaces. ``on_change`` gets each service concerned."""
        self._client = client
        self._cache = cache
        self._cluster = cluster
        self._clock = clock
        self._count_pods = count_pods
        self._on_change = on_change
        self._counted_at: float | None = None
        self._looked_at: float | None = None
        self._forbidden_until: dict[str, float] = {}

    async def run(self) -> None:
        """Keep the inventory's sources fresh, for ever. A failed list is logged and tried again at its next turn."""
        while True:
            await self.tick()
            await asyncio.sleep(_TICK_SECONDS)

    async def tick(self) -> None:
        """Do what is due."""
        if self._age(self._looked_at) >= _OPTIONAL_SECONDS:
            await self.look()
        waiting = [service for service in self._cache.list(LLM_SERVICE.kind) if waits_for_accelerators(service)]
        if waiting and self._age(self._counted_at) >= _COUNT_SECONDS:
            await self._count(waiting)
        elif not waiting and self._age(self._counted_at) >= _FORGET_SECONDS:
            self._cluster.take_requests({})
            self._cluster.take_quotas({})

    async def look(self) -> None:
        """List the kinds that a cluster may lack: NodePools, ResourceSlices, LeaderWorkerSets."""
        self._looked_at = self._clock.monotonic()
        changed = False
        node_pools = await self._list(NODE_POOL)
        if node_pools is not None:
            changed |= self._cluster.take_node_pools(node_pools)
        slices = await self._list(RESOURCE_SLICE, field_selector=f"spec.driver={DRIVER}")
        if not slices:
            slices = await self._list(_OLDER_SLICES, field_selector=f"spec.driver={DRIVER}")
        if slices is not None:
            changed |= self._cluster.take_sliced(gpus_by_node(slices))
        changed |= await self._look_for_leader_worker_sets()
        if changed:
            self._tell(self._cache.list(LLM_SERVICE.kind))

    async def _count(self, waiting: Sequence[Manifest]) -> None:
        """What pods ask for on each node with accelerators, and the quotas of the waiting services' namespaces."""
        self._counted_at = self._clock.monotonic()
        changed = False
        quotas: dict[str, Sequence[Mapping[str, Any]]] = {}
        for namespace in sorted({service["metadata"]["namespace"] for service in waiting}):
            found = await self._list(RESOURCE_QUOTA, namespace=namespace)
            if found is not None:
                quotas[namespace] = [{"spec": each.get("spec"), "status": each.get("status")} for each in found]
        changed |= self._cluster.take_quotas(quotas)
        if self._count_pods:
            changed |= self._cluster.take_requests(await self._requests())
        if changed:
            self._tell(waiting)

    def _tell(self, services: Iterable[Manifest]) -> None:
        for service in services:
            self._on_change(Key.of(service))

    async def _requests(self) -> dict[str, dict[str, int]]:
        names = self._cluster.nodes_with_accelerators
        found: dict[str, dict[str, int]] = {}
        for start in range(0, len(names), _AT_ONCE):
            group = names[start : start + _AT_ONCE]
            counts = await asyncio.gather(*(self._requests_on(name) for name in group))
            if POD.kind in self._forbidden_until:
                return {}
            found |= {name: count for name, count in zip(group, counts, strict=True) if count is not None}
            if start + _AT_ONCE < len(names):
                await asyncio.sleep(_PAUSE_SECONDS)
        return found

    async def _requests_on(self, node: str) -> dict[str, int] | None:
        pods = await self._list(POD, field_selector=pods_that_count(node), from_cache=True)
        return None if pods is None or POD.kind in self._forbidden_until else requested(pods)

    async def _look_for_leader_worker_sets(self) -> bool:
        present = await serves_leader_worker_sets(self._client)
        return present is not None and self._cluster.take_leader_worker_set(present=present)

    async def _list(self, kind: Kind, **query: Any) -> Sequence[Manifest] | None:
        """Empty where the kind is absent or forbidden; None when the list failed and the last one still holds."""
        if self._clock.monotonic() < self._forbidden_until.get(kind.kind, 0.0):
            return ()
        try:
            listed = await self._client.list(kind, **query)
        except NotFoundError:
            return ()
        except TerminalError as error:
            if error.status != 403:
                _log.warning("list refused", kind=kind.kind, error=error.message)
                return None
            if kind.kind not in self._forbidden_until:
                _log.info("the operator may not list this kind, and does without", kind=kind.kind, error=error.message)
            self._forbidden_until[kind.kind] = self._clock.monotonic() + _FORBIDDEN_SECONDS
            return ()
        except KubeError as error:
            _log.info("list failed, will be tried again", kind=kind.kind, error=error.message)
            return None
        self._forbidden_until.pop(kind.kind, None)
        return listed.items

    def _age(self, moment: float | None) -> float:
        return float("inf") if moment is None else self._clock.monotonic() - moment


async def serves_leader_worker_sets(client: KubeClient) -> bool | None:
    """Whether the cluster has LeaderWorkerSets that the operator may make; None: it could not be asked."""
    try:
        # One of a name that nothing has: whether the kind exists is all that is asked.
        await client.list(LEADER_WORKER_SET, field_selector="metadata.name=-", from_cache=True)
    except NotFoundError:
        return False
    except TerminalError as error:
        # 403: RBAC knows no kinds, so that says nothing. It is certain that none can be made.
        return False if error.status == 403 else None
    except KubeError as error:
        _log.info("list failed, will be tried again", kind=LEADER_WORKER_SET.kind, error=error.message)
        return None
    return True


def waits_for_accelerators(service: Manifest) -> bool:
    """Whether what is free matters to a service now: it is being planned, or has a plan and no place yet."""
    if service["metadata"].get("deletionTimestamp"):
        return False
    conditions = (service.get("status") or {}).get("conditions") or ()
    reasons = {condition.get("type"): condition.get("reason") for condition in conditions}
    planned = reasons.get(LLMServiceCondition.PLANNED)
    return planned is None or planned in _BEING_PLANNED or reasons.get(LLMServiceCondition.READY) in _NOT_PLACED
