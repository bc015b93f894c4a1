"""What goes wrong around a service: it is told, it passes, and nothing is made of data that is not there."""

from __future__ import annotations

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
from tests.unit.llmservice.test_reconcile import DEPLOYMENT, KEY, POD, SERVICE, World

from vllm_operator.engine.clock import rfc3339
from vllm_operator.engine.result import RequeueAfter, Result
from vllm_operator.kube.errors import RetryableError, TerminalError
from vllm_operator.kube.kinds import Manifest, ObjectRef
from vllm_operator_api.names import ROUTABLE_LABEL

FOREIGN_SERVICE: Manifest = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "chat", "namespace": "team-a"},
    "spec": {"selector": {"app": "other"}},
}


def seconds_of(result: Result) -> float:
    assert isinstance(result, RequeueAfter)
    return result.seconds


async def test_a_foreign_service_of_the_name_is_no_endpoint_of_ours() -> None:
    world = World(make_service().build())
    world.kube.seed(FOREIGN_SERVICE)
    await world.read_facts(facts_message(make_facts()))

    assert world.condition("Accepted")[:2] == ("False", "NameConflict")
    assert DEPLOYMENT not in world.kube.objects  # GPUs would be held for engines that nobody can reach

    world.kube.remove(SERVICE)
    await world.reconcile()
    assert world.condition("Accepted")[0] == "True"
    assert DEPLOYMENT in world.kube.objects


async def test_a_service_whose_service_was_replaced_by_a_foreign_one_is_not_ready() -> None:
    world = World(make_service().build())
    await world.serve()
    world.kube.remove(SERVICE)
    world.kube.seed(FOREIGN_SERVICE)
    await world.reconcile()
    assert world.condition("Ready")[:2] == ("False", "NotAccepted")
    assert world.replicas() == 1


async def test_an_agent_that_falls_silent_is_looked_for_without_an_event() -> None:
    world = World(make_service().build())  # never sleeps: nothing else makes the operator look
    await world.serve()
    world.beat(0, 0)
    assert seconds_of(await world.reconcile()) <= 15
    world.clock.advance(20)
    world.beat(0, 0, age=20)
    await world.reconcile()
    assert world.status()["workers"]["stale"] == 1
    world.clock.advance(50)
    world.beat(0, 0, age=70)
    await world.reconcile()
    assert world.condition("Degraded")[:2] == ("True", "WorkerHeartbeatMissing")


async def test_an_agent_is_not_missed_by_an_operator_that_has_just_begun_to_listen() -> None:
    world = World(make_service().build())
    await world.serve()
    world.clock.advance(3600)
    world.queue.seen.clear()
    restarted = world.restarted()
    await restarted.reconcile()
    assert restarted.condition("Degraded")[0] == "False"
    restarted.clock.advance(61)
    await restarted.reconcile()
    assert restarted.condition("Degraded")[:2] == ("True", "WorkerHeartbeatMissing")


async def test_an_agent_is_not_missed_right_after_the_queue_came_back() -> None:
    world = World(make_service().build())
    await world.serve()
    world.clock.advance(3600)
    world.queue.connected = False
    world.beat(0, 0, age=300)
    await world.reconcile()
    world.clock.advance(10)
    world.queue.connected = True
    world.beat(0, 0, age=310)
    await world.reconcile()
    assert world.condition("QueueAvailable")[0] == "True"
    assert world.condition("Degraded")[0] == "False"
    world.clock.advance(61)
    world.beat(0, 0, age=371)
    await world.reconcile()
    assert world.condition("Degraded")[:2] == ("True", "WorkerHeartbeatMissing")


async def test_a_write_that_keeps_failing_is_told() -> None:
    world = World(make_service().build())
    await world.read_facts(facts_message(make_facts()))
    broken = 'Internal error occurred: failed calling webhook "policy.example.com": connection refused'
    world.kube.remove(DEPLOYMENT)
    world.kube.fail(RetryableError(broken, status=500), kind="Deployment", times=2)
    with pytest.raises(ExceptionGroup):
        await world.reconciler.reconcile(KEY)
    assert world.condition("Degraded")[:2] == ("True", "ApplyFailed")
    assert broken in world.condition("Degraded")[2]
    with pytest.raises(ExceptionGroup):
        await world.reconciler.reconcile(KEY)
    await world.reconcile()
    assert world.condition("Degraded")[0] == "False"


async def test_a_lost_connection_is_no_degradation() -> None:
    world = World(make_service().build())
    await world.read_facts(facts_message(make_facts()))
    world.kube.remove(DEPLOYMENT)
    world.kube.fail(RetryableError("no answer"), kind="Deployment")
    with pytest.raises(ExceptionGroup):
        await world.reconciler.reconcile(KEY)
    assert world.condition("Degraded")[0] == "False"


