"""The reconciler against an API server in memory, with the real cache, executor and status writer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from tests.support.builders import (
    facts_error_message,
    facts_message,
    make_facts,
    make_facts_pod,
    make_job,
    make_node,
    make_pod,
    make_service,
)
from tests.support.clock import FakeClock
from tests.support.kube import FakeKube, make_cache

from vllm_operator.engine.clock import rfc3339
from vllm_operator.engine.events import EventRecorder
from vllm_operator.engine.executor import Executor
from vllm_operator.engine.result import Done, RequeueAfter, Result
from vllm_operator.engine.status_writer import StatusWriter
from vllm_operator.kube.kinds import NODE, Manifest, ObjectRef
from vllm_operator.llmservice.cluster_inventory import ClusterInventory
from vllm_operator.llmservice.reconcile import LLMServiceReconciler
from vllm_operator.queue.view import SeenHeartbeat, ShardCounts
from vllm_operator.settings import Settings
from vllm_operator_api.names import APPLIED_HASH_ANNOTATION, FIELD_MANAGER, ROUTABLE_LABEL, STATUS_FIELD_MANAGER
from vllm_operator_api.queue import EngineReport, Heartbeat, JobProgress, LeaseReport

KEY = ObjectRef("LLMService", "team-a", "chat")
DEPLOYMENT = ObjectRef("Deployment", "team-a", "chat-engine")
SERVICE = ObjectRef("Service", "team-a", "chat")
POD = ObjectRef("Pod", "team-a", "chat-engine-1")


@dataclass
class FakeQueue:
    """A QueueView that a test fills."""

    connected: bool = True
    problem: str | None = None
    seen: list[SeenHeartbeat] = field(default_factory=list)

    def heartbeats(self, queue_id: str) -> tuple[SeenHeartbeat, ...]:
        return tuple(seen for seen in self.seen if seen.heartbeat.queue_id == queue_id)

    def progress(self, job_uid: str) -> JobProgress | None:
        return None

    def shard_counts(self, job_uid: str) -> ShardCounts | None:
        return None


class World:
    """A cluster with one LLMService, and the operator's object graph as far as it concerns it."""

    def __init__(self, service: Manifest, *nodes: Manifest) -> None:
        self.cache = make_cache()
        self.kube = FakeKube(self.cache)
        self.clock = FakeClock()
        self.queue = FakeQueue()
        self.cluster = ClusterInventory(self.cache, (), lambda: None)
        self.kube.listen(self._node_changed)
        for node in nodes or (make_node().gpus(8).product("NVIDIA-L4", 23034).build(),):
            self.kube.seed(node)
        self.service = self.kube.seed(service)
        self._start()

    def restarted(self) -> World:
        """The same cluster, seen by a new process of the operator."""
        self._start()
        return self

    def _start(self) -> None:
        executor = Executor(self.kube, self.cache, FIELD_MANAGER, APPLIED_HASH_ANNOTATION)
        self.reconciler = LLMServiceReconciler(
            cache=self.cache,
            executor=executor,
            status_writer=StatusWriter(self.kube, self.clock, STATUS_FIELD_MANAGER, 5.0, self.cache),
            events=EventRecorder(self.kube, "vllm-operator", self.clock),
            queue=self.queue,
            cluster=self.cluster,
            settings=Settings(drain_quiet_seconds=8.0),
            clock=self.clock,
        )

    def _node_changed(self, event: str, manifest: Manifest) -> None:
        if manifest["kind"] == NODE.kind:
            self.cluster.node_changed(manifest["metadata"]["name"])

    async def reconcile(self) -> Result:
        """Reconcile, then once more: the second time must write nothing."""
        result = await self.reconciler.reconcile(KEY)
        self.kube.reset_calls()
        await self.reconciler.reconcile(KEY)
        assert self.kube.writes == []
        return result

    async def read_facts(self, message: str) -> None:
        """Reconcile, and let the facts Job that it makes end with this message."""
        await self.reconcile()
        job = self.facts_job()
        assert job is not None
        self.kube.seed(make_facts_pod(self.service, job, job["metadata"]["name"] + "-1").terminated(message).build())
        done = {"type": "Complete", "status": "True", "lastTransitionTime": rfc3339(self.clock.now())}
        self.kube.set_status(ObjectRef.of(job), {"conditions": [done]})
        await self.reconcile()

    async def serve(self) -> None:
        """From nothing to one ready engine, known by its heartbeats."""
        await self.read_facts(facts_message(make_facts()))
        self.start_pod()
        await self.reconcile()

    def start_pod(self, name: str = "chat-engine-1") -> None:
        self.kube.seed(make_pod(self.service, name).node("node-1").ready(rfc3339(self.clock.now())).build())
        self.beat(0, 0, name=name)

    def beat(
        self, in_flight: int, idle: float, *, leases: int = 0, name: str = "chat-engine-1", age: float = 0.0
    ) -> None:
        pod = self.kube.objects[ObjectRef("Pod", "team-a", name)]
        lease = LeaseReport(job_uid="j", shard=0, rows=1, done=0, age_seconds=1, renewed_seconds_ago=1)
        heartbeat = Heartbeat(
            queue_id=self.service["metadata"]["uid"],
            worker=name,
            pod_uid=pod["metadata"]["uid"],
            node="node-1",
            state="running",
            slots=4,
            sequence=1,
            engine=EngineReport(ready=True, in_flight=in_flight, idle_seconds=idle, requests_total=0),
            leases=[lease] * leases,
        )
        self.queue.seen = [seen for seen in self.queue.seen if seen.heartbeat.worker != name]
        self.queue.seen.append(SeenHeartbeat(heartbeat=heartbeat, age_seconds=age))

    def facts_job(self) -> Manifest | None:
        return next((m for ref, m in self.kube.objects.items() if ref.kind == "Job"), None)

    def condition(self, kind: str) -> tuple[str, str, str]:
        found = next(c for c in self.status()["conditions"] if c["type"] == kind)
        return found["status"], found["reason"], found["message"]

    def status(self) -> dict[str, Any]:
        return dict(self.kube.objects[KEY]["status"])

    def replicas(self) -> int:
        return int(self.kube.objects[DEPLOYMENT]["spec"]["replicas"])

    def events(self) -> list[str]:
        return [m["reason"] for ref, m in self.kube.objects.items() if ref.kind == "Event"]


