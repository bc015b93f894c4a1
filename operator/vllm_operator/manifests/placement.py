"""Where an engine's pods may run, and what each of them asks for: the part of a plan that Kubernetes sees."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from vllm_operator.planner.inventory.nvidia import GPU_TAINT
from vllm_operator.planner.inventory.pool import LabelRequirement, Taint
from vllm_operator.planner.layout import Layout
from vllm_operator_api.quantities import BYTES_PER_GIB, parse_bytes
from vllm_operator_api.v1alpha1.llmservice import EngineResources

SHM_GIB_PER_GPU: Final = 1
"""NCCL and vLLM's processes of one pod exchange data through /dev/shm; Kubernetes' default of 64 MiB ends them."""
_MEMORY_GIB_PER_GPU: Final = 3
"""A worker process with its CUDA context, libraries and pinned buffers, and its share of the server: 1.3-2.0 GiB were
measured for the CPU build, which has no CUDA context."""
_MAX_FILE_GIB: Final = 5
"""Files of weights are split at 5 GB by the tools that write them. The pages of the one that is read count; what was
read before is page cache, which the kernel takes back."""
_NVIDIA: Final = "nvidia.com/"


@dataclass(frozen=True, slots=True, kw_only=True)
class PodResources:
    """Resources of one engine pod beside its accelerators, as Kubernetes' quantities."""

    cpu: str
    memory: str
    """Request and limit, ``shm`` included."""
    shm: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EnginePlacement:
    """What the pod templates need of a plan."""

    layout: Layout
    resource_name: str
    pools: tuple[tuple[LabelRequirement, ...], ...]
    """The labels of each pool that the plan may run on."""
    taints: tuple[Taint, ...] = ()
    """Of any of these pools."""
    resources: PodResources


def pod_resources(asked: EngineResources, gpus: int, weights_bytes: int) -> PodResources:
    """What the user asked for, else enough for ``gpus`` workers that read the weights.

    With several GPUs /dev/shm has at least 1 GiB for each, whatever was asked for.
    """
    shm_gib = SHM_GIB_PER_GPU * gpus
    shm = asked.shm or f"{shm_gib}Gi"
    if gpus > 1 and parse_bytes(shm) < shm_gib * BYTES_PER_GIB:
        shm = f"{shm_gib}Gi"
    file_gib = min(_MAX_FILE_GIB, math.ceil(weights_bytes / BYTES_PER_GIB))
    memory_gib = _MEMORY_GIB_PER_GPU * gpus + file_gib + math.ceil(parse_bytes(shm) / BYTES_PER_GIB)
    return PodResources(cpu=asked.cpu or str(gpus), memory=asked.memory or f"{memory_gib}Gi", shm=shm)


def check_resources(asked: EngineResources, gpus: int) -> str | None:
    """Why the container's own sizes contradict each other, None when they do not."""
    resources = pod_resources(asked, gpus, 0)
    if parse_bytes(resources.shm) < parse_bytes(resources.memory):
        return None
    per_gpu = "" if resources.shm == asked.shm else f" ({SHM_GIB_PER_GPU}Gi for each of {gpus} GPUs)"
    return (
        f"spec.resources.shm={resources.shm}{per_gpu} is memory of the container and must be less than "
        f"spec.resources.memory={resources.memory}; raise spec.resources.memory, or leave it out"
    )


def node_affinity(pools: Iterable[tuple[LabelRequirement, ...]]) -> dict[str, Any]:
    """``affinity`` of a pod that may run on any of the pools; empty where one of them has no label to select it by."""
    terms = [
        {
            "matchExpressions": [
                {"key": each.key, "operator": "In", "values": list(each.values)} for each in requirements
            ]
        }
        for requirements in dict.fromkeys(pools)
    ]
    if not terms or not all(term["matchExpressions"] for term in terms):
        return {}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}


def tolerations(resource_name: str, taints: Iterable[Taint]) -> list[dict[str, str]]:
    """The pools' taints, and always the vendor's own, by which clusters keep other pods off accelerator nodes."""
    vendor = GPU_TAINT if resource_name.startswith(_NVIDIA) else resource_name
    return [
        {"key": vendor, "operator": "Exists", "effect": "NoSchedule"},
        *(
            {"key": taint.key, "operator": "Equal", "value": taint.value, "effect": taint.effect}
            for taint in sorted(set(taints))
            if (taint.key, taint.effect) != (vendor, "NoSchedule")
        ),
    ]
