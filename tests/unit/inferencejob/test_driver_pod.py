"""The driver: what it is started with, and what its pod tells."""

from __future__ import annotations

import pytest
from tests.support.job_world import INLINE, PVC_OUT, World
from tests.support.pod_security import violations

from vllm_operator.engine.executor import UnfinishedWritesError
from vllm_operator.kube.errors import RetryableError
from vllm_operator.kube.kinds import ObjectRef


async def test_the_driver_has_the_safe_shape_and_its_volumes(world: World) -> None:
    world.add_service(spec__model={"id": "pvc://m/x", "servedNames": ["served", "other"]})
    world.add_job(sampling={"temperature": 0.1, "maxTokens": 5, "stop": ["x"]})
    await world.reconcile()
    pod = world.driver["spec"]["template"]["spec"]
    assert violations(world.driver["spec"]["template"]) == []
    (container,) = pod["containers"]
    assert [v for v in pod["volumes"] if "persistentVolumeClaim" in v] == [
        {"name": "output", "persistentVolumeClaim": {"claimName": "data"}}
    ]
    assert {m["mountPath"]: (m["name"], m.get("readOnly", False)) for m in container["volumeMounts"]} == {
        "/tmp": ("tmp", False),
        "/var/run/secrets/vllm-operator/queue": ("queue-credentials", True),
        "/mnt/input": ("output", True),
        "/mnt/output": ("output", False),
    }
    config = world.driver_config()
    assert (config.model, config.sampling) == ("served", {"temperature": 0.1, "max_tokens": 5, "stop": ["x"]})


async def test_inline_rows_become_a_config_map(world: World) -> None:
    world.add_service()
    world.add_job(INLINE, PVC_OUT)
    await world.reconcile()
    (config_map,) = world.kube.of_kind("ConfigMap")
    assert config_map["data"] == {"input.jsonl": '{"prompt":"ä"}\n{"prompt":"b"}\n'}
    assert config_map["immutable"] is True
    assert config_map["metadata"]["ownerReferences"][0]["uid"] == world.uid
    (volume,) = [v for v in world.driver["spec"]["template"]["spec"]["volumes"] if v["name"] == "input"]
    assert volume["configMap"]["name"] == config_map["metadata"]["name"]


@pytest.mark.parametrize(
    ("claim", "want"), [("in", ("False", "InputNotFound")), ("out", ("False", "StorageError"))], ids=["input", "output"]
)
async def test_a_claim_that_does_not_exist(world: World, claim: str, want: tuple[str, str]) -> None:
    world.add_service()
    world.add_job(
        {"persistentVolumeClaim": {"claimName": "in", "path": "a"}},
        {"persistentVolumeClaim": {"claimName": "out", "path": "b"}},
    )
    await world.reconcile()
    message = f'persistentvolumeclaim "{claim}" not found'
    world.set_pod(
        phase="Pending",
        conditions=[{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}],
    )
    await world.reconcile()
    assert world.condition("InputReady")[:2] == want
    assert message in world.condition("InputReady")[2]
    assert world.status["phase"] == "Pending"


async def test_an_image_that_cannot_be_pulled(world: World) -> None:
    world.add_service()
    world.add_job()
    await world.reconcile()
    waiting = {"reason": "ImagePullBackOff", "message": "no such image"}
    world.set_pod(phase="Pending", containerStatuses=[{"name": "driver", "state": {"waiting": waiting}}])
    await world.reconcile()
    assert world.condition("Complete") == (
        "False",
        "DriverStarting",
        "the driver waits: ImagePullBackOff: no such image",
    )


@pytest.mark.parametrize(
    ("reason", "input_ready"),
    [("InputEmpty", "False"), ("OutputExists", "False"), ("StorageError", "Unknown"), ("nonsense", "Unknown")],
)
async def test_a_driver_that_failed(world: World, reason: str, input_ready: str) -> None:
    world.add_service()
    world.add_job()
    await world.reconcile()
    world.end_pod(world.report("Failed", reason=reason, message="because"))
    await world.reconcile()
    want = "DriverFailed" if reason == "nonsense" else reason
    assert world.status["phase"] == "Failed"
    assert world.condition("Failed") == ("True", want, "because")
    assert world.condition("InputReady")[0] == input_ready
    (event,) = world.kube.of_kind("Event")
    assert (event["type"], event["reason"], event["message"]) == ("Warning", want, "because")


async def test_a_missing_config_map_is_named(world: World) -> None:
    world.add_service()
    world.add_job({"configMap": {"name": "questions", "key": "q.jsonl"}})
    await world.reconcile()
    assert world.driver_config().input.path == "q.jsonl"
    world.end_pod(world.report("Failed", reason="InputNotFound", message="the input has no file 'q.jsonl'"))
    await world.reconcile()
    assert world.condition("InputReady") == (
        "False",
        "InputNotFound",
        "ConfigMap 'questions' of this namespace has no key 'q.jsonl', or does not exist",
    )


async def test_a_success_once_reported_stays_one(world: World) -> None:
    world.add_service()
    world.add_job()
    await world.reconcile()
    success = world.report("Succeeded", rows_total=3, rows_completed=3)
    world.end_pod(world.report("Failed", reason="OutputExists", message="x"), last=success)
    await world.reconcile()
    assert world.status["phase"] == "Succeeded"


async def test_the_driver_job_fails(world: World) -> None:
    world.add_service()
    world.add_job()
    await world.reconcile()
    failed = {"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded", "message": "too often"}
    world.kube.set_status(ObjectRef.of(world.driver), {"conditions": [failed]})
    await world.reconcile()
    assert world.condition("Failed") == (
        "True",
        "DriverFailed",
        "the driver's Job failed: BackoffLimitExceeded: too often",
    )


async def test_a_driver_whose_end_is_seen_before_its_pods_is_waited_for(world: World) -> None:
    """The Job and its pod come by different watches; one that failed without a queue told nobody else."""
    world.add_service()
    world.add_job()
    await world.reconcile()
    world.run_pod()
    complete = {"type": "Complete", "status": "True"}
    world.kube.set_status(ObjectRef.of(world.driver), {"conditions": [complete]})
    await world.reconcile()
    assert world.condition("Failed")[0] == "False"
    world.end_pod(world.report("Failed", reason="InputEmpty", message="because"))
    await world.reconcile()
    assert world.condition("Failed") == ("True", "InputEmpty", "because")


async def test_a_write_that_is_tried_again_is_told_meanwhile(world: World) -> None:
    world.add_service()
    world.add_job()
    broken = "failed calling webhook: connection refused"
    world.kube.fail(RetryableError(broken, status=500), verb="create", kind="Job", times=2)
    for _ in range(2):
        with pytest.raises(UnfinishedWritesError):
            await world.reconcile()
        assert world.condition("Complete")[1] == "ApplyFailed"
        assert broken in world.condition("Complete")[2]
    await world.reconcile()
    assert world.condition("Complete")[1] == "DriverStarting"


async def test_a_driver_whose_report_is_lost(world: World) -> None:
    world.add_service()
    world.add_job()
    await world.reconcile()
    world.kube.set_status(ObjectRef.of(world.driver), {"conditions": [{"type": "Complete", "status": "True"}]})
    await world.reconcile()
    assert world.condition("Failed")[:2] == ("True", "DriverFailed")
