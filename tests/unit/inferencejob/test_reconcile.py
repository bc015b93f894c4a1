"""An InferenceJob through its life against an API server in memory and a queue in memory."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from tests.support.builders import make_service
from tests.support.clock import FakeClock
from tests.support.kube import FakeKube, make_cache
from tests.support.pod_security import violations

from vllm_operator.engine.clock import rfc3339
from vllm_operator.engine.events import EventRecorder
from vllm_operator.engine.executor import Executor
from vllm_operator.engine.result import Result
from vllm_operator.engine.status_writer import StatusWriter
from vllm_operator.inferencejob.reconcile import InferenceJobReconciler
from vllm_operator.inferencejob.sweep import sweep_queue
from vllm_operator.kube.errors import TerminalError
from vllm_operator.kube.kinds import Key, Manifest, ObjectRef
from vllm_operator.queue.view import QueueUnavailableError, SeenHeartbeat, ShardCounts
from vllm_operator.settings import Settings
from vllm_operator_api.names import (
    API_VERSION,
    APPLIED_HASH_ANNOTATION,
    FIELD_MANAGER,
    STATUS_FIELD_MANAGER,
    child_name,
)
from vllm_operator_api.queue import EngineReport, Heartbeat, JobProgress, LeaseReport
from vllm_operator_api.runtime import DRIVER_CONFIG_ENV, DriverConfig

NS = "team-a"
PVC = {"persistentVolumeClaim": {"claimName": "data", "path": "in.jsonl"}}
PVC_OUT = {"persistentVolumeClaim": {"claimName": "data", "path": "out.jsonl"}}
INLINE = {"inline": {"rows": [{"prompt": "ä"}, {"prompt": "b"}]}}
CM_OUT = {"configMap": {"name": "answers", "key": "out.jsonl"}}


@dataclass
class MemoryQueue:
    """Implements ``QueueView`` and ``QueueAdmin``."""

    connected: bool = True
    beats: list[SeenHeartbeat] = field(default_factory=list)
    reports: dict[str, JobProgress] = field(default_factory=dict)
    counts: dict[str, ShardCounts] = field(default_factory=dict)
    outputs: dict[str, bytes] = field(default_factory=dict)
    calls: list[tuple[Any, ...]] = field(default_factory=list)

    @property
    def problem(self) -> str | None:
        return None if self.connected else "cannot connect to nats://queue:4222: connection refused"

    def heartbeats(self, queue_id: str) -> tuple[SeenHeartbeat, ...]:
        return tuple(beat for beat in self.beats if beat.heartbeat.queue_id == queue_id)

    def progress(self, job_uid: str) -> JobProgress | None:
        return self.reports.get(job_uid)

    def shard_counts(self, job_uid: str) -> ShardCounts | None:
        return self.counts.get(job_uid)

    def _call(self, *call: Any) -> None:
        if not self.connected:
            raise QueueUnavailableError(self.problem)
        self.calls.append(call)

    async def ensure_job(self, queue_id: str, job_uid: str, *, lease_seconds: int, max_leased: int) -> bool:
        self._call("ensure", queue_id, job_uid, lease_seconds, max_leased)
        self.counts[job_uid] = ShardCounts(pending=0, leased=0, redelivered=0)
        return True

    async def delete_job(self, queue_id: str, job_uid: str) -> None:
        self._call("delete", queue_id, job_uid)
        self.outputs.pop(job_uid, None)

    async def take_output(self, job_uid: str) -> bytes | None:
        self._call("take", job_uid)
        return self.outputs.get(job_uid)

    async def sweep(self, live_queue_ids: frozenset[str], live_job_uids: frozenset[str]) -> int:
        self._call("sweep", live_queue_ids, live_job_uids)
        return 0


class World:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.cache = make_cache()
        self.kube = FakeKube(self.cache)
        self.queue = MemoryQueue()
        self.restart_operator()

    def restart_operator(self) -> None:
        self.reconciler = InferenceJobReconciler(
            client=self.kube,
            cache=self.cache,
            executor=Executor(self.kube, self.cache, FIELD_MANAGER, APPLIED_HASH_ANNOTATION),
            status_writer=StatusWriter(self.kube, self.clock, STATUS_FIELD_MANAGER, 5.0, self.cache),
            events=EventRecorder(self.kube, "vllm-operator", self.clock),
            queue=self.queue,
            admin=self.queue,
            settings=Settings(),
            clock=self.clock,
        )

    def add_service(self, name: str = "echo", **fields: Any) -> Manifest:
        builder = make_service(name)
        for path, value in fields.items():
            builder = builder.set(path.replace("__", "."), value)
        return self.kube.seed(builder.build())

    def add_job(self, source: Any = PVC, destination: Any = PVC_OUT, name: str = "job", **spec: Any) -> Manifest:
        return self.kube.seed(
            {
                "apiVersion": API_VERSION,
                "kind": "InferenceJob",
                "metadata": {"name": name, "namespace": NS},
                "spec": {
                    "serviceRef": {"name": "echo"},
                    "input": copy.deepcopy(source),
                    "output": copy.deepcopy(destination),
                    **spec,
                },
            }
        )

    async def reconcile(self, name: str = "job") -> Result:
        return await self.reconciler.reconcile(Key("InferenceJob", NS, name))

    def job(self, name: str = "job") -> Manifest:
        return self.kube.objects[ObjectRef("InferenceJob", NS, name)]

    @property
    def uid(self) -> str:
        return str(self.job()["metadata"]["uid"])

    @property
    def status(self) -> dict[str, Any]:
        status: dict[str, Any] = self.job().get("status") or {}
        return status

    def condition(self, kind: str) -> tuple[str, str, str]:
        (found,) = [c for c in self.status["conditions"] if c["type"] == kind]
        return found["status"], found["reason"], found.get("message", "")

    @property
    def driver(self) -> Manifest:
        (driver,) = self.kube.of_kind("Job")
        return driver

    def driver_config(self) -> DriverConfig:
        (container,) = self.driver["spec"]["template"]["spec"]["containers"]
        value = next(env["value"] for env in container["env"] if env["name"] == DRIVER_CONFIG_ENV)
        return DriverConfig.model_validate_json(value)

    def set_pod(self, **status: Any) -> None:
        ref = ObjectRef("Pod", NS, "driver-pod")
        if ref not in self.kube.objects:
            metadata = self.driver["metadata"]
            owner = {
                "apiVersion": "batch/v1",
                "kind": "Job",
                "name": metadata["name"],
                "uid": metadata["uid"],
                "controller": True,
            }
            self.kube.seed(
                {
                    "apiVersion": "v1",
                    "kind": "Pod",
                    "metadata": {
                        "name": "driver-pod",
                        "namespace": NS,
                        "labels": self.driver["spec"]["template"]["metadata"]["labels"],
                        "ownerReferences": [owner],
                    },
                }
            )
        self.kube.set_status(ref, status)

    def run_pod(self) -> None:
        state = {"running": {"startedAt": rfc3339(self.clock.now())}}
        self.set_pod(phase="Running", containerStatuses=[{"name": "driver", "state": state}])

    def end_pod(self, report: JobProgress, *, last: JobProgress | None = None) -> None:
        status: dict[str, Any] = {
            "name": "driver",
            "state": {"terminated": {"exitCode": 0, "message": report.model_dump_json()}},
        }
        if last is not None:
            status["lastState"] = {"terminated": {"exitCode": 137, "message": last.model_dump_json()}}
        self.set_pod(phase="Succeeded", containerStatuses=[status])

    def report(self, phase: str, **changes: Any) -> JobProgress:
        return JobProgress.model_validate({"job_uid": self.uid, "phase": phase, **changes})

    def tell(self, phase: str, **changes: Any) -> None:
        self.queue.reports[self.uid] = self.report(phase, **changes)


@pytest.fixture
def world() -> World:
    return World()


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


EMBED = "/v1/embeddings"


def _on_data(path: str) -> Any:
    return {"persistentVolumeClaim": {"claimName": "data", "path": path}}


@pytest.mark.parametrize(
    ("source", "destination", "spec", "want"),
    [
        pytest.param(
            {**PVC, **INLINE},
            PVC_OUT,
            {},
            "exactly one of inline, configMap and persistentVolumeClaim; got 2",
            id="two sources",
        ),
        pytest.param(
            {}, PVC_OUT, {}, "exactly one of inline, configMap and persistentVolumeClaim; got 0", id="no source"
        ),
        pytest.param(PVC, {**PVC_OUT, **CM_OUT}, {}, "spec.output: exactly one of", id="two destinations"),
        pytest.param(PVC, {}, {}, "spec.output: exactly one of", id="no destination"),
        pytest.param(PVC, _on_data("in.jsonl"), {}, "'in.jsonl' is the input", id="output is the input"),
        pytest.param(PVC, _on_data("a/../b"), {}, "must name a file below", id="dots"),
        pytest.param(PVC, _on_data("dir/"), {}, "must name a file below", id="a directory"),
        pytest.param(
            {**PVC, "messageKey": "results"},
            PVC_OUT,
            {},
            "would take the place of spec.input.messageKey",
            id="keys collide",
        ),
        pytest.param(
            {**PVC, "systemPrompt": "x"},
            PVC_OUT,
            {"endpoint": EMBED},
            "spec.input.systemPrompt: /v1/embeddings takes none",
            id="system prompt",
        ),
        pytest.param(
            PVC,
            PVC_OUT,
            {"endpoint": EMBED, "sampling": {"topP": 0.5}},
            "spec.sampling.topP: /v1/embeddings does not sample",
            id="sampling",
        ),
        pytest.param(
            {"inline": {"rows": [{"prompt": "x" * 300_000}]}},
            PVC_OUT,
            {},
            "bytes; at most 262144",
            id="inline too large",
        ),
    ],
)
async def test_specs_that_are_refused(world: World, source: Any, destination: Any, spec: Any, want: str) -> None:
    world.add_service()
    world.add_job(source, destination, **spec)
    await world.reconcile()
    assert world.condition("Accepted")[:2] == ("False", "InvalidSpec")
    assert want in world.condition("Accepted")[2]
    assert world.condition("Failed")[:2] == ("True", "InvalidSpec")
    assert world.status["phase"] == "Failed"
    assert world.kube.of_kind("Job") == []


async def test_a_spec_of_a_newer_version_is_not_judged_for_good(world: World) -> None:
    world.add_service()
    world.add_job(endpoint="/v1/rerank")
    await world.reconcile()
    assert world.condition("Accepted")[1] == "InvalidSpec"
    assert "spec.endpoint" in world.condition("Accepted")[2]
    assert world.status["phase"] == "Pending"


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


async def test_the_sweep_keeps_what_lives(world: World) -> None:
    service = world.add_service()
    world.add_job()
    world.add_job(name="ended")
    world.kube.set_status(ObjectRef("InferenceJob", NS, "ended"), {"phase": "Succeeded"})
    await sweep_queue(world.kube, world.queue)
    assert world.queue.calls == [("sweep", frozenset({service["metadata"]["uid"]}), frozenset({world.uid}))]
