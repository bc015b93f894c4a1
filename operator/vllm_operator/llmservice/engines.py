"""The object that makes a service's engines: a Deployment, or a LeaderWorkerSet where a replica spans nodes. Pure."""

from __future__ import annotations

from vllm_operator.engine.plan import Deletion
from vllm_operator.kube.kinds import DEPLOYMENT, LEADER_WORKER_SET, Manifest
from vllm_operator.llmservice.observe import EngineWorkload
from vllm_operator.manifests.common import Owner
from vllm_operator.manifests.engine_deployment import engine_deployment
from vllm_operator.manifests.engine_pod import EngineInputs, EngineInstall
from vllm_operator.manifests.leader_worker_set import leader_worker_set
from vllm_operator.manifests.placement import EnginePlacement, pod_resources
from vllm_operator.planner.record import PlanRecord
from vllm_operator.planner.sources.location import ModelLocation
from vllm_operator_api.v1alpha1.llmservice import LLMServiceSpec


def engine_workload(
    owner: Owner,
    spec: LLMServiceSpec,
    location: ModelLocation,
    plan: PlanRecord,
    install: EngineInstall,
    *,
    replicas: int,
) -> Manifest:
    """What makes ``replicas`` engines of this plan."""
    inputs = EngineInputs(
        owner=owner,
        spec=spec,
        location=location,
        plan=plan,
        placement=_placement(spec, plan),
        install=install,
    )
    if plan.layout.nodes > 1:
        return leader_worker_set(inputs, replicas=replicas)
    return engine_deployment(inputs, replicas=replicas)


def other_workload(plan: PlanRecord, workloads: tuple[EngineWorkload, ...]) -> tuple[Deletion, ...]:
    """The workload of the other kind, which an earlier plan made: two would be twice the engines."""
    wanted = LEADER_WORKER_SET.kind if plan.layout.nodes > 1 else DEPLOYMENT.kind
    return tuple(Deletion(ref=workload.ref, uid=workload.uid) for workload in workloads if workload.ref.kind != wanted)


def _placement(spec: LLMServiceSpec, plan: PlanRecord) -> EnginePlacement:
    return EnginePlacement(
        layout=plan.layout,
        resource_name=spec.accelerator.resource_name,
        pools=tuple(placement.requirements for placement in plan.placements),
        taints=tuple({taint: None for placement in plan.placements for taint in placement.taints}),
        resources=pod_resources(spec.resources, plan.layout.gpus_per_node, plan.weights_bytes),
    )


def memory_limit(spec: LLMServiceSpec, plan: PlanRecord | None) -> str:
    """Memory limit of an engine's container, as it was asked for or worked out."""
    if plan is None:
        return spec.resources.memory or "its default"
    return pod_resources(spec.resources, plan.layout.gpus_per_node, plan.weights_bytes).memory
