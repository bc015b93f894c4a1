"""Outputs that go into a ConfigMap."""

from __future__ import annotations

import pytest
from tests.support.job_world import CM_OUT, NS, PVC, World

from vllm_operator.engine.executor import UnfinishedWritesError
from vllm_operator.kube.errors import RetryableError, TerminalError
from vllm_operator.kube.kinds import ObjectRef
from vllm_operator_api.names import API_VERSION


async def test_a_config_map_output_that_exists_is_refused_before_anything_runs(world: World) -> None:
    world.kube.seed(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "answers", "namespace": NS}, "data": {"a": "b"}}
    )
    world.add_service()
    world.add_job(PVC, CM_OUT)
    await world.reconcile()
    assert world.condition("Failed")[:2] == ("True", "OutputExists")
    assert world.kube.of_kind("Job") == []
    (config_map,) = world.kube.of_kind("ConfigMap")
    assert config_map["data"] == {"a": "b"}


async def test_a_config_map_output(world: World) -> None:
    world.add_service()
    world.add_job(PVC, CM_OUT)
    await world.reconcile()
    assert world.driver_config().output.path is None
    world.run_pod()
    world.tell("Running", rows_total=1, shards_total=1)
    await world.reconcile()
    world.queue.outputs[world.uid] = '{"answer":"ü"}\n'.encode()
    world.queue.connected = False
    world.end_pod(world.report("Succeeded", rows_total=1, rows_completed=1))
    await world.reconcile()
    assert world.status["phase"] == "Finalizing"
    world.queue.connected = True
    await world.reconcile()
    assert world.status["phase"] == "Succeeded"
    (config_map,) = world.kube.of_kind("ConfigMap")
    assert config_map["data"] == {"out.jsonl": '{"answer":"ü"}\n'}
    assert config_map["metadata"]["ownerReferences"][0]["uid"] == world.uid
    assert world.status["output"]["location"] == "configmap://answers/out.jsonl"
    assert world.status["output"]["bytes"] == 16
    assert world.uid not in world.queue.outputs


async def test_an_operator_that_dies_between_config_map_and_status(world: World) -> None:
    world.add_service()
    world.add_job(PVC, CM_OUT)
    await world.reconcile()
    world.queue.outputs[world.uid] = b"{}\n"
    world.end_pod(world.report("Succeeded", rows_total=1, rows_completed=1))
    world.kube.fail(TerminalError("gone", status=403), verb="apply", kind="InferenceJob")
    with pytest.raises(TerminalError):
        await world.reconcile()
    world.restart_operator()
    await world.reconcile()
    assert world.status["phase"] == "Succeeded"


async def test_the_config_map_appears_while_the_job_runs(world: World) -> None:
    world.add_service()
    world.add_job(PVC, CM_OUT)
    await world.reconcile()
    world.kube.seed(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "answers", "namespace": NS}, "data": {}}
    )
    world.queue.outputs[world.uid] = b"{}\n"
    world.end_pod(world.report("Succeeded", rows_total=1, rows_completed=1))
    await world.reconcile()
    assert world.condition("Failed")[:2] == ("True", "OutputExists")
    assert world.kube.of_kind("ConfigMap")[0]["data"] == {}


async def test_an_output_that_the_queue_lost_is_made_again(world: World) -> None:
    world.add_service()
    world.add_job(PVC, CM_OUT)
    await world.reconcile()
    first = world.driver["metadata"]["uid"]
    world.end_pod(world.report("Succeeded", rows_total=1, rows_completed=1))
    await world.reconcile()
    assert world.kube.of_kind("Job") == []
    await world.reconcile()
    assert world.driver["metadata"]["uid"] != first


async def test_an_output_that_cannot_be_made_yet_ends_nothing(world: World) -> None:
    world.add_service()
    world.add_job(PVC, CM_OUT)
    await world.reconcile()
    world.queue.outputs[world.uid] = b"{}\n"
    world.end_pod(world.report("Succeeded", rows_total=1, rows_completed=1))
    world.kube.fail(RetryableError("no answer", status=500), verb="create", kind="ConfigMap")
    with pytest.raises(UnfinishedWritesError):
        await world.reconcile()
    assert world.status["phase"] == "Finalizing"
    await world.reconcile()
    assert world.status["phase"] == "Succeeded"


async def test_the_output_of_an_earlier_job_of_the_name_is_waited_out(world: World) -> None:
    """`kubectl delete ij job && kubectl apply`: the garbage collector needs a moment for what the first one made."""
    answers = ObjectRef("ConfigMap", NS, "answers")
    earlier = {"apiVersion": API_VERSION, "kind": "InferenceJob", "name": "job", "uid": "earlier", "controller": True}
    world.kube.seed(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "answers", "namespace": NS, "ownerReferences": [earlier]},
            "data": {},
        }
    )
    world.add_service()
    world.add_job(PVC, CM_OUT)
    result = await world.reconcile()
    assert result.seconds <= 10  # type: ignore[union-attr]
    assert world.status["phase"] == "Pending"
    assert "belongs to an earlier InferenceJob job and is being collected" in world.condition("Complete")[2]
    assert world.kube.of_kind("Job") == []
    world.kube.remove(answers)
    await world.reconcile()
    assert world.driver_config().output.path is None


async def test_an_output_that_no_stream_takes_gets_its_stream_again(world: World) -> None:
    world.add_service()
    world.add_job(PVC, CM_OUT)
    await world.reconcile()
    world.run_pod()
    world.queue.calls.clear()
    world.tell("Running", rows_total=1, shards_total=1)
    await world.reconcile()
    assert world.queue.calls == []
    world.tell("Finalizing", rows_total=1, shards_total=1)
    await world.reconcile()
    assert [call[0] for call in world.queue.calls] == ["ensure"]