async def test_a_node_that_offers_gpus_by_the_hundred_thousand() -> None:
    node = make_node().gpus(655_360).product("NVIDIA-L4", 23034).build()
    world = World(make_service().build(), node)
    await world.read_facts(facts_message(make_facts()))
    assert world.condition("Planned")[:2] == ("True", "Planned")
    assert max(world.status()["plan"]["legalTensor"]) <= 64


@pytest.mark.parametrize(
    ("told", "hostile"),
    [
        ('"kv_heads":8', '"kv_heads":0'),
        ('"attention_heads":32', '"attention_heads":-1'),
        ('"total_bytes":16060522496', f'"total_bytes":{10**400}'),
        ('"vocab_size":128256', f'"vocab_size":{10**30}'),
        (f'"{"a" * 32}"', f'"{"b" * 32}"'),
        (f'"{"a" * 32}"', f'"{"a" * 5000}"'),
    ],
)
async def test_facts_out_of_all_bounds_are_no_facts(told: str, hostile: str) -> None:
    message = facts_message(make_facts())
    assert told in message
    world = World(make_service().build())
    await world.read_facts(message.replace(told, hostile))
    assert world.condition("Planned")[:2] == ("False", "ModelFactsUnavailable")
    assert DEPLOYMENT not in world.kube.objects


async def test_a_reader_that_says_nothing_is_not_run_again_and_again() -> None:
    world = World(make_service().build())
    await world.reconcile()
    job = world.facts_job()
    assert job is not None
    world.kube.seed(make_facts_pod(world.service, job).terminated("").build())
    done = {"type": "Complete", "status": "True", "lastTransitionTime": rfc3339(world.clock.now())}
    world.kube.set_status(ObjectRef.of(job), {"conditions": [done]})
    for _ in range(3):
        await world.reconciler.reconcile(KEY)
        found = world.facts_job()
        assert found is not None
        assert found["metadata"]["uid"] == job["metadata"]["uid"]
    world.clock.advance(61)
    await world.reconciler.reconcile(KEY)
    assert world.facts_job() is None


async def test_the_result_may_arrive_after_the_job_is_known_to_be_complete() -> None:
    world = World(make_service().build())
    await world.reconcile()
    job = world.facts_job()
    assert job is not None
    done = {"type": "Complete", "status": "True", "lastTransitionTime": rfc3339(world.clock.now())}
    world.kube.set_status(ObjectRef.of(job), {"conditions": [done]})
    await world.reconcile()
    world.kube.seed(make_facts_pod(world.service, job).terminated(facts_message(make_facts())).build())
    await world.reconcile()
    assert DEPLOYMENT in world.kube.objects


async def test_a_facts_pod_that_the_namespace_refuses_is_told() -> None:
    world = World(make_service().build())
    await world.reconcile()
    job = world.facts_job()
    assert job is not None
    world.kube.set_status(ObjectRef.of(job), {"startTime": rfc3339(world.clock.now())})
    result = await world.reconcile()
    assert world.condition("Planned")[:2] == ("Unknown", "ReadingModelFacts")
    assert seconds_of(result) <= 30
    world.clock.advance(31)
    await world.reconcile()
    status, reason, message = world.condition("Planned")
    assert (status, reason) == ("False", "ModelFactsUnavailable")
    assert f"kubectl describe job {job['metadata']['name']} -n team-a" in message
    assert "ResourceQuota" in message

    world.kube.seed(make_facts_pod(world.service, job).terminated(facts_message(make_facts())).build())
    done = {"type": "Complete", "status": "True", "lastTransitionTime": rfc3339(world.clock.now())}
    world.kube.set_status(ObjectRef.of(job), {"conditions": [done]})
    await world.reconcile()
    assert world.condition("Planned")[0] == "True"


async def asleep() -> World:
    world = World(make_service().idle_after("5m").build())
    await world.serve()
    world.clock.advance(301)
    world.beat(0, 301)
    await world.reconcile()
    world.clock.advance(8)
    world.beat(0, 309)
    await world.reconcile()
    world.kube.remove(POD)
    world.queue.seen.clear()
    await world.reconcile()
    assert world.condition("Asleep")[0] == "True"
    return world


