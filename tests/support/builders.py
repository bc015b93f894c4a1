"""Fluent builders of Kubernetes objects for tests: ``make_service().model("pvc://claim/m").tensor(2).build()``."""

from __future__ import annotations

import copy
from typing import Any, Self

from vllm_operator.kube.kinds import Manifest
from vllm_operator.manifests.common import ENGINE_COMPONENT, MODEL_FACTS_COMPONENT, Owner, child_labels, child_metadata
from vllm_operator_api.model import AttentionCache, LayerShape, ModelFacts, WeightFacts, WeightsSource
from vllm_operator_api.names import (
    API_VERSION,
    FENCED_AT_ANNOTATION,
    INFERENCE_JOB_KIND,
    LLM_SERVICE_KIND,
    ROUTABLE_LABEL,
)
from vllm_operator_api.runtime import ModelFactsError, ModelFactsResult

NAMESPACE = "team-a"
T0 = "2026-01-01T00:00:00Z"


class _Builder:
    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest

    def build(self) -> Manifest:
        """The manifest; the builder may go on to be used."""
        return copy.deepcopy(self._manifest)

    def set(self, path: str, value: Any) -> Self:
        """Set a dotted path, such as ``spec.scaling.idleAfter``."""
        *parents, last = path.split(".")
        target = self._manifest
        for parent in parents:
            target = target.setdefault(parent, {})
        target[last] = value
        return self


class ServiceBuilder(_Builder):
    """An LLMService."""

    def model(self, model_id: str, **fields: Any) -> Self:
        return self.set("spec.model", {"id": model_id, **fields})

    def tensor(self, tensor: int | str) -> Self:
        return self.set("spec.parallelism.tensor", tensor)

    def args(self, *args: str) -> Self:
        return self.set("spec.engine.args", list(args))

    def env(self, **variables: str) -> Self:
        return self.set("spec.engine.env", [{"name": name, "value": value} for name, value in variables.items()])

    def idle_after(self, duration: str | None) -> Self:
        return self.set("spec.scaling.idleAfter", duration)

    def min_replicas(self, number: int) -> Self:
        return self.set("spec.scaling.minReplicas", number)

    def generation(self, number: int) -> Self:
        return self.set("metadata.generation", number)

    def status(self, **fields: Any) -> Self:
        return self.set("status", fields)


def make_service(name: str = "chat", *, namespace: str = NAMESPACE, uid: str | None = None) -> ServiceBuilder:
    """A valid LLMService of a model on a volume."""
    return ServiceBuilder(
        {
            "apiVersion": API_VERSION,
            "kind": LLM_SERVICE_KIND,
            "metadata": {"name": name, "namespace": namespace, "uid": uid or f"uid-{name}", "generation": 1},
            "spec": {"model": {"id": "pvc://models/llama"}},
        }
    )


def owner_of(service: Manifest) -> Owner:
    """The owner identity of a custom resource."""
    metadata = service["metadata"]
    return Owner(service["kind"], metadata["namespace"], metadata["name"], metadata["uid"])


class JobBuilder(_Builder):
    """An InferenceJob."""

    def phase(self, phase: str) -> Self:
        return self.set("status.phase", phase)


def make_job(name: str, service: str, *, namespace: str = NAMESPACE, uid: str | None = None) -> JobBuilder:
    """An InferenceJob on a service of the same namespace."""
    return JobBuilder(
        {
            "apiVersion": API_VERSION,
            "kind": INFERENCE_JOB_KIND,
            "metadata": {"name": name, "namespace": namespace, "uid": uid or f"uid-{name}", "generation": 1},
            "spec": {
                "serviceRef": {"name": service},
                "input": {"inline": '{"prompt": "hello"}', "messageKey": "prompt"},
                "output": {"configMap": {"name": f"{name}-output"}},
            },
        }
    )


class NodeBuilder(_Builder):
    """A node with GPUs."""

    def gpus(self, number: int, *, resource: str = "nvidia.com/gpu") -> Self:
        self._manifest["status"]["allocatable"][resource] = str(number)
        return self

    def product(self, product: str | None, memory_mib: int = 0) -> Self:
        labels = self._manifest["metadata"]["labels"]
        if product is not None:
            labels["nvidia.com/gpu.product"] = product
        if memory_mib:
            labels["nvidia.com/gpu.memory"] = str(memory_mib)
        return self

    def label(self, key: str, value: str) -> Self:
        self._manifest["metadata"]["labels"][key] = value
        return self

    def not_ready(self) -> Self:
        self._manifest["status"]["conditions"] = [{"type": "Ready", "status": "False"}]
        return self

    def cordoned(self) -> Self:
        return self.set("spec.unschedulable", True)


def make_node(name: str = "node-1") -> NodeBuilder:
    """A ready node without GPUs; ``make_node().gpus(8).product("NVIDIA-L4", 23034)``."""
    return NodeBuilder(
        {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": name, "uid": f"uid-{name}", "labels": {}},
            "spec": {},
            "status": {"allocatable": {"cpu": "64"}, "conditions": [{"type": "Ready", "status": "True"}]},
        }
    )


