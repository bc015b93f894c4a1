"""Why engines do not start, told in the words of those who know."""

from __future__ import annotations

import pytest
from tests.support.builders import PodBuilder, make_pod, make_service

from vllm_operator.kube.kinds import ObjectRef
from vllm_operator.llmservice.failures import StartFailure, start_failure
from vllm_operator.llmservice.observe import ContainerExit, EngineWorkload, _engine_pod
from vllm_operator_api.conditions import Reason
from vllm_operator_api.runtime import (
    EngineExit,
    EngineFault,
    FreeMemoryBelowUtilization,
    GpuOutOfMemory,
    IllegalParallelism,
    LengthTooLong,
    NoCacheBlocks,
)

SERVICE = make_service().build()
ENGINE_SAID = "ValueError: max_num_batched_tokens (1) must be greater than or equal to max_num_seqs (32)"


def failure_of(builder: PodBuilder) -> StartFailure | None:
    return start_failure(None, [_engine_pod(builder.build(), None)], "4Gi")


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
    ("fault", "says"),
    [
        (
            LengthTooLong(length_tokens=196608, needed_gib=23.25, available_gib=22.5, longest_tokens=190272),
            (
                "one request of 196608 tokens needs 23.25 GiB of KV cache per GPU, and 22.5 GiB are left for it; set "
                "spec.model.maxLength to at most 190272, "
            ),
        ),
        (
            LengthTooLong(length_tokens=4096, needed_gib=1.0, available_gib=0.01),
            "lower spec.model.maxLength, set spec.parallelism.tensor to a larger degree",
        ),
        (NoCacheBlocks(), "leave nothing of a GPU for the KV cache; set spec.parallelism.tensor to a larger degree"),
        (GpuOutOfMemory(tried_gib=0.5), "a GPU ran out of memory when it asked for 0.5 GiB more; lower "),
        (GpuOutOfMemory(), "a GPU ran out of memory; lower spec.concurrency.target"),
        (
            FreeMemoryBelowUtilization(free_gib=60.1, total_gib=79.18, desired_gib=72.85),
            (
                "only 60.1 of a GPU's 79.18 GiB are free, and the engine is to take 72.85 GiB: something else uses "
                "that GPU; end it, or set spec.engine.gpuMemoryUtilization to at most 0.75"
            ),
        ),
        (
            FreeMemoryBelowUtilization(free_gib=0.0, total_gib=0.0, desired_gib=1.0),
            "something else uses that GPU; end it",
        ),
        (
            IllegalParallelism(),
            f"the model cannot be cut like this: {ENGINE_SAID}; set spec.parallelism.tensor to auto",
        ),
    ],
)
def test_faults_come_with_their_numbers_and_a_remedy(fault: EngineFault, says: str) -> None:
    told = EngineExit(stage="start", exit_code=1, message=ENGINE_SAID, fault=fault)
    failure = failure_of(new_pod().crashed(told.model_dump_json()))
    assert failure is not None
    assert failure.reason is Reason.ENGINE_FAILED
    assert failure.message.startswith("the engine ended while it started: ")
    assert says in failure.message
    assert ContainerExit(exit_code=1, reason="Error", message=told.model_dump_json()).told == told


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
    refused = EngineWorkload(
        ref=ObjectRef("Deployment", "team-a", "chat-engine"),
        uid="uid",
        replicas=1,
        record=None,
        replica_failure='pods "x" is forbidden: exceeded quota',
    )
    failure = start_failure(refused, [], "4Gi")
    assert failure is not None
    assert failure.reason is Reason.POD_REJECTED
    assert "exceeded quota" in failure.message
