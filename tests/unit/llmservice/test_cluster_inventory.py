"""One inventory for all services: when it is made anew, and where what it needs beside nodes comes from."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.support.builders import make_node, make_service
from tests.support.clock import FakeClock
from tests.support.kube import FakeKube, make_cache

from vllm_operator.engine.cache import ObjectCache
from vllm_operator.kube.errors import NotFoundError, RetryableError
from vllm_operator.kube.kinds import Key, Manifest, ObjectRef
from vllm_operator.llmservice.cluster_inventory import ClusterInventory
from vllm_operator.llmservice.cluster_sources import ClusterSources, waits_for_accelerators
from vllm_operator.planner.inventory.pool import Inventory
from vllm_operator.planner.inventory.profiles import parse_profiles
from vllm_operator.routing import Router

CHAT = Key("LLMService", "team-a", "chat")


def gpu_node(name: str = "n1", gpus: int = 8, version: int = 1) -> Manifest:
    node = make_node(name).gpus(gpus).product("NVIDIA-L4", 23034).build()
    node["metadata"]["resourceVersion"] = str(version)
    return node


def gpu_pod(name: str, node: str, gpus: int, *, phase: str = "Running", namespace: str = "other") -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "nodeName": node,
            "containers": [{"name": "c", "resources": {"limits": {"nvidia.com/gpu": str(gpus)}}}],
        },
        "status": {"phase": phase},
    }


def node_pool() -> Manifest:
    return {
        "apiVersion": "karpenter.sh/v1",
        "kind": "NodePool",
        "metadata": {"name": "gpu"},
        "spec": {
            "template": {
                "spec": {
                    "nodeClassRef": {"group": "karpenter.k8s.aws", "kind": "EC2NodeClass", "name": "x"},
                    "requirements": [
                        {"key": "node.kubernetes.io/instance-type", "operator": "In", "values": ["p5.48xlarge"]}
                    ],
                }
            }
        },
    }


def waiting(name: str = "chat", reason: str = "WaitingForCapacity") -> Manifest:
    return make_service(name).status(conditions=[{"type": "Planned", "status": "True", "reason": reason}]).build()


def serving(name: str) -> Manifest:
    conditions = [
        {"type": "Planned", "status": "True", "reason": "Planned"},
        {"type": "Ready", "status": "True", "reason": "Serving"},
    ]
    return make_service(name).status(conditions=conditions).build()


def shapes(found: Inventory) -> list[tuple[str, int, int]]:
    return [(pool.product, pool.gpus_per_node, pool.nodes) for pool in found.pools]


class World:
    """An API server, the operator's cache and router, and the inventory in between."""

    def __init__(self, *objects: Manifest, count_pods: bool = True, profiles: str = "[]") -> None:
        self.cache: ObjectCache = make_cache()
        self.changes = 0
        self.told: list[Key] = []
        self.kube = FakeKube()
        self.clock = FakeClock()
        self.inventory = ClusterInventory(self.cache, parse_profiles(profiles), self._on_change)
        self.sources = ClusterSources(
            self.kube, self.cache, self.inventory, self.clock, count_pods=count_pods, on_change=self.told.append
        )
        self.router = Router(
            self.cache, lambda key: None, lambda manifest: None, lambda: None, self.inventory.node_changed
        )
        for manifest in objects:
            self.add(manifest)

    def _on_change(self) -> None:
        self.changes += 1

    def add(self, manifest: Manifest) -> None:
        if manifest["kind"] in ("Node", "LLMService"):
            self.router.observe("ADDED", manifest)
        else:
            self.kube.seed(manifest)

    def free(self) -> tuple[int, ...]:
        return self.inventory.inventory().pools[0].free_gpus_by_node

    def lists(self, kind: str) -> int:
        return sum(call.kind == kind and call.verb == "list" for call in self.kube.calls)


def test_the_same_object_until_something_changes() -> None:
    world = World(gpu_node("n1"))
    first = world.inventory.inventory()
    assert shapes(first) == [("NVIDIA-L4", 8, 1)]
    assert world.inventory.inventory() is first
    world.add(gpu_node("n2"))
    assert shapes(world.inventory.inventory()) == [("NVIDIA-L4", 8, 2)]


def test_a_change_that_makes_no_difference_gives_the_same_object() -> None:
    world = World(gpu_node("n1"))
    first = world.inventory.inventory()
    later = gpu_node("n1", version=2)
    later["metadata"]["labels"]["unrelated"] = "x"
    world.router.observe("MODIFIED", later)
    assert world.inventory.inventory() is first


