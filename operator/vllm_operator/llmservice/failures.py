"""Why engines do not start, in the words of those who know: scheduler, kubelet, API server, vLLM. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from vllm_operator.llmservice.facts import IMAGE_REASONS
from vllm_operator.llmservice.observe import ContainerExit, EnginePod, EngineWorkload
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

_OOM_KILLED = "OOMKilled"
_CONFIG_REASONS = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError"})
_MAX_QUOTED = 800
_SHARE_MARGIN = 0.01
_LEAST_SHARE = 0.05
"""Of a GPU: no engine is worth starting in less."""
_LARGER_GPU = "use a GPU with more memory"


@dataclass(frozen=True, slots=True)
class StartFailure:
    """A reason of ``Ready=False`` and its message."""

    reason: Reason
    message: str


def start_failure(workload: EngineWorkload | None, pods: Iterable[EnginePod], memory_limit: str) -> StartFailure | None:
    """The most telling trouble of pods that are not ready; None when they are merely on their way."""
    troubled = [pod for pod in pods if not pod.ready]
    for find in (_engine_exit, _image, _container_config, _unschedulable):
        for pod in troubled:
            failure = find(pod, memory_limit)
            if failure is not None:
                return failure
    if workload is not None and workload.replica_failure:
        return StartFailure(
            Reason.POD_REJECTED,
            f"the API server refuses the pod: {workload.replica_failure[:_MAX_QUOTED]}",
        )
    return None


def _engine_exit(pod: EnginePod, memory_limit: str) -> StartFailure | None:
    if pod.last_exit is None or pod.last_exit.exit_code == 0:
        return None
    if pod.last_exit.reason == _OOM_KILLED:
        return StartFailure(
            Reason.ENGINE_FAILED,
            f"the engine was killed because its container reached its memory limit of {memory_limit}; "
            "raise spec.resources.memory",
        )
    told = pod.last_exit.told
    return StartFailure(Reason.ENGINE_FAILED, _unread_exit(pod.last_exit) if told is None else _told_exit(told))


def _unread_exit(last_exit: ContainerExit) -> str:
    said = last_exit.message.strip()
    if said:
        return f"the engine ended with exit code {last_exit.exit_code}: {said[:_MAX_QUOTED]}"
    return (
        f"the engine ended with exit code {last_exit.exit_code} ({last_exit.reason}) and left no message; "
        "see the log of its pod"
    )


def _told_exit(told: EngineExit) -> str:
    stage = "while it started" if told.stage == "start" else "while it served"
    if told.fault is None:
        return f"the engine ended {stage} with exit code {told.exit_code}: {told.message[:_MAX_QUOTED]}"
    return f"the engine ended {stage}: {_explained(told.fault, told.message)}"


def _explained(fault: EngineFault, said: str) -> str:
    """What is wrong, with the engine's numbers, and what to do."""
    match fault:
        case LengthTooLong():
            return _length_too_long(fault)
        case NoCacheBlocks():
            return (
                "the weights and the engine's own memory leave nothing of a GPU for the KV cache; set "
                f"spec.parallelism.tensor to a larger degree, raise spec.engine.gpuMemoryUtilization, or {_LARGER_GPU}"
            )
        case GpuOutOfMemory():
            tried = "" if fault.tried_gib is None else f" when it asked for {fault.tried_gib:g} GiB more"
            return (
                f"a GPU ran out of memory{tried}; lower spec.concurrency.target, add a lower "
                "--max-num-batched-tokens to spec.engine.args, set spec.parallelism.tensor to a larger degree, or "
                f"{_LARGER_GPU}"
            )
        case FreeMemoryBelowUtilization():
            return _too_little_free(fault)
        case IllegalParallelism():
            return (
                f"the model cannot be cut like this: {said[:_MAX_QUOTED]}; set spec.parallelism.tensor to auto, or to "
                "one of status.plan.legalTensor"
            )


def _too_little_free(fault: FreeMemoryBelowUtilization) -> str:
    share = fault.free_gib / fault.total_gib - _SHARE_MARGIN if fault.total_gib else 0.0
    less = f", or set spec.engine.gpuMemoryUtilization to at most {share:.2f}" if share >= _LEAST_SHARE else ""
    return (
        f"only {fault.free_gib:g} of a GPU's {fault.total_gib:g} GiB are free, and the engine is to take "
        f"{fault.desired_gib:g} GiB: something else uses that GPU; end it{less}"
    )


def _length_too_long(fault: LengthTooLong) -> str:
    if fault.longest_tokens is None:
        shorter = "lower spec.model.maxLength"
    else:
        shorter = f"set spec.model.maxLength to at most {fault.longest_tokens}"
    return (
        f"one request of {fault.length_tokens} tokens needs {fault.needed_gib:g} GiB of KV cache per GPU, and "
        f"{fault.available_gib:g} GiB are left for it; {shorter}, set spec.parallelism.tensor to a larger degree, "
        f"raise spec.engine.gpuMemoryUtilization, or {_LARGER_GPU}"
    )


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