class PodBuilder(_Builder):
    """A pod of a service."""

    def _status(self) -> dict[str, Any]:
        status: dict[str, Any] = self._manifest["status"]
        return status

    def _container(self, **fields: Any) -> Self:
        name = self._manifest["spec"]["containers"][0]["name"]
        self._status()["containerStatuses"] = [{"name": name, **fields}]
        return self

    def _condition(self, kind: str, status: str, **fields: Any) -> Self:
        conditions = [c for c in self._status().setdefault("conditions", []) if c["type"] != kind]
        self._status()["conditions"] = [*conditions, {"type": kind, "status": status, **fields}]
        return self

    def node(self, name: str) -> Self:
        return self.set("spec.nodeName", name)

    def ready(self, since: str = T0) -> Self:
        self._status()["phase"] = "Running"
        self._condition("Ready", "True", lastTransitionTime=since)
        return self._container(ready=True, state={"running": {"startedAt": since}})

    def loading(self, since: str = T0) -> Self:
        self._status()["phase"] = "Running"
        self._condition("Ready", "False", lastTransitionTime=since)
        return self._container(ready=False, state={"running": {"startedAt": since}})

    def waiting(self, reason: str, message: str = "") -> Self:
        return self._container(ready=False, state={"waiting": {"reason": reason, "message": message}})

    def crashed(self, message: str, *, exit_code: int = 1, reason: str = "Error", restarting: bool = True) -> Self:
        end = {"terminated": {"exitCode": exit_code, "reason": reason, "message": message}}
        if restarting:
            state = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 5m0s restarting failed container"}}
            return self._container(ready=False, restartCount=3, state=state, lastState=end)
        return self._container(ready=False, state=end)

    def terminated(self, message: str, *, exit_code: int = 0) -> Self:
        self._status()["phase"] = "Succeeded" if exit_code == 0 else "Failed"
        return self.crashed(message, exit_code=exit_code, reason="Completed", restarting=False)

    def unschedulable(self, message: str) -> Self:
        return self._condition("PodScheduled", "False", reason="Unschedulable", message=message)

    def fenced(self, at: str) -> Self:
        self._manifest["metadata"]["labels"][ROUTABLE_LABEL] = "false"
        self._manifest["metadata"].setdefault("annotations", {})[FENCED_AT_ANNOTATION] = at
        return self

    def terminating(self) -> Self:
        return self.set("metadata.deletionTimestamp", T0)


def make_pod(service: Manifest, name: str = "chat-engine-1") -> PodBuilder:
    """An engine pod of a service, just created."""
    labels = {**child_labels(owner_of(service), ENGINE_COMPONENT), ROUTABLE_LABEL: "true"}
    return PodBuilder(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": name,
                "namespace": service["metadata"]["namespace"],
                "uid": f"uid-{name}",
                "labels": labels,
                "creationTimestamp": T0,
            },
            "spec": {"containers": [{"name": ENGINE_COMPONENT}]},
            "status": {"phase": "Pending"},
        }
    )


def make_facts_pod(service: Manifest, job: Manifest, name: str = "chat-facts-1") -> PodBuilder:
    """A pod of a model-facts Job, just created."""
    manifest = make_pod(service, name).build()
    manifest["metadata"]["labels"] = child_labels(owner_of(service), MODEL_FACTS_COMPONENT)
    manifest["metadata"]["ownerReferences"] = [
        {"apiVersion": "batch/v1", "kind": "Job", "name": job["metadata"]["name"], "uid": job["metadata"]["uid"]}
    ]
    manifest["spec"]["containers"] = [{"name": MODEL_FACTS_COMPONENT}]
    return PodBuilder(manifest)


def make_child(service: Manifest, manifest: Manifest) -> Manifest:
    """A manifest with the identity of a child of a service."""
    component = (manifest["metadata"].get("labels") or {}).get("app.kubernetes.io/component", ENGINE_COMPONENT)
    metadata = child_metadata(owner_of(service), manifest["metadata"]["name"], component)
    return {**manifest, "metadata": {**metadata, "uid": f"uid-{manifest['metadata']['name']}"}}


def make_facts(
    *,
    layers: int = 32,
    kv_heads: int = 8,
    head_dim: int = 128,
    window_tokens: int | None = None,
    weights_bytes: int = 16_060_522_496,
    **fields: Any,
) -> ModelFacts:
    """Llama-3.1-8B, changed: ``layers`` alike layers of attention, and any field of ``ModelFacts``."""
    attention = AttentionCache(
        kind="full" if window_tokens is None else "sliding",
        kv_heads=kv_heads,
        head_dim=head_dim,
        value_dim=head_dim,
        window_tokens=window_tokens,
    )
    embedding_bytes = min(weights_bytes, 128_256 * 4096 * 2)
    llama: dict[str, Any] = {
        "source": "pvc://models/llama",
        "architecture": "LlamaForCausalLM",
        "model_type": "llama",
        "hidden_size": 4096,
        "vocab_size": 128256,
        "attention_heads": 32,
        "layer_shapes": (LayerShape(caches=(attention,)),),
        "layer_pattern": "a" * layers,
        "intermediate_sizes": (14336,),
        "max_position_embeddings": 131072,
        "dtype": "bfloat16",
        "weights": WeightFacts(
            total_bytes=weights_bytes,
            source=WeightsSource.HEADERS,
            embedding_bytes=embedding_bytes,
            head_bytes=embedding_bytes,
        ),
    }
    return ModelFacts(**{**llama, **fields})


def facts_message(facts: ModelFacts) -> str:
    """Termination message of a model-facts reader that succeeded."""
    return ModelFactsResult(facts=facts).model_dump_json()


def facts_error_message(reason: str, message: str) -> str:
    """Termination message of a model-facts reader that found a fault."""
    return ModelFactsResult(error=ModelFactsError(reason=reason, message=message)).model_dump_json()