def test_a_node_that_changes_or_goes() -> None:
    world = World(gpu_node("n1"), gpu_node("n2"))
    world.inventory.inventory()
    world.router.observe("MODIFIED", gpu_node("n1", gpus=4, version=2))
    assert shapes(world.inventory.inventory()) == [("NVIDIA-L4", 4, 1), ("NVIDIA-L4", 8, 1)]
    world.router.observe("DELETED", gpu_node("n2"))
    assert shapes(world.inventory.inventory()) == [("NVIDIA-L4", 4, 1)]


def test_profiles_are_in_it() -> None:
    profile = '[{"name": "a", "selector": {"pool": "a"}, "product": "NVIDIA-L4", "count": 4}]'
    assert shapes(World(profiles=profile).inventory.inventory()) == [("NVIDIA-L4", 4, 0)]


async def test_many_nodes_at_once_are_read_in_slices_while_the_inventory_before_is_served() -> None:
    world = World(gpu_node("first"))
    before = world.inventory.inventory()
    catching_up = asyncio.create_task(world.inventory.run())
    for index in range(300):
        world.add(gpu_node(f"n{index}"))
    assert world.inventory.inventory() is before
    turns = 0
    while world.changes == 0:
        await asyncio.sleep(0)
        turns += 1
        assert turns < 100
    assert turns > 3
    assert shapes(world.inventory.inventory()) == [("NVIDIA-L4", 8, 301)]
    catching_up.cancel()


async def test_all_nodes_are_read_before_services_are_planned() -> None:
    world = World(*(gpu_node(f"n{index}") for index in range(200)))
    assert shapes(await world.inventory.read_all()) == [("NVIDIA-L4", 8, 200)]


async def test_free_gpus_are_counted_over_the_pods_of_all_namespaces() -> None:
    world = World(gpu_node("n1"), gpu_node("n2"), make_node("cpu").build(), waiting())
    for pod in (gpu_pod("a", "n1", 3), gpu_pod("b", "n1", 2, phase="Pending"), gpu_pod("c", "n1", 4, phase="Failed")):
        world.add(pod)
    assert world.free() == ()
    await world.sources.tick()
    assert world.free() == (8, 3)
    assert world.lists("Pod") == 2  # one for each node that has GPUs
    assert set(world.told) == {CHAT}


async def test_they_are_counted_every_half_minute_while_a_service_waits_and_told_when_they_change() -> None:
    world = World(gpu_node("n1"), waiting(), serving("other"))
    await world.sources.tick()
    world.told.clear()
    world.add(gpu_pod("a", "n1", 8))
    world.clock.advance(10)
    await world.sources.tick()
    assert world.free() == (8,)
    world.clock.advance(20)
    await world.sources.tick()
    assert (world.free(), world.told) == ((0,), [CHAT])
    world.told.clear()
    world.clock.advance(30)
    await world.sources.tick()
    assert world.told == []


async def test_nothing_is_counted_while_no_service_waits_and_an_old_count_is_forgotten() -> None:
    world = World(gpu_node("n1"), waiting())
    await world.sources.tick()
    assert world.free() == (8,)
    world.router.observe("MODIFIED", serving("chat"))
    counted = world.lists("Pod")
    world.clock.advance(119)
    await world.sources.tick()
    assert (world.free(), world.lists("Pod")) == ((8,), counted)
    world.clock.advance(1)
    await world.sources.tick()
    assert (world.free(), world.lists("Pod")) == ((), counted)


async def test_an_installation_for_some_namespaces_does_not_count_pods() -> None:
    world = World(gpu_node("n1"), waiting(), count_pods=False)
    await world.sources.tick()
    assert (world.free(), world.lists("Pod")) == ((), 0)


async def test_pods_that_may_not_be_listed_leave_unknown_what_is_free() -> None:
    world = World(gpu_node("n1"), gpu_node("n2"), waiting())
    world.kube.forbidden.add(("list", "Pod"))
    await world.sources.tick()
    assert world.free() == ()
    asked = world.lists("Pod")
    world.clock.advance(60)
    await world.sources.tick()
    assert world.lists("Pod") == asked
    world.kube.forbidden.clear()
    world.clock.advance(600)
    await world.sources.tick()
    assert world.free() == (8, 8)


async def test_a_node_whose_pods_could_not_be_listed_is_unknown() -> None:
    world = World(gpu_node("n1"), gpu_node("n2"), waiting())
    world.kube.fail(RetryableError("busy", status=503), verb="list", kind="Pod", times=1)
    await world.sources.tick()
    assert world.free() == (8,)


