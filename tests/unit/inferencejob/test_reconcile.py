"""An InferenceJob through its life against an API server in memory and a queue in memory."""

from __future__ import annotations

from datetime import timedelta

from tests.support.job_world import CM_OUT, INLINE, NS, World

from vllm_operator.engine.clock import rfc3339
from vllm_operator.kube.kinds import ObjectRef
from vllm_operator.queue.view import SeenHeartbeat, ShardCounts
from vllm_operator_api.names import child_name
from vllm_operator_api.queue import EngineReport, Heartbeat, LeaseReport


async def test_from_creation_to_the_end(world: World) -> None:
    service = world.add_service(spec__queue={"maxJobs": 3, "leaseSeconds": 20})
    queue_id = service["metadata"]["uid"]
    world.add_job()
    await world.reconcile()
    assert world.driver["metadata"]["name"] == child_name("job", "driver", queue_id)
    assert world.status["phase"] == "Pending"
    assert world.condition("Accepted")[0] == "True"
    assert world.condition("InputReady") == ("Unknown", "ReadingInput", "")
    assert world.condition("WorkersReady")[:2] == ("False", "ServiceNotReady")
    assert world.condition("Complete") == ("False", "DriverStarting", "the driver starts")
    assert world.queue.calls == [("ensure", queue_id, world.uid, 20, 6)]

    world.run_pod()
    world.tell("Validating")
    await world.reconcile()
    assert world.status["phase"] == "Validating"
    assert world.condition("Complete")[1] == "ReadingInput"

    world.clock.advance(10)
    world.queue.beats = [
        SeenHeartbeat(
            age_seconds=1.0,
            heartbeat=Heartbeat(
                queue_id=queue_id,
                worker="echo-0",
                pod_uid="p",
                node="n1",
                state="running",
                slots=3,
                sequence=1,
                engine=EngineReport(ready=True, in_flight=4, idle_seconds=0, requests_total=9),
                leases=[
                    LeaseReport(job_uid=world.uid, shard=2, rows=10, done=3, age_seconds=12, renewed_seconds_ago=1),
                    LeaseReport(job_uid="another", shard=0, rows=1, done=0, age_seconds=99, renewed_seconds_ago=1),
                ],
            ),
        )
    ]
    world.queue.counts[world.uid] = ShardCounts(pending=5, leased=1, redelivered=1)
    numbers = {"rows_total": 80, "shards_total": 8, "prompt_tokens": 100, "completion_tokens": 50}
    world.tell("Running", rows_completed=19, rows_failed=1, shards_committed=2, **numbers)
    await world.reconcile()
    status = world.status
    assert status["phase"] == "Running"
    assert status["rows"] == {"total": 80, "completed": 19, "failed": 1}
    assert status["progress"] == "20/80"
    assert status["shards"] == {"total": 8, "committed": 2, "leased": 1, "pending": 5, "redelivered": 1}
    assert status["leases"] == {"active": 1, "oldestSeconds": 10}
    assert status["usage"] == {"promptTokens": 100, "completionTokens": 50}
    (worker,) = status["workers"]["items"]
    assert worker == {
        "name": "echo-0",
        "node": "n1",
        "state": "running",
        "inFlight": 4,
        "leases": 2,
        "lastHeartbeatTime": "2026-01-01T00:00:00Z",
    }
    assert world.condition("InputReady") == ("True", "InputValid", "the input has 80 rows")
    assert world.condition("WorkersReady") == ("True", "WorkersReady", "")

    world.clock.advance(60)
    world.tell("Succeeded", rows_completed=78, rows_failed=2, shards_committed=8, **numbers)
    await world.reconcile()
    assert world.status["phase"] == "Finalizing"

    done = world.report(
        "Succeeded",
        rows_completed=78,
        rows_failed=2,
        shards_committed=8,
        output_bytes=99,
        output_sha256="ab",
        **numbers,
    )
    world.end_pod(done)
    await world.reconcile()
    status = world.status
    assert status["phase"] == "PartiallySucceeded"
    assert status["progress"] == "80/80"
    assert status["output"] == {"location": "pvc://data/out.jsonl", "bytes": 99, "sha256": "ab"}
    assert (status["startTime"], status["completionTime"]) == ("2026-01-01T00:00:00Z", "2026-01-01T00:01:10Z")
    assert world.condition("Complete") == ("True", "RowsFailed", "2 of 80 rows carry an error")
    assert world.condition("Failed")[0] == "False"
    assert "workers" not in status
    assert world.queue.calls[-1] == ("delete", queue_id, world.uid)
    (event,) = world.kube.of_kind("Event")
    assert (event["type"], event["reason"]) == ("Normal", "RowsFailed")

    world.kube.reset_calls()
    world.queue.calls.clear()
    world.kube.remove(ObjectRef("Job", NS, world.driver["metadata"]["name"]))
    for _ in range(2):
        await world.reconcile()
        world.restart_operator()
    assert world.kube.writes == []
    assert world.status["phase"] == "PartiallySucceeded"


