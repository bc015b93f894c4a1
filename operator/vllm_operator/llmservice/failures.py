"""Why engines do not start, in the words of those who know: scheduler, kubelet, API server, vLLM. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pydantic import ValidationError

from vllm_operator.llmservice.facts import IMAGE_REASONS
from vllm_operator.llmservice.observe import ContainerExit, EngineDeployment, EnginePod
from vllm_operator_api.conditions import Reason
from vllm_operator_api.runtime import EngineExit

_OOM_KILLED = "OOMKilled"
_CONFIG_REASONS = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError"})
_MAX_QUOTED = 800


@dataclass(frozen=True, slots=True)
class StartFailure:
    """A reason of ``Ready=False`` and its message."""

    reason: Reason
    message: str


def start_failure(
    deployment: EngineDeployment | None, pods: Iterable[EnginePod], memory_limit: str
) -> StartFailure | None:
    """The most telling trouble of pods that are not ready; None when they are merely on their way."""
    troubled = [pod for pod in pods if not pod.ready]
    for find in (_engine_exit, _image, _container_config, _unschedulable):
        for pod in troubled:
            failure = find(pod, memory_limit)
            if failure is not None:
                return failure
    if deployment is not None and deployment.replica_failure:
        return StartFailure(
            Reason.POD_REJECTED,
            f"the API server refuses the pod: {deployment.replica_failure[:_MAX_QUOTED]}",
        )
    return None


def _engine_exit(pod: EnginePod, memory_limit: str) -> StartFailure | None:
    if pod.last_exit is None or pod.last_exit.exit_code == 0:
        return None
    return StartFailure(Reason.ENGINE_FAILED, _exit_message(pod.last_exit, memory_limit))


def _exit_message(last_exit: ContainerExit, memory_limit: str) -> str:
    if last_exit.reason == _OOM_KILLED:
        return (
            f"the engine was killed because its container reached its memory limit of {memory_limit}; "
            "raise spec.resources.memory"
        )
    try:
        told = EngineExit.model_validate_json(last_exit.message)
    except ValidationError:
        said = last_exit.message.strip()
        if said:
            return f"the engine ended with exit code {last_exit.exit_code}: {said[:_MAX_QUOTED]}"
        return (
            f"the engine ended with exit code {last_exit.exit_code} ({last_exit.reason}) and left no message; "
            "see the log of its pod"
        )
    stage = "while it started" if told.stage == "start" else "while it served"
    return f"the engine ended {stage} with exit code {told.exit_code}: {told.message[:_MAX_QUOTED]}"


def _image(pod: EnginePod, _memory_limit: str) -> StartFailure | None:
    if pod.waiting_reason not in IMAGE_REASONS:
        return None
    return StartFailure(
        Reason.IMAGE_PULL_FAILED,
        f"the engine's image cannot be pulled: {pod.waiting_message[:_MAX_QUOTED] or pod.waiting_reason}; "
        "check spec.image and the registry's access",
    )


def _container_config(pod: EnginePod, _memory_limit: str) -> StartFailure | None:
    if pod.waiting_reason not in _CONFIG_REASONS:
        return None
    return StartFailure(
        Reason.ENGINE_FAILED,
        f"the engine's container cannot be started: {pod.waiting_reason}: {pod.waiting_message[:_MAX_QUOTED]}",
    )


def _unschedulable(pod: EnginePod, _memory_limit: str) -> StartFailure | None:
    if not pod.unschedulable_message:
        return None
    return StartFailure(
        Reason.UNSCHEDULABLE, f"no node takes the engine's pod: {pod.unschedulable_message[:_MAX_QUOTED]}"
    )
