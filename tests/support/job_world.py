"""One InferenceJob with its operator, against an API server in memory and a queue in memory."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

from tests.support.builders import make_service
from tests.support.clock import FakeClock
from tests.support.kube import FakeKube, make_cache

from vllm_operator.engine.clock import rfc3339
from vllm_operator.engine.events import EventRecorder
from vllm_operator.engine.executor import Executor
from vllm_operator.engine.result import Result
from vllm_operator.engine.status_writer import StatusWriter
from vllm_operator.inferencejob.reconcile import InferenceJobReconciler
from vllm_operator.kube.kinds import Key, Manifest, ObjectRef
from vllm_operator.queue.view import QueueUnavailableError, SeenHeartbeat, ShardCounts
from vllm_operator.settings import Settings
from vllm_operator_api.names import (
    API_VERSION,
    APPLIED_HASH_ANNOTATION,
    FIELD_MANAGER,
    STATUS_FIELD_MANAGER,
)
from vllm_operator_api.queue import JobProgress
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
    refusal: str | None = None
    """Why every call fails although there is a connection."""
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
        if self.refusal is not None:
            raise QueueUnavailableError(self.refusal)
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