async def test_the_second_reconcile_writes_nothing(world: World) -> None:
    world.add_service()
    world.add_job(INLINE, CM_OUT)
    await world.reconcile()
    world.run_pod()
    world.tell("Running", rows_total=2, shards_total=1)
    await world.reconcile()
    world.kube.reset_calls()
    for _ in range(3):
        world.clock.advance(30)
        await world.reconcile()
    assert world.kube.calls == []
    world.restart_operator()
    await world.reconcile()
    assert world.kube.writes == []


async def test_a_job_waits_for_its_service_and_outlives_it(world: World) -> None:
    world.add_job()
    await world.reconcile()
    assert world.condition("WorkersReady") == (
        "False",
        "ServiceNotFound",
        "LLMService 'echo' does not exist in this namespace; the job waits for it",
    )
    assert world.status["phase"] == "Pending"
    assert world.kube.of_kind("Job") == []

    first = world.add_service()
    await world.reconcile()
    assert world.driver_config().queue.queue_id == first["metadata"]["uid"]
    world.run_pod()
    world.tell("Running", rows_total=10, rows_completed=4, shards_total=2, shards_committed=1)
    await world.reconcile()
    assert world.status["phase"] == "Running"

    world.kube.remove(ObjectRef("LLMService", NS, "echo"))
    await world.reconcile()
    assert world.kube.of_kind("Job") == []
    await world.reconcile()
    assert world.condition("WorkersReady")[1] == "ServiceNotFound"
    assert (world.status["phase"], world.status["progress"]) == ("Pending", "4/10")

    second = world.add_service(metadata__uid="another-uid")
    await world.reconcile()
    assert world.driver_config().queue.queue_id == second["metadata"]["uid"] != first["metadata"]["uid"]
    assert world.queue.calls[-1][:2] == ("ensure", second["metadata"]["uid"])


async def test_numbers_are_written_at_intervals_and_facts_at_once(world: World) -> None:
    world.add_service()
    world.add_job()
    await world.reconcile()
    world.run_pod()
    world.tell("Running", rows_total=100, shards_total=10)
    await world.reconcile()
    world.kube.reset_calls()
    for done in range(1, 5):
        world.clock.advance(1)
        world.tell("Running", rows_total=100, shards_total=10, rows_completed=done)
        await world.reconcile()
    assert world.kube.writes == []
    world.clock.advance(1)
    await world.reconcile()
    assert len(world.kube.writes) == 1
    assert world.status["progress"] == "4/100"
    world.tell("Finalizing", rows_total=100, shards_total=10, rows_completed=100)
    await world.reconcile()
    assert world.status["phase"] == "Finalizing"


async def test_a_deleted_job_is_left_to_the_garbage_collector(world: World) -> None:
    world.add_service()
    world.add_job()
    world.kube.edit(
        ObjectRef("InferenceJob", NS, "job"),
        lambda m: m["metadata"].__setitem__("deletionTimestamp", rfc3339(world.clock.now() + timedelta(seconds=1))),
    )
    await world.reconcile()
    assert world.kube.calls == []