async def test_another_model_for_a_sleeping_service_is_planned_without_waking_it() -> None:
    world = await asleep()
    old = world.facts_job()
    world.kube.edit(
        KEY, lambda m: (m["spec"]["model"].update(id="pvc://models/other"), m["metadata"].update(generation=2))
    )
    await world.reconcile()
    assert world.condition("Planned")[:2] == ("Unknown", "ReadingModelFacts")
    assert world.condition("Asleep")[0] == "True"
    new = world.facts_job()
    assert old is not None
    assert new is not None
    assert old["metadata"]["name"] != new["metadata"]["name"]

    await world.read_facts(facts_message(make_facts(kv_heads=4)))
    assert world.replicas() == 0
    config = world.kube.objects[DEPLOYMENT]["spec"]["template"]["spec"]["containers"][0]["env"][0]["value"]
    assert "/mnt/model/other" in config
    assert world.condition("Ready")[:2] == ("False", "Asleep")

    world.kube.seed(make_job("batch", "chat").phase("Running").build())
    await world.reconcile()
    assert world.replicas() == 1


async def test_a_sleeping_service_whose_new_spec_is_refused_still_sleeps() -> None:
    world = await asleep()
    world.kube.edit(KEY, lambda m: m["spec"].update(engine={"args": ["--middleware=x"]}))
    await world.reconcile()
    assert world.condition("Accepted")[0] == "False"
    assert world.condition("Asleep")[0] == "True"
    assert world.replicas() == 0


async def test_a_model_that_is_gone_does_not_flap_the_sleep_of_a_service() -> None:
    world = await asleep()
    world.kube.edit(KEY, lambda m: m["spec"]["model"].update(id="pvc://models/other"))
    await world.read_facts(facts_error_message("ModelNotFound", "there is no such directory"))
    assert world.condition("Planned")[:2] == ("False", "ModelNotFound")
    assert world.condition("Asleep")[0] == "True"


async def test_every_condition_says_something() -> None:
    world = World(make_service().idle_after("5m").build())
    await world.serve()
    for condition in world.status()["conditions"]:
        assert condition["message"], condition
        assert condition["reason"], condition
        assert condition["observedGeneration"] == 1


async def test_a_facts_job_that_the_namespace_refuses_is_told() -> None:
    world = World(make_service().build())
    quota = 'jobs.batch "chat-facts" is forbidden: exceeded quota: q'
    world.kube.fail(TerminalError(quota, status=403), verb="create", kind="Job")
    await world.reconciler.reconcile(KEY)
    assert world.condition("Planned")[:2] == ("False", "ModelFactsUnavailable")
    assert quota in world.condition("Planned")[2]
    assert world.condition("Ready")[:2] == ("False", "ModelFactsUnavailable")
    assert world.condition("ModelLoaded")[1] == "Planning"


async def test_a_node_that_is_gone_is_named() -> None:
    world = World(make_service().build())
    await world.serve()
    world.kube.seed(make_node("node-2").gpus(8).product("NVIDIA-L4", 23034).build())
    world.kube.seed(make_node().gpus(8).product("NVIDIA-L4", 23034).not_ready().build())
    world.kube.seed(make_pod(world.service).node("node-1").loading().build())
    await world.reconcile()
    status, reason, message = world.condition("Ready")
    assert (status, reason) == ("False", "Starting")
    assert "the node node-1 does not answer" in message


async def test_a_pod_that_is_long_in_starting_can_be_looked_up() -> None:
    world = World(make_service().build())
    await world.read_facts(facts_message(make_facts()))
    world.kube.seed(make_pod(world.service).node("node-1").waiting("ContainerCreating").build())
    await world.reconcile()
    assert world.condition("Ready")[:2] == ("False", "Starting")
    assert "kubectl describe pod chat-engine-1 -n team-a" in world.condition("Ready")[2]


async def test_a_spec_that_cannot_be_read_takes_a_drain_back() -> None:
    world = World(make_service().idle_after("5m").build())
    await world.serve()
    world.clock.advance(301)
    world.beat(0, 301)
    await world.reconcile()
    assert world.condition("Ready")[1] == "Draining"
    world.kube.edit(KEY, lambda m: m["spec"].update(model={}))
    await world.reconcile()
    assert world.kube.objects[POD]["metadata"]["labels"][ROUTABLE_LABEL] == "true"
    assert world.condition("Ready")[:2] == ("True", "Serving")
    assert world.condition("Accepted")[:2] == ("False", "InvalidSpec")


async def test_a_new_operator_does_not_forget_when_an_agent_was_heard() -> None:
    world = World(make_service().build())
    await world.serve()
    heard_at = world.status()["workers"]["items"][0]["lastHeartbeatTime"]
    world.queue.seen.clear()
    await world.restarted().reconcile()
    assert world.status()["workers"]["items"][0]["lastHeartbeatTime"] == heard_at
