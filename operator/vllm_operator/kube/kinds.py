"""Kinds the operator reads or writes, and references to objects of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

Manifest = dict[str, Any]
"""A Kubernetes object as JSON. Dicts are used at this boundary only."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A resource type: what a URL needs."""

    api_version: str
    kind: str
    plural: str
    namespaced: bool = True


LLM_SERVICE: Final = Kind("inference.vllm-operator.io/v1alpha1", "LLMService", "llmservices")
INFERENCE_JOB: Final = Kind("inference.vllm-operator.io/v1alpha1", "InferenceJob", "inferencejobs")
DEPLOYMENT: Final = Kind("apps/v1", "Deployment", "deployments")
LEADER_WORKER_SET: Final = Kind("leaderworkerset.x-k8s.io/v1", "LeaderWorkerSet", "leaderworkersets")
"""Of a custom resource that a cluster may lack: nothing may take its presence for granted."""
JOB: Final = Kind("batch/v1", "Job", "jobs")
SERVICE: Final = Kind("v1", "Service", "services")
POD: Final = Kind("v1", "Pod", "pods")
NODE: Final = Kind("v1", "Node", "nodes", namespaced=False)
CONFIG_MAP: Final = Kind("v1", "ConfigMap", "configmaps")
EVENT: Final = Kind("v1", "Event", "events")
LEASE: Final = Kind("coordination.k8s.io/v1", "Lease", "leases")
NODE_POOL: Final = Kind("karpenter.sh/v1", "NodePool", "nodepools", namespaced=False)
"""Karpenter's; only read, like the two below, and only listed: most clusters lack some of them."""
RESOURCE_SLICE: Final = Kind("resource.k8s.io/v1", "ResourceSlice", "resourceslices", namespaced=False)
RESOURCE_QUOTA: Final = Kind("v1", "ResourceQuota", "resourcequotas")

ALL: Final = (
    LLM_SERVICE, INFERENCE_JOB, DEPLOYMENT, LEADER_WORKER_SET, JOB, SERVICE, POD, NODE, CONFIG_MAP, EVENT, LEASE,
)  # fmt: skip
BY_KIND: Final = {kind.kind: kind for kind in ALL}


@dataclass(frozen=True, slots=True, order=True)
class ObjectRef:
    """One object by kind, namespace (``""`` when cluster-scoped) and name."""

    kind: str
    namespace: str
    name: str

    @classmethod
    def of(cls, manifest: Manifest) -> ObjectRef:
        """The reference of a manifest."""
        metadata = manifest["metadata"]
        return cls(manifest["kind"], metadata.get("namespace") or "", metadata["name"])

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"


Key = ObjectRef
"""Key of the work queue: a custom resource of ours."""
