"""Execution of plans: only needed writes, only on the owner's objects."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.kube import FakeKube, make_cache

from vllm_operator.engine.executor import Executor, UnfinishedWritesError
from vllm_operator.engine.plan import Deletion, MergePatch, Plan
from vllm_operator.kube.errors import ConflictError, RetryableError, TerminalError
from vllm_operator.kube.kinds import Manifest, ObjectRef

HASH = "inference.vllm-operator.io/applied-hash"
OWNER = "owner-uid"


class Bench:
    def __init__(self) -> None:
        self.cache = make_cache()
        self.kube = FakeKube(self.cache)
        self.executor = Executor(self.kube, self.cache, "vllm-operator", HASH)

    async def execute(self, **plan: Any) -> Any:
        return await self.executor.execute(Plan(**plan), OWNER)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def child(kind: str = "Deployment", name: str = "chat-engine", uid: str = OWNER, **spec: Any) -> Manifest:
    return {
        "apiVersion": "apps/v1" if kind == "Deployment" else "v1",
        "kind": kind,
        "metadata": {
            "name": name,
            "namespace": "team",
            "ownerReferences": [
                {"apiVersion": "x/v1", "kind": "LLMService", "name": "chat", "uid": uid, "controller": True}
            ],
        },
        "spec": spec or {"replicas": 1},
    }


async def test_first_apply_creates_and_second_writes_nothing(bench: Bench) -> None:
    first = await bench.execute(apply=(child(),))
    stored = bench.kube.objects[ObjectRef("Deployment", "team", "chat-engine")]
    assert first.writes == 1
    assert len(stored["metadata"]["annotations"][HASH]) == 16
    bench.kube.reset_calls()
    assert (await bench.execute(apply=(child(),))).writes == 0
    assert bench.kube.calls == []


async def test_changed_intent_is_applied_and_a_dropped_field_goes(bench: Bench) -> None:
    await bench.execute(apply=(child(replicas=1, paused=True),))
    assert (await bench.execute(apply=(child(replicas=2),))).writes == 1
    assert bench.kube.objects[ObjectRef("Deployment", "team", "chat-engine")]["spec"] == {"replicas": 2}


async def test_drift_is_repaired(bench: Bench) -> None:
    await bench.execute(apply=(child(),))
    ref = ObjectRef("Deployment", "team", "chat-engine")
    bench.kube.edit(ref, lambda live: live["spec"].update(replicas=7))
    assert (await bench.execute(apply=(child(),))).writes == 1
    assert bench.kube.objects[ref]["spec"]["replicas"] == 1


async def test_a_deleted_child_comes_back(bench: Bench) -> None:
    await bench.execute(apply=(child(),))
    bench.kube.remove(ObjectRef("Deployment", "team", "chat-engine"))
    assert (await bench.execute(apply=(child(),))).writes == 1


@pytest.mark.parametrize(
    ("owners", "said"),
    [
        ([], "has no controller"),
        ([{"kind": "Rollout", "name": "x", "uid": "other", "controller": True}], "is controlled by Rollout x"),
    ],
)
async def test_somebody_elses_object_is_left_alone(bench: Bench, owners: list[Any], said: str) -> None:
    foreign = child(replicas=9)
    foreign["metadata"]["ownerReferences"] = owners
    bench.kube.seed(foreign)
    bench.cache.drop(ObjectRef.of(foreign))  # it has no label of ours: no watch shows it
    outcome = await bench.execute(apply=(child(),))
    assert (outcome.writes, outcome.failures[0].conflict) == (0, True)
    assert said in outcome.failures[0].message
    assert bench.kube.objects[ObjectRef.of(foreign)]["spec"] == {"replicas": 9}


async def test_child_of_an_earlier_owner_of_the_name_is_waited_for(bench: Bench) -> None:
    bench.kube.seed(child(uid="earlier"))
    with pytest.raises(ExceptionGroup) as caught:
        await bench.execute(apply=(child(),))
    assert caught.group_contains(RetryableError, match="being collected")


async def test_object_on_its_way_out_is_not_applied(bench: Bench) -> None:
    going = child(replicas=3)
    going["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    bench.kube.seed(going)
    assert (await bench.execute(apply=(child(),))).writes == 0


async def test_refused_write_is_a_failure_and_the_others_go_on(bench: Bench) -> None:
    bench.kube.fail(TerminalError("spec.replicas: Invalid value", status=422), verb="apply", kind="Deployment")
    outcome = await bench.execute(apply=(child(), child("Service", "chat", ports=[])))
    assert outcome.writes == 1
    assert outcome.failures[0].ref.kind == "Deployment"
    assert outcome.failures[0].message == "spec.replicas: Invalid value"


async def test_retryable_errors_are_raised_after_everything_was_tried(bench: Bench) -> None:
    bench.kube.fail(RetryableError("timeout"), verb="apply", kind="Deployment")
    with pytest.raises(ExceptionGroup) as caught:
        await bench.execute(apply=(child(), child("Service", "chat", ports=[])))
    assert caught.group_contains(RetryableError)
    assert ObjectRef("Service", "team", "chat") in bench.kube.objects


async def test_create_leaves_what_is_there(bench: Bench) -> None:
    job = child("Job", "chat-facts", completions=1)
    assert (await bench.execute(create=(job,))).writes == 1
    other = child("Job", "chat-facts", completions=2)
    assert (await bench.execute(create=(other,))).writes == 0
    assert bench.kube.objects[ObjectRef.of(job)]["spec"] == {"completions": 1}


async def test_create_of_a_name_that_is_taken(bench: Bench) -> None:
    taken = child("ConfigMap", "out")
    taken["metadata"]["ownerReferences"] = []
    bench.kube.seed(taken)
    bench.cache.drop(ObjectRef.of(taken))
    outcome = await bench.execute(create=(child("ConfigMap", "out"),))
    assert outcome.failures[0].conflict


async def test_unwatched_kind_is_read_without_the_right_to_get(bench: Bench) -> None:
    bench.kube.forbidden.add(("get", "ConfigMap"))
    await bench.execute(apply=(child("ConfigMap", "input"),))
    bench.cache.drop(ObjectRef("ConfigMap", "team", "input"))
    bench.kube.reset_calls()
    fresh = make_cache()
    outcome = await Executor(bench.kube, fresh, "vllm-operator", HASH).execute(
        Plan(apply=(child("ConfigMap", "input"),)), OWNER
    )
    assert outcome.writes == 0
    assert bench.kube.writes == []


async def test_deletion_of_this_very_object_only(bench: Bench) -> None:
    stored = bench.kube.seed(child("Job", "driver"))
    ref = ObjectRef.of(stored)
    assert (await bench.execute(delete=(Deletion(ref=ref, uid="another"),))).writes == 0
    assert ref in bench.kube.objects
    assert (await bench.execute(delete=(Deletion(ref=ref, uid=stored["metadata"]["uid"]),))).writes == 1
    assert ref not in bench.kube.objects


@pytest.mark.parametrize(("asked", "writes"), [(None, 0), (60, 0), (0, 1)])
async def test_deletion_under_way_is_repeated_only_to_shorten_it(bench: Bench, asked: int | None, writes: int) -> None:
    pod = child("Pod", "p")
    pod["metadata"] |= {"deletionTimestamp": "2026-01-01T00:00:00Z", "deletionGracePeriodSeconds": 30}
    stored = bench.kube.seed(pod)
    deletion = Deletion(ref=ObjectRef.of(stored), uid=stored["metadata"]["uid"], grace_period_seconds=asked)
    assert (await bench.execute(delete=(deletion,))).writes == writes


async def test_patch_of_a_vanished_pod_is_nothing(bench: Bench) -> None:
    ref = ObjectRef("Pod", "team", "gone")
    patch = MergePatch(ref=ref, body={"metadata": {"labels": {"routable": "false"}}})
    assert (await bench.execute(patch=(patch,))).writes == 0


async def test_conflicts_are_raised(bench: Bench) -> None:
    pod = bench.kube.seed(child("Pod", "p"))
    patch = MergePatch(ref=ObjectRef.of(pod), body={"metadata": {"resourceVersion": "0", "labels": {"a": "b"}}})
    with pytest.raises(ExceptionGroup) as caught:
        await bench.execute(patch=(patch,))
    assert caught.group_contains(ConflictError)


async def test_what_the_server_changes_back_is_not_applied_for_ever(bench: Bench) -> None:
    class Webhook(FakeKube):
        async def apply(self, manifest: Manifest, *, field_manager: str, subresource: str | None = None) -> Manifest:
            await super().apply(manifest, field_manager=field_manager, subresource=subresource)
            return self.edit(ObjectRef.of(manifest), lambda live: live["spec"].update(replicas=5))

    cache = make_cache()
    kube = Webhook(cache)
    executor = Executor(kube, cache, "vllm-operator", HASH)
    await executor.execute(Plan(apply=(child(),)), OWNER)
    kube.reset_calls()
    assert (await executor.execute(Plan(apply=(child(),)), OWNER)).writes == 0
    kube.edit(ObjectRef("Deployment", "team", "chat-engine"), lambda live: live["spec"].update(replicas=9))
    assert (await executor.execute(Plan(apply=(child(),)), OWNER)).writes == 1


async def test_what_the_server_itself_could_not_do_is_tried_again_and_told(bench: Bench) -> None:
    bench.kube.fail(RetryableError("failed calling webhook", status=500), kind="Deployment")
    with pytest.raises(UnfinishedWritesError) as raised:
        await bench.execute(apply=(child(), child("Service", "chat")))
    assert [failure.message for failure in raised.value.outcome.failures] == ["failed calling webhook"]
    assert raised.value.outcome.writes == 1
    retryable, others = raised.value.split(RetryableError)
    assert retryable is not None
    assert others is None


async def test_once_a_name_is_taken_nothing_new_is_made(bench: Bench) -> None:
    foreign = child("Service", "chat", uid="somebody")
    foreign["metadata"]["ownerReferences"][0]["name"] = "other"
    bench.kube.seed(foreign)
    outcome = await bench.execute(apply=(child("Service", "chat"), child()))
    assert [failure.conflict for failure in outcome.failures] == [True]
    assert ObjectRef("Deployment", "team", "chat-engine") not in bench.kube.objects