@pytest.fixture
def world() -> World:
    return World(make_service().idle_after("5m").build())


async def test_reads_the_facts_first(world: World) -> None:
    await world.reconcile()

    assert world.facts_job() is not None
    assert DEPLOYMENT not in world.kube.objects
    assert SERVICE in world.kube.objects
    assert world.condition("Accepted")[:2] == ("True", "Valid")
    assert world.condition("Planned")[:2] == ("Unknown", "ReadingModelFacts")
    assert world.condition("Ready")[:2] == ("False", "Planning")
    assert world.status()["ready"] == "0/0"


async def test_makes_the_engines_when_the_facts_are_known(world: World) -> None:
    world.kube.edit(KEY, lambda m: m["spec"]["model"].update(maxLength=8192))
    await world.read_facts(facts_message(make_facts()))

    deployment = world.kube.objects[DEPLOYMENT]
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    assert deployment["spec"]["replicas"] == 1
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert world.condition("Planned")[:2] == ("True", "Planned")
    assert world.status()["plan"]["tensor"] == 1
    assert world.status()["plan"]["product"] == "NVIDIA-L4"
    assert world.condition("Ready")[:2] == ("False", "Starting")


async def test_serves(world: World) -> None:
    await world.serve()

    assert world.condition("Ready") == ("True", "Serving", "1 engine(s) serve")
    assert world.condition("ModelLoaded")[0] == "True"
    assert world.condition("Degraded")[0] == "False"
    assert world.status()["ready"] == "1/1"
    assert world.status()["url"] == "http://chat.team-a.svc.cluster.local:8000"
    assert world.status()["workers"]["ready"] == 1
    assert world.status()["workers"]["items"][0]["state"] == "running"


async def test_sleeps_when_idle_and_is_woken_by_a_job(world: World) -> None:
    await world.serve()
    world.clock.advance(301)
    world.beat(0, 301)
    result = await world.reconcile()
    assert world.condition("Ready")[:2] == ("False", "Draining")
    assert world.kube.objects[POD]["metadata"]["labels"][ROUTABLE_LABEL] == "false"
    assert world.replicas() == 1
    assert result == RequeueAfter(1.0)

    world.clock.advance(8)
    world.beat(0, 309)
    await world.reconcile()
    assert world.replicas() == 0
    assert world.condition("Ready")[:2] == ("False", "Asleep")
    assert world.condition("Asleep")[:2] == ("True", "Idle")
    assert world.status()["plan"]["tensor"] == 2

    world.kube.remove(POD)
    world.queue.seen.clear()
    assert await world.reconcile() == Done()
    assert world.status()["ready"] == "0/0"

    world.kube.seed(make_job("batch", "chat").phase("Running").build())
    await world.reconcile()
    assert world.replicas() == 1
    assert world.condition("Ready")[:2] == ("False", "Waking")
    world.start_pod("chat-engine-2")
    await world.reconcile()
    assert world.condition("Ready")[:2] == ("True", "Serving")
    assert {"Serving", "Draining", "Asleep", "Waking"} <= set(world.events())


async def test_an_evicted_pod_is_not_counted(world: World) -> None:
    await world.serve()
    world.kube.seed(make_pod(world.service, "evicted").set("status.phase", "Failed").build())
    await world.reconcile()
    assert world.status()["ready"] == "1/1"
    assert world.status()["replicas"] == 1


async def test_a_request_during_the_drain_takes_it_back(world: World) -> None:
    await world.serve()
    world.clock.advance(301)
    world.beat(0, 301)
    await world.reconcile()

    world.beat(1, 0)
    await world.reconcile()

    assert world.kube.objects[POD]["metadata"]["labels"][ROUTABLE_LABEL] == "true"
    assert "annotations" not in world.kube.objects[POD]["metadata"] or not world.kube.objects[POD]["metadata"][
        "annotations"
    ].get("inference.vllm-operator.io/fenced-at")
    assert world.condition("Ready")[:2] == ("True", "Serving")
    assert world.replicas() == 1


async def test_an_error_of_the_model_is_told_and_looked_at_again(world: World) -> None:
    await world.read_facts(facts_error_message("ModelNotFound", "there is no config.json"))
    assert world.condition("Planned") == ("False", "ModelNotFound", "pvc://models/llama: there is no config.json")
    assert world.condition("Ready")[:2] == ("False", "ModelNotFound")
    assert DEPLOYMENT not in world.kube.objects

    world.clock.advance(61)
    await world.reconciler.reconcile(KEY)
    assert world.facts_job() is None
    assert world.condition("Planned")[1] == "ModelNotFound"
    await world.reconcile()
    assert world.facts_job() is not None
    assert world.condition("Planned")[1] == "ModelNotFound"