async def test_node_pools_and_slices_are_looked_for() -> None:
    world = World(serving("chat"), gpu_node("n1"))
    world.add(node_pool())
    slices = {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceSlice",
        "metadata": {"name": "n1-x"},
        "spec": {
            "driver": "gpu.nvidia.com",
            "nodeName": "n1",
            "pool": {"name": "n1", "generation": 1},
            "devices": [
                {
                    "attributes": {"type": {"string": "gpu"}, "productName": {"string": name}},
                    "capacity": {"memory": {"value": "23034Mi"}},
                }
                for name in ("NVIDIA L4", "NVIDIA A10")
            ],
        },
    }
    world.add(slices)
    await world.sources.look()
    found = world.inventory.inventory()
    assert shapes(found) == [("NVIDIA-H100-80GB-HBM3", 8, 0)]
    assert "different kinds" in found.left_out[0].why
    assert world.told == [CHAT]
    world.told.clear()
    await world.sources.look()
    assert world.told == []


@pytest.mark.parametrize("kind", ["NodePool", "ResourceSlice"])
async def test_kinds_that_a_cluster_lacks_are_taken_as_empty(kind: str) -> None:
    world = World(gpu_node("n1"))
    world.kube.fail(NotFoundError("no such kind", status=404), verb="list", kind=kind, times=9)
    await world.sources.look()
    assert shapes(world.inventory.inventory()) == [("NVIDIA-L4", 8, 1)]


async def test_what_is_known_of_node_pools_outlives_a_list_that_failed() -> None:
    world = World()
    world.add(node_pool())
    await world.sources.look()
    world.kube.fail(RetryableError("busy", status=503), verb="list", kind="NodePool")
    await world.sources.look()
    assert shapes(world.inventory.inventory()) == [("NVIDIA-H100-80GB-HBM3", 8, 0)]


async def test_node_pools_that_are_no_longer_shown_are_gone() -> None:
    world = World()
    world.add(node_pool())
    await world.sources.look()
    world.kube.forbidden.add(("list", "NodePool"))
    await world.sources.look()
    assert shapes(world.inventory.inventory()) == []


async def test_leader_worker_sets_are_noticed_when_they_come_and_go() -> None:
    world = World(serving("chat"))
    world.kube.fail(NotFoundError("no such kind", status=404), verb="list", kind="LeaderWorkerSet")
    await world.sources.look()
    assert (world.inventory.leader_worker_set, world.told) == (False, [])
    await world.sources.look()
    assert (world.inventory.leader_worker_set, world.told) == (True, [CHAT])
    world.kube.fail(RetryableError("busy", status=503), verb="list", kind="LeaderWorkerSet")
    await world.sources.look()
    assert world.inventory.leader_worker_set
    world.kube.forbidden.add(("list", "LeaderWorkerSet"))
    await world.sources.look()
    assert not world.inventory.leader_worker_set


async def test_the_quota_of_a_waiting_services_namespace() -> None:
    world = World(waiting())
    world.add(
        {
            "apiVersion": "v1",
            "kind": "ResourceQuota",
            "metadata": {"name": "gpus", "namespace": "team-a"},
            "spec": {"hard": {"requests.nvidia.com/gpu": "4"}},
            "status": {"used": {"requests.nvidia.com/gpu": "1"}},
        }
    )
    assert world.inventory.quota_left("team-a", "nvidia.com/gpu") is None
    await world.sources.tick()
    assert world.inventory.quota_left("team-a", "nvidia.com/gpu") == 3
    assert world.inventory.quota_left("team-b", "nvidia.com/gpu") is None
    world.kube.edit(
        ObjectRef("ResourceQuota", "team-a", "gpus"), lambda quota: quota["spec"]["hard"].update({"x": "1"})
    )
    world.told.clear()
    world.clock.advance(30)
    await world.sources.tick()
    assert world.told == [CHAT]


@pytest.mark.parametrize(
    ("conditions", "waits"),
    [
        ([], True),
        ([("Planned", "ReadingModelFacts")], True),
        ([("Planned", "WaitingForCapacity"), ("Ready", "Starting")], True),
        ([("Planned", "Planned"), ("Ready", "Unschedulable")], True),
        ([("Planned", "Planned"), ("Ready", "Serving")], False),
        ([("Planned", "Planned"), ("Ready", "Asleep")], False),
        ([("Planned", "InsufficientGPUMemory"), ("Ready", "Planning")], False),
    ],
)
def test_which_services_wait(conditions: list[tuple[str, str]], waits: bool) -> None:
    service = make_service().status(conditions=[{"type": kind, "reason": reason} for kind, reason in conditions])
    assert waits_for_accelerators(service.build()) is waits


def test_a_service_that_is_being_deleted_waits_for_nothing() -> None:
    service: dict[str, Any] = make_service().set("metadata.deletionTimestamp", "2026-01-01T00:00:00Z").build()
    assert not waits_for_accelerators(service)
