"""What engines tell of their memory: shown, remembered, warned of, and planned again with, within bounds."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from tests.support.builders import facts_message, make_facts, make_node, make_pod, make_service
from tests.unit.llmservice.test_reconcile import DEPLOYMENT, KEY, World

from vllm_operator.engine.clock import rfc3339
from vllm_operator.kube.errors import KubeError, RetryableError
from vllm_operator.kube.kinds import Manifest, ObjectRef
from vllm_operator.planner.record import PlanRecord
from vllm_operator.queue.view import SeenHeartbeat
from vllm_operator_api.names import PLAN_ANNOTATION, PLAN_KEY_ANNOTATION
from vllm_operator_api.queue import KvCacheReport
from vllm_operator_api.runtime import EngineExit, GpuOutOfMemory, LengthTooLong, NoCacheBlocks

LENGTH = 131072


def node(product: str = "NVIDIA-H100-80GB-HBM3", memory_mib: int = 81559, gpus: int = 8) -> Manifest:
    return make_node().gpus(gpus).product(product, memory_mib).build()


def service(**parallelism: Any) -> Manifest:
    return make_service().model("pvc://models/llama", maxLength=LENGTH).set("spec.parallelism", parallelism).build()


async def planned(parallelism: dict[str, Any] | None = None, *nodes: Manifest) -> World:
    world = World(service(**parallelism or {}), *(nodes or (node(),)))
    await world.read_facts(facts_message(make_facts()))
    return world


def record(world: World) -> PlanRecord:
    annotation = world.kube.objects[DEPLOYMENT]["metadata"]["annotations"][PLAN_ANNOTATION]
    return PlanRecord.model_validate_json(annotation)


def plan(world: World) -> dict[str, Any]:
    shown: dict[str, Any] = world.status()["plan"]
    return shown


def start(world: World, name: str = "chat-engine-1", *, key: str | None = None) -> None:
    """A ready pod of the plan in force (or of that ``key``) whose agent is heard."""
    template = world.kube.objects[DEPLOYMENT]["spec"]["template"]["metadata"]["annotations"]
    pod = make_pod(world.service, name).node("node-1").ready(rfc3339(world.clock.now()))
    pod.set("metadata.annotations", {PLAN_KEY_ANNOTATION: key or template[PLAN_KEY_ANNOTATION]})
    world.kube.seed(pod.build())
    world.beat(0, 0, name=name)


def tells(world: World, blocks: int, name: str = "chat-engine-1") -> None:
    """The agent's heartbeat tells of a KV cache of so many blocks of 16 tokens."""
    report = KvCacheReport(
        blocks=blocks, block_tokens=16, tokens=blocks * 16, max_concurrency=round(blocks * 16 / LENGTH, 2)
    )
    world.queue.seen = [
        SeenHeartbeat(heartbeat=seen.heartbeat.model_copy(update={"kv_cache": report}), age_seconds=0.0)
        if seen.heartbeat.worker == name
        else seen
        for seen in world.queue.seen
    ]


def die(world: World, fault: Any, name: str = "chat-engine-1", *, key: str | None = None) -> None:
    """The engine of the plan in force ends with this fault."""
    template = world.kube.objects[DEPLOYMENT]["spec"]["template"]["metadata"]["annotations"]
    message = EngineExit(stage="start", exit_code=1, message="as vLLM says", fault=fault).model_dump_json()
    pod = make_pod(world.service, name).node("node-1").crashed(message)
    pod.set("metadata.annotations", {PLAN_KEY_ANNOTATION: key or template[PLAN_KEY_ANNOTATION]})
    world.kube.seed(pod.build())


