"""A plan stays while its inputs stay: nodes come and go, prices and free GPUs move, and nothing is rolled out."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.models import CONFIGS, pool

from vllm_operator.kube.kinds import ObjectRef
from vllm_operator.llmservice.facts import FactsState
from vllm_operator.llmservice.observe import EngineWorkload, Observed
from vllm_operator.llmservice.plan_step import PlanStepConfig, plan_step
from vllm_operator.llmservice.planning import Planned, still_possible
from vllm_operator.manifests.common import Owner
from vllm_operator.manifests.engine_pod import EngineInstall
from vllm_operator.planner.engine_options import default_engine_options
from vllm_operator.planner.inventory.pool import GpuPool, Inventory
from vllm_operator.planner.record import PlanRecord, parse_plan_record
from vllm_operator.planner.sources.location import ModelLocation
from vllm_operator_api.v1alpha1 import LLMService, LLMServiceSpec, LLMServiceStatus

PRODUCTS = ("NVIDIA-L4", "NVIDIA-A100-SXM4-80GB", "NVIDIA-H100-80GB-HBM3", "NVIDIA-H200")
RESOURCE = "nvidia.com/gpu"
CONFIG = PlanStepConfig(
    options=default_engine_options(),
    install=EngineInstall("runtime", "Always", "nats://x", "s", ""),
    operator_image="op",
)
NOW = datetime(2026, 1, 1, tzinfo=UTC)


@st.composite
def pools(draw: st.DrawFn) -> GpuPool:
    gpus, nodes = draw(st.sampled_from((1, 2, 4, 8))), draw(st.integers(0, 3))
    free = tuple(sorted(draw(st.lists(st.integers(0, gpus), max_size=nodes)), reverse=True))
    price = draw(st.sampled_from((0.0, 1.0, 2.5)))
    return pool(draw(st.sampled_from(PRODUCTS)), gpus=gpus, nodes=nodes, free_gpus_by_node=free, price=price)


CLUSTERS = st.lists(pools(), max_size=4).map(lambda found: Inventory(pools=tuple(found)))


def service(spec: dict[str, Any], status: LLMServiceStatus) -> LLMService:
    model = {"id": "acme/any", "maxLength": 8192, "facts": {"config": json.dumps(CONFIGS["llama-8b"])}}
    parsed = LLMServiceSpec.model_validate({"model": model, **spec})
    return LLMService(name="chat", namespace="a", uid="u", generation=1, spec=parsed, status=status)


def observed(inventory: Inventory, record: PlanRecord | None) -> Observed:
    workload = EngineWorkload(ref=ObjectRef("Deployment", "a", "chat-engine"), uid="d", replicas=1, record=record)
    return Observed(
        workloads=() if record is None else (workload,),
        pods=(),
        facts=FactsState(),
        inventory=inventory,
        leader_worker_set=False,
        quota_left=None,
        demanding_jobs=(),
        heartbeats={},
        queue_connected=True,
    )


class Operator:
    """One service over time: what it has written is what it sees next, as JSON, as on an API server."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self.spec = spec
        self.status = LLMServiceStatus()
        self.record: PlanRecord | None = None

    def look(self, inventory: Inventory) -> object:
        owner = Owner("LLMService", "a", "chat", "u")
        current = service(self.spec, self.status)
        step = plan_step(
            current, owner, ModelLocation(repository="acme/any"), observed(inventory, self.record), CONFIG, NOW
        )
        if isinstance(step.outcome, Planned):
            self.record = parse_plan_record(step.outcome.record.model_dump_json())
            assert self.record == step.outcome.record
            plan = step.outcome.status.model_dump(mode="json", by_alias=True, exclude_none=True)
            self.status = LLMServiceStatus.model_validate({"plan": plan})
        return step.outcome


@given(st.lists(CLUSTERS, min_size=2, max_size=6))
@settings(max_examples=80, deadline=None)
def test_a_plan_changes_only_when_it_is_impossible(clusters: list[Inventory]) -> None:
    operator = Operator({})
    for inventory in clusters:
        before = operator.record
        operator.look(inventory)
        if before is not None and operator.record != before:
            assert not still_possible(before, inventory, RESOURCE)


@given(CLUSTERS, st.integers(1, 3))
@settings(max_examples=60, deadline=None)
def test_a_second_look_decides_the_same(inventory: Inventory, looks: int) -> None:
    operator = Operator({})
    first = operator.look(inventory)
    for _ in range(looks):
        assert operator.look(inventory) == first


@given(CLUSTERS, CLUSTERS)
@settings(max_examples=60, deadline=None)
def test_what_the_plan_does_not_depend_on_changes_nothing(one: Inventory, other: Inventory) -> None:
    operator = Operator({})
    operator.look(one)
    before = operator.record
    operator.spec = {"scaling": {"minReplicas": 2, "idleAfter": "5m"}, "queue": {"maxJobs": 2}, "image": "mine"}
    operator.look(one)
    assert operator.record == before
    operator.spec = {**operator.spec, "concurrency": {"target": 8}}
    operator.look(other)
    if before is not None and isinstance(operator.record, PlanRecord) and operator.record != before:
        assert operator.record.inputs != before.inputs or not still_possible(before, other, RESOURCE)
