"""Why engines do not start, told in the words of those who know."""

from __future__ import annotations

import pytest
from tests.support.builders import PodBuilder, make_pod, make_service

from vllm_operator.llmservice.failures import StartFailure, start_failure
from vllm_operator.llmservice.observe import EngineDeployment, _engine_pod
from vllm_operator_api.conditions import Reason
from vllm_operator_api.runtime import EngineExit

SERVICE = make_service().build()
ENGINE_SAID = "ValueError: max_num_batched_tokens (1) must be greater than or equal to max_num_seqs (32)"


def failure_of(builder: PodBuilder) -> StartFailure | None:
    return start_failure(None, [_engine_pod(builder.build())], "4Gi")


def new_pod() -> PodBuilder:
    return make_pod(SERVICE)


@pytest.mark.parametrize("restarting", [True, False])
def test_the_engines_own_message(restarting: bool) -> None:
    message = EngineExit(stage="start", exit_code=1, message=ENGINE_SAID).model_dump_json()
    failure = failure_of(new_pod().crashed(message, restarting=restarting))
    assert failure == StartFailure(
        Reason.ENGINE_FAILED, f"the engine ended while it started with exit code 1: {ENGINE_SAID}"
    )
    assert "CrashLoopBackOff" not in failure.message


@pytest.mark.parametrize(
    ("builder", "reason", "says"),
    [
        (
            new_pod().crashed("Traceback: plain text", exit_code=3),
            Reason.ENGINE_FAILED,
            "the engine ended with exit code 3: Traceback: plain text",
        ),
        (new_pod().crashed(""), Reason.ENGINE_FAILED, "left no message; see the log of its pod"),
        (
            new_pod().crashed("", exit_code=137, reason="OOMKilled"),
            Reason.ENGINE_FAILED,
            "memory limit of 4Gi; raise spec.resources.memory",
        ),
        (
            new_pod().waiting("ImagePullBackOff", 'Back-off pulling image "x/y:1": not found'),
            Reason.IMAGE_PULL_FAILED,
            'Back-off pulling image "x/y:1": not found; check spec.image',
        ),
        (new_pod().waiting("InvalidImageName"), Reason.IMAGE_PULL_FAILED, "InvalidImageName"),
        (
            new_pod().waiting("CreateContainerConfigError", "runAsNonRoot"),
            Reason.ENGINE_FAILED,
            "CreateContainerConfigError: runAsNonRoot",
        ),
        (
            new_pod().unschedulable("0/3 nodes are available: 3 Insufficient nvidia.com/gpu."),
            Reason.UNSCHEDULABLE,
            "0/3 nodes are available: 3 Insufficient nvidia.com/gpu.",
        ),
    ],
)
def test_each_cause(builder: PodBuilder, reason: Reason, says: str) -> None:
    failure = failure_of(builder)
    assert failure is not None
    assert failure.reason is reason
    assert says in failure.message


@pytest.mark.parametrize(
    "builder",
    [
        new_pod(),
        new_pod().waiting("ContainerCreating"),
        new_pod().loading(),
        new_pod().ready(),
        new_pod().crashed("", exit_code=0),
    ],
)
def test_pods_on_their_way(builder: PodBuilder) -> None:
    assert failure_of(builder) is None


def test_pods_that_the_api_server_refuses() -> None:
    refused = EngineDeployment(replicas=1, record=None, replica_failure='pods "x" is forbidden: exceeded quota')
    failure = start_failure(refused, [], "4Gi")
    assert failure is not None
    assert failure.reason is Reason.POD_REJECTED
    assert "exceeded quota" in failure.message
