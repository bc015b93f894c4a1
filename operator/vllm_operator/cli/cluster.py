"""What a plan needs of a cluster, read once. Nothing is written."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from vllm_operator.kube.aiohttp_client import AiohttpKubeClient
from vllm_operator.kube.client import KubeClient
from vllm_operator.kube.connection import Connection
from vllm_operator.kube.errors import KubeError, NotFoundError
from vllm_operator.kube.kinds import (
    JOB,
    LEADER_WORKER_SET,
    NODE,
    NODE_POOL,
    POD,
    RESOURCE_QUOTA,
    RESOURCE_SLICE,
    Kind,
    Manifest,
)
from vllm_operator.manifests.common import MODEL_FACTS_COMPONENT
from vllm_operator.planner.inventory.dra import DRIVER, gpus_by_node
from vllm_operator.planner.inventory.karpenter import pools_to_come
from vllm_operator.planner.inventory.node_reading import read_node
from vllm_operator.planner.inventory.pod_requests import pods_that_count, requested
from vllm_operator.planner.inventory.pool import Inventory
from vllm_operator.planner.inventory.pools import assemble
from vllm_operator_api.names import COMPONENT_LABEL, OWNER_NAME_LABEL

_USER_AGENT: Final = "kubectl-llm"
_AT_ONCE: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterView:
    """One look at a cluster."""

    inventory: Inventory
    leader_worker_set: bool
    """Whether it has LeaderWorkerSets."""
    quotas: Sequence[Manifest]
    """ResourceQuotas of the service's namespace, as far as they may be seen."""
    facts_jobs: Sequence[Manifest]
    facts_pods: Sequence[Manifest]
    """Jobs that have read models for services of this name, and their pods."""


async def read_cluster(connection: Connection, *, namespace: str, service: str) -> ClusterView:
    """Read nodes, and what else may be seen. ``service``: name of the LLMService that is planned.

    Raises:
        KubeError: the nodes cannot be listed.
    """
    client = AiohttpKubeClient(connection, user_agent=_USER_AGENT)
    await client.start()
    try:
        return await _read(client, namespace, service)
    finally:
        await client.stop()


async def _read(client: KubeClient, namespace: str, service: str) -> ClusterView:
    nodes = (await client.list(NODE)).items
    sliced = gpus_by_node(await _optional(client, RESOURCE_SLICE, field_selector=f"spec.driver={DRIVER}") or ())
    readings = [read_node(node, (), sliced.get(node["metadata"]["name"])) for node in nodes]
    requests = await _requests(client, [reading.name for reading in readings if reading.offers])
    owned = f"{OWNER_NAME_LABEL}={service},{COMPONENT_LABEL}={MODEL_FACTS_COMPONENT}"
    return ClusterView(
        inventory=assemble(readings, requests, (), pools_to_come(await _optional(client, NODE_POOL) or ())),
        leader_worker_set=await _has_leader_worker_sets(client, namespace),
        quotas=await _optional(client, RESOURCE_QUOTA, namespace=namespace) or (),
        facts_jobs=await _optional(client, JOB, namespace=namespace, label_selector=owned) or (),
        facts_pods=await _optional(client, POD, namespace=namespace, label_selector=owned) or (),
    )


async def _requests(client: KubeClient, nodes: Sequence[str]) -> dict[str, dict[str, int]]:
    """What pods ask for on each node, as far as they may be seen."""
    found: dict[str, dict[str, int]] = {}
    for start in range(0, len(nodes), _AT_ONCE):
        group = nodes[start : start + _AT_ONCE]
        lists = await asyncio.gather(
            *(_optional(client, POD, field_selector=pods_that_count(node), from_cache=True) for node in group)
        )
        found |= {node: requested(pods) for node, pods in zip(group, lists, strict=True) if pods is not None}
    return found


async def _optional(client: KubeClient, kind: Kind, **query: Any) -> Sequence[Manifest] | None:
    """A list; None where the cluster lacks the kind, does not show it to this user, or has trouble with it."""
    try:
        return (await client.list(kind, **query)).items
    except KubeError:
        return None


async def _has_leader_worker_sets(client: KubeClient, namespace: str) -> bool:
    try:
        await client.list(LEADER_WORKER_SET, namespace=namespace, field_selector="metadata.name=-", from_cache=True)
    except NotFoundError:
        return False
    except KubeError:
        return True  # not shown to this user: the operator knows
    return True
