"""The queue under a job: away, forgetful, silent, swept."""

from __future__ import annotations

from tests.support.job_world import NS, World

from vllm_operator.inferencejob.sweep import sweep_queue
from vllm_operator.kube.kinds import ObjectRef


async def test_the_queue_is_away(world: World) -> None:
    world.add_service()
    world.add_job()
    world.queue.connected = False
    result = await world.reconcile()
    assert result.seconds <= 10  # type: ignore[union-attr]
    assert world.condition("QueueAvailable") == (
        "False",
        "QueueUnavailable",
        "the operator has no connection to the queue: cannot connect to nats://queue:4222: connection refused",
    )
    world.queue.connected = True
    await world.reconcile()
    assert world.condition("QueueAvailable")[0] == "True"
    assert world.queue.calls[0][0] == "ensure"


async def test_the_queue_forgot_the_job(world: World) -> None:
    world.add_service()
    world.add_job()
    await world.reconcile()
    await world.reconcile()
    assert len(world.queue.calls) == 1
    world.queue.counts.clear()
    await world.reconcile()
    assert len(world.queue.calls) == 2


async def test_a_driver_that_is_not_heard(world: World) -> None:
    world.add_service()
    world.add_job()
    await world.reconcile()
    world.run_pod()
    world.clock.advance(50)
    await world.reconcile()
    status, reason, message = world.condition("QueueAvailable")
    assert (status, reason) == ("False", "QueueUnavailable")
    assert "Secret 'vllm-operator-queue-driver' in this namespace (chart value queue.namespaces)" in message


async def test_the_sweep_keeps_what_lives(world: World) -> None:
    service = world.add_service()
    world.add_job()
    world.add_job(name="ended")
    world.kube.set_status(ObjectRef("InferenceJob", NS, "ended"), {"phase": "Succeeded"})
    await sweep_queue(world.kube, world.queue)
    assert world.queue.calls == [("sweep", frozenset({service["metadata"]["uid"]}), frozenset({world.uid}))]


async def test_a_queue_that_takes_no_jobs(world: World) -> None:
    """Connected, but without JetStream, or with an account that is full or may not."""
    world.add_service()
    world.add_job()
    world.queue.refusal = "the queue server does not offer JetStream now"
    await world.reconcile()
    assert world.condition("QueueAvailable") == (
        "False",
        "QueueUnavailable",
        "the queue does not take the job: the queue server does not offer JetStream now",
    )
    world.queue.refusal = None
    await world.reconcile()
    assert world.condition("QueueAvailable")[0] == "True"