async def test_what_the_engine_has_is_shown_beside_what_was_predicted() -> None:
    world = await planned()
    predicted = plan(world)["predicted"]["kvCacheTokens"]
    start(world)
    tells(world, predicted // 16)
    await world.reconcile()
    observed = plan(world)["observed"]
    assert observed["kvCacheTokens"] == predicted
    assert observed["deviation"] == "+0.0 %"
    assert observed["overheadGiB"] == plan(world)["predicted"]["overheadGiB"]
    assert world.condition("Planned")[1] == "Planned"


@pytest.mark.parametrize(("share", "reason"), [(1.05, "Planned"), (1.2, "PlanMismatch"), (0.85, "PlanMismatch")])
async def test_more_than_a_tenth_off_is_a_warning(share: float, reason: str) -> None:
    world = await planned()
    predicted = plan(world)["predicted"]["kvCacheTokens"]
    start(world)
    tells(world, int(predicted * share) // 16)
    await world.reconcile()
    status, found, message = world.condition("Planned")
    assert (status, found) == ("True", reason)
    if reason == "PlanMismatch":
        assert f"{predicted} were predicted" in message


async def test_the_next_plan_counts_with_what_was_seen() -> None:
    world = await planned()
    blocks = plan(world)["predicted"]["kvCacheTokens"] // 16
    start(world)
    tells(world, blocks - 8192)  # a GiB less
    await world.reconcile()
    (remembered,) = world.status()["calibration"]
    assert remembered["key"] == record(world).placements[0].calibration_key

    world.kube.edit(KEY, lambda found: found["spec"]["model"].update(maxLength=LENGTH // 2))
    world.kube.edit(KEY, lambda found: found["metadata"].update(generation=2))
    await world.reconcile()
    assert plan(world)["confidence"] == "High"
    assert float(plan(world)["predicted"]["overheadGiB"]) == pytest.approx(remembered["overheadMiB"] / 1024, abs=0.1)


async def test_a_pod_of_an_earlier_plan_proves_nothing() -> None:
    world = await planned()
    start(world, key="another-0")
    tells(world, 17)
    await world.reconcile()
    assert "observed" not in plan(world)
    assert not world.status().get("calibration")


async def test_an_engine_that_finds_too_little_gets_a_plan_that_needs_less() -> None:
    world = await planned()
    assert plan(world)["tensor"] == 1
    before = record(world)
    die(world, LengthTooLong(length_tokens=LENGTH, needed_gib=16.0, available_gib=12.0, longest_tokens=98304))
    await world.reconcile()
    after = record(world)
    assert after.given_up == (before.placements[0].calibration_key,)
    assert (after.layout.gpus, after.batched_tokens) != (before.layout.gpus, before.batched_tokens)
    assert [entry["key"] for entry in world.status()["calibration"]] == [before.placements[0].calibration_key]


async def test_running_out_of_memory_lowers_the_token_budget_first() -> None:
    """One GPU whose room is enough with a smaller budget: no second GPU is taken."""
    world = World(make_service().model("pvc://models/llama", maxLength=8192).build(), node("NVIDIA-L4", 23034, 8))
    await world.read_facts(facts_message(make_facts()))
    before = record(world)
    die(world, GpuOutOfMemory(tried_gib=0.5))
    await world.reconcile()
    after = record(world)
    assert (before.batched_tokens, after.batched_tokens) == (8192, 2048)
    assert after.layout == before.layout


async def test_escalation_ends_after_two() -> None:
    world = await planned()
    for number in range(5):
        die(world, NoCacheBlocks(), f"chat-engine-{number}")
        await world.reconcile()
        world.kube.remove(ObjectRef("Pod", "team-a", f"chat-engine-{number}"))
        await world.reconcile()
    assert len(record(world).given_up) == 2


async def test_a_degree_that_is_given_is_never_changed() -> None:
    world = await planned({"tensor": 1, "pipeline": 1, "data": 1})
    before = record(world)
    die(world, NoCacheBlocks())
    await world.reconcile()
    assert record(world).layout == before.layout
    assert world.condition("Ready")[1] == "EngineFailed"


async def test_escalation_can_be_turned_off() -> None:
    world = await planned({"onInsufficientMemory": "Report"})
    before = record(world)
    die(world, NoCacheBlocks())
    await world.reconcile()
    assert record(world) == before
    assert world.condition("Ready")[1] == "EngineFailed"


async def test_a_fault_of_an_earlier_plan_changes_nothing() -> None:
    world = await planned()
    before = record(world)
    die(world, NoCacheBlocks(), key="another-0")
    await world.reconcile()
    assert record(world) == before


async def test_what_is_remembered_is_bounded() -> None:
    world = await planned()
    for number in range(12):
        name, target = f"chat-engine-{number}", {"target": 8 + number}
        world.kube.edit(KEY, lambda found, target=target: found["spec"].update(concurrency=target))
        world.kube.edit(KEY, lambda found, number=number: found["metadata"].update(generation=2 + number))
        await world.reconcile()
        start(world, name)
        tells(world, plan(world)["predicted"]["kvCacheTokens"] // 16, name)
        await world.reconcile()
        world.kube.remove(ObjectRef("Pod", "team-a", name))
    assert len(world.status()["calibration"]) == 8


async def test_what_a_pod_tells_counts_for_the_product_on_which_it_runs() -> None:
    """The plan allows two products; its prediction is for the smaller, and the pod is on the larger."""
    world = World(
        make_service().model("pvc://models/llama", maxLength=8192).build(),
        node(),
        make_node("l40s").gpus(8).product("NVIDIA-L40S", 46068).build(),
    )
    await world.read_facts(facts_message(make_facts()))
    kept = record(world)
    assert set(kept.products) == {"NVIDIA-L40S", "NVIDIA-H100-80GB-HBM3"}
    start(world)  # on node-1, an H100
    tells(world, 28_000)
    await world.reconcile()
    assert world.condition("Planned")[1] == "Planned"
    assert "deviation" not in plan(world)["observed"]
    h100 = next(each for each in kept.placements if each.product == "NVIDIA-H100-80GB-HBM3")
    assert [entry["key"] for entry in world.status()["calibration"]] == [h100.calibration_key]


async def test_a_pod_of_before_a_change_of_memory_settings_proves_nothing() -> None:
    world = await planned()
    start(world)
    world.kube.edit(KEY, lambda found: found["spec"].update(engine={"gpuMemoryUtilization": 0.6}))
    world.kube.edit(KEY, lambda found: found["metadata"].update(generation=2))
    await world.reconcile()
    tells(world, plan(world)["predicted"]["kvCacheTokens"] // 16 + 9000)  # the old pod still reports its larger cache
    await world.reconcile()
    assert "observed" not in plan(world)
    assert not world.status().get("calibration")


async def test_engines_that_serve_stay_where_they_are_when_their_node_is_cordoned() -> None:
    world = World(
        make_service().model("pvc://models/llama", maxLength=8192).build(),
        node(),
        make_node("l4").gpus(8).product("NVIDIA-L4", 23034).cordoned().build(),
    )
    await world.read_facts(facts_message(make_facts()))
    before = record(world)
    start(world)
    world.kube.edit(ObjectRef("Node", "", "node-1"), lambda found: found["spec"].update(unschedulable=True))
    world.kube.edit(ObjectRef("Node", "", "l4"), lambda found: found["spec"].update(unschedulable=False))
    await world.reconcile()
    assert record(world) == before


async def test_a_failed_write_does_not_start_the_count_of_escalations_anew() -> None:
    world = await planned()
    for number in range(5):
        world.kube.fail(RetryableError("busy"), verb="apply", kind="Deployment")
        die(world, NoCacheBlocks(), f"chat-engine-{number}")
        with suppress(KubeError, ExceptionGroup):
            await world.reconciler.reconcile(KEY)
        await world.reconciler.reconcile(KEY)
        world.kube.remove(ObjectRef("Pod", "team-a", f"chat-engine-{number}"))
        await world.reconcile()
    assert len(record(world).given_up) == 2


@pytest.mark.parametrize(
    ("field", "value"),
    [("layout", {"tensor": 1, "nodes": 0}), ("weights_bytes", 10**400), ("batched_tokens", -5), ("home_gib", -3)],
)
async def test_a_plan_that_was_edited_into_nonsense_is_made_anew(field: str, value: Any) -> None:
    world = await planned()
    before = record(world)

    def edit(found: Manifest) -> None:
        annotations = found["metadata"]["annotations"]
        annotations[PLAN_ANNOTATION] = json.dumps({**json.loads(annotations[PLAN_ANNOTATION]), field: value})

    world.kube.edit(DEPLOYMENT, edit)
    await world.reconcile()
    assert record(world) == before


async def test_a_cache_beyond_all_measure_is_told_within_the_status_bounds() -> None:
    world = World(
        make_service().model("pvc://models/llama", maxLength=256).set("spec.engine", {"kvCacheMemory": "64Mi"}).build(),
        node(),
    )
    await world.read_facts(facts_message(make_facts()))
    start(world)
    tells(world, 10**9)
    await world.reconcile()
    assert world.condition("Planned")[1] == "PlanMismatch"
