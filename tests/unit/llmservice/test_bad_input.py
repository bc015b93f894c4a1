"""What a user or a cluster gets wrong: each ends in a condition with a message, and nothing else is harmed."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.support.builders import (
    ServiceBuilder,
    facts_error_message,
    facts_message,
    make_facts,
    make_facts_pod,
    make_node,
    make_pod,
    make_service,
)
from tests.unit.llmservice.test_reconcile import DEPLOYMENT, KEY, POD, SERVICE, World

from vllm_operator.engine.clock import rfc3339
from vllm_operator.engine.result import RequeueAfter
from vllm_operator.kube.errors import TerminalError
from vllm_operator.kube.kinds import Manifest, ObjectRef
from vllm_operator_api.runtime import EngineExit


@pytest.mark.parametrize(
    ("change", "reason", "says"),
    [
        (lambda s: s.args("--enable-prefx-caching"), "EngineArgUnknown", "did you mean --enable-prefix-caching"),
        (lambda s: s.args("--middleware=a.b"), "EngineArgNotAllowed", "--middleware is not allowed"),
        (lambda s: s.args("--max-model-len=3"), "EngineArgNotAllowed", "use spec.model.maxLength instead"),
        (lambda s: s.args("--max-num-batched-tokens=many"), "InvalidSpec", "is not a number of tokens"),
        (lambda s: s.env(LD_PRELOAD="x"), "EnvNotAllowed", "LD_PRELOAD is not allowed"),
        (lambda s: s.args("--max-num-batched-tokens=1"), "InvalidSpec", "less than concurrency.target=64"),
        (lambda s: s.args(f"--max-num-batched-tokens={'9' * 400}"), "InvalidSpec", "is not a number of tokens"),
        (lambda s: s.args("--block-size=0"), "InvalidSpec", "--block-size=0"),
        (lambda s: s.set("spec.resources", {"shm": "8Gi", "memory": "4Gi"}), "InvalidSpec", "spec.resources.shm=8Gi"),
        (lambda s: s.idle_after("0s"), "InvalidSpec", "idleAfter=0s must be at least 1s"),
        (lambda s: s.model("pvc://a/../b"), "InvalidSpec", "must not contain '.' or '..'"),
        (lambda s: s.model("just-a-name"), "InvalidSpec", "pvc://<claim>/<path> or <organisation>/<name>"),
        (lambda s: s.model("pvc://a/b", revision="main"), "InvalidSpec", "revision=main is for a hub repository"),
        (lambda s: s.set("spec.model", {}), "InvalidSpec", "spec.model.id: Field required"),
    ],
)
async def test_spec_that_is_not_accepted(
    change: Callable[[ServiceBuilder], ServiceBuilder], reason: str, says: str
) -> None:
    world = World(change(make_service()).build())
    await world.reconcile()
    status, found, message = world.condition("Accepted")
    assert (status, found) == ("False", reason)
    assert says in message
    assert world.condition("Ready")[:2] == ("False", "NotAccepted")
    assert {ref.kind for ref in world.kube.objects} == {"Node", "LLMService", "Event"}


@pytest.mark.parametrize(
    ("reason", "message"),
    [
        ("ModelNotFound", "the directory llama does not exist on the volume; correct spec.model.id"),
        ("ModelConfigInvalid", "config.json is not JSON"),
        ("UnsafeWeights", "the directory llama has its weights only as pickles"),
    ],
)
async def test_model_that_cannot_be_read(reason: str, message: str) -> None:
    world = World(make_service().build())
    await world.read_facts(facts_error_message(reason, message))
    assert world.condition("Planned") == ("False", reason, f"pvc://models/llama: {message}")
    assert world.condition("Ready")[1] == reason
    assert DEPLOYMENT not in world.kube.objects


async def test_claim_that_does_not_exist() -> None:
    world = World(make_service().build())
    await world.reconcile()
    job = world.facts_job()
    assert job is not None
    told = '0/1 nodes are available: persistentvolumeclaim "models" not found.'
    world.kube.seed(make_facts_pod(world.service, job).unschedulable(told).build())
    await world.reconcile()
    status, reason, message = world.condition("Planned")
    assert (status, reason) == ("False", "ModelNotFound")
    assert 'persistentvolumeclaim "models" not found' in message


async def test_reader_that_fails_for_good() -> None:
    world = World(make_service().model("org/llama").build())
    await world.reconcile()
    job = world.facts_job()
    assert job is not None
    error = facts_error_message("ModelFactsUnavailable", "https://hub.example cannot be reached: refused")
    world.kube.seed(make_facts_pod(world.service, job).terminated(error, exit_code=1).build())
    failed = {"type": "Failed", "status": "True", "lastTransitionTime": rfc3339(world.clock.now())}
    world.kube.set_status(ObjectRef.of(job), {"conditions": [failed]})
    await world.reconcile()
    assert world.condition("Planned") == (
        "False",
        "ModelFactsUnavailable",
        "org/llama: https://hub.example cannot be reached: refused",
    )


async def test_unknown_architecture() -> None:
    world = World(make_service().build())
    await world.read_facts(facts_message(make_facts(architecture="LlamaForCausalML")))
    status, reason, message = world.condition("Planned")
    assert (status, reason) == ("False", "UnsupportedArchitecture")
    assert "LlamaForCausalML" in message
    assert "LlamaForCausalLM" in message
    assert DEPLOYMENT not in world.kube.objects


async def test_degree_that_does_not_divide_the_heads() -> None:
    world = World(make_service().tensor(3).build())
    await world.read_facts(facts_message(make_facts()))
    status, reason, message = world.condition("Planned")
    assert (status, reason) == ("False", "InvalidParallelism")
    assert "the 32 attention heads cannot be divided evenly over 3 GPUs" in message
    assert "legal tensor degrees here: 1, 2, 4, 8" in message
    assert DEPLOYMENT not in world.kube.objects


async def test_degree_that_is_larger_than_any_node() -> None:
    world = World(make_service().tensor(16).build())
    await world.read_facts(facts_message(make_facts()))
    assert "16 GPUs, more than any node offers to one pod (8)" in world.condition("Planned")[2]


async def test_length_that_the_model_does_not_have() -> None:
    world = World(make_service().model("pvc://models/llama", maxLength=262144).build())
    await world.read_facts(facts_message(make_facts()))
    assert "model.maxLength=262144 is longer than the model allows" in world.condition("Planned")[2]


async def test_no_node_with_gpus_then_one_appears() -> None:
    world = World(make_service().build(), make_node().build())
    await world.read_facts(facts_message(make_facts()))
    assert world.condition("Planned")[:2] == ("False", "NoAcceleratorNodes")
    assert DEPLOYMENT not in world.kube.objects

    world.kube.seed(make_node("gpu").gpus(8).product("NVIDIA-L4", 23034).build())
    await world.reconcile()
    assert world.condition("Planned")[:2] == ("True", "Planned")
    assert DEPLOYMENT in world.kube.objects


async def test_plan_outlives_its_nodes() -> None:
    world = World(make_service().build())
    await world.read_facts(facts_message(make_facts()))
    world.kube.remove(ObjectRef("Node", "", "node-1"))
    await world.reconcile()
    assert world.condition("Planned")[:2] == ("True", "Planned")


async def test_other_nodes_than_planned_lead_to_a_new_plan() -> None:
    world = World(make_service().build())
    await world.read_facts(facts_message(make_facts()))
    world.kube.remove(ObjectRef("Node", "", "node-1"))
    world.kube.seed(make_node("h100").gpus(8).product("NVIDIA-H100-80GB-HBM3", 81559).build())
    await world.reconcile()
    assert world.status()["plan"]["product"] == "NVIDIA-H100-80GB-HBM3"


async def test_engine_that_refuses_an_argument_at_start() -> None:
    world = World(make_service().args("--seed=abc").build())
    await world.read_facts(facts_message(make_facts()))
    ended = EngineExit(stage="start", exit_code=2, message="argument --seed: invalid int value: 'abc'")
    world.kube.seed(make_pod(world.service).crashed(ended.model_dump_json()).build())
    await world.reconcile()
    assert world.condition("Ready") == (
        "False",
        "EngineFailed",
        "the engine ended while it started with exit code 2: argument --seed: invalid int value: 'abc'",
    )
    assert "EngineFailed" in world.events()
    assert world.replicas() == 1


async def test_changed_spec_is_applied_after_a_failure() -> None:
    world = World(make_service().args("--seed=abc").build())
    await world.read_facts(facts_message(make_facts()))
    world.kube.edit(KEY, lambda m: m["spec"]["engine"].update(args=[]))
    await world.reconcile()
    container = world.kube.objects[DEPLOYMENT]["spec"]["template"]["spec"]["containers"][0]
    assert "--seed=abc" not in container["env"][0]["value"]


async def test_bad_change_leaves_the_running_engine_alone() -> None:
    world = World(make_service().idle_after("5m").build())
    await world.serve()
    before = world.kube.objects[DEPLOYMENT]

    world.kube.edit(KEY, lambda m: m["spec"].setdefault("engine", {}).update(args=["--no-such-option"]))
    await world.reconcile()
    assert world.condition("Accepted")[:2] == ("False", "EngineArgUnknown")
    assert world.condition("Ready")[:2] == ("True", "Serving")
    assert world.kube.objects[DEPLOYMENT] == before

    world.kube.edit(KEY, lambda m: m["spec"].update(engine={}, parallelism={"tensor": 3}))
    await world.reconcile()
    assert world.condition("Planned")[:2] == ("False", "InvalidParallelism")
    assert world.condition("Ready")[:2] == ("True", "Serving")
    assert world.kube.objects[DEPLOYMENT] == before


async def test_bad_change_during_a_drain_takes_the_pod_back_into_routing() -> None:
    world = World(make_service().idle_after("5m").build())
    await world.serve()
    world.clock.advance(301)
    world.beat(0, 301)
    await world.reconcile()
    assert world.condition("Ready")[1] == "Draining"

    world.kube.edit(KEY, lambda m: m["spec"].update(engine={"args": ["--no-such-option"]}))
    await world.reconcile()
    assert world.condition("Ready")[:2] == ("True", "Serving")
    assert world.kube.objects[POD]["metadata"]["labels"]["vllm-operator.io/routable"] == "true"


async def test_image_that_cannot_be_pulled() -> None:
    world = World(make_service().set("spec.image", "localhost/absent:1").build())
    await world.read_facts(facts_message(make_facts()))
    world.kube.seed(make_pod(world.service).waiting("ErrImagePull", 'pull "localhost/absent:1": not found').build())
    await world.reconcile()
    status, reason, message = world.condition("Ready")
    assert (status, reason) == ("False", "ImagePullFailed")
    assert "localhost/absent:1" in message


async def test_name_that_belongs_to_somebody_else() -> None:
    foreign: Manifest = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "chat", "namespace": "team-a"},
        "spec": {"ports": [{"port": 80}]},
    }
    world = World(make_service().build())
    world.kube.seed(foreign)
    await world.reconcile()
    status, reason, message = world.condition("Accepted")
    assert (status, reason) == ("False", "NameConflict")
    assert "Service team-a/chat exists" in message
    assert world.kube.objects[SERVICE]["spec"] == foreign["spec"]


async def test_child_that_the_api_server_refuses() -> None:
    world = World(make_service().build())
    await world.read_facts(facts_message(make_facts()))
    error = TerminalError('deployments.apps is forbidden: exceeded quota "count"', status=403)
    world.kube.remove(DEPLOYMENT)
    world.kube.fail(error, verb="apply", kind="Deployment")
    assert await world.reconciler.reconcile(KEY) == RequeueAfter(30.0)
    status, reason, message = world.condition("Degraded")
    assert (status, reason) == ("True", "ApplyFailed")
    assert "exceeded quota" in message


async def test_engine_whose_agent_is_not_heard() -> None:
    world = World(make_service().idle_after("1s").build())
    await world.serve()
    world.queue.seen.clear()
    world.clock.advance(61)
    await world.reconcile()
    status, reason, message = world.condition("Degraded")
    assert (status, reason) == ("True", "WorkerHeartbeatMissing")
    assert "vllm-operator-queue-agent" in message
    assert "queue.namespaces" in message
    assert world.condition("Ready")[:2] == ("True", "Serving")
    assert world.replicas() == 1


async def test_queue_that_is_down() -> None:
    world = World(make_service().idle_after("1s").build())
    await world.serve()
    world.queue.connected = False
    world.queue.problem = "connection refused"
    world.queue.seen.clear()
    world.clock.advance(600)
    await world.reconcile()
    status, reason, message = world.condition("QueueAvailable")
    assert (status, reason) == ("False", "QueueUnavailable")
    assert "connection refused" in message
    assert world.condition("Degraded")[0] == "False"
    assert world.replicas() == 1
