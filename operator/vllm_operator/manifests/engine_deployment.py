"""The Deployment of a service's engines, where each engine is one pod."""

from __future__ import annotations

from vllm_operator.kube.kinds import DEPLOYMENT, Manifest
from vllm_operator.manifests.common import ENGINE_COMPONENT, child_metadata, selector_labels
from vllm_operator.manifests.engine_pod import STARTUP_SECONDS, EngineInputs, engine_pod_template
from vllm_operator_api.names import PLAN_ANNOTATION, child_name


def engine_deployment_name(service_name: str) -> str:
    """Name of the Deployment of a service's engines."""
    return child_name(service_name, ENGINE_COMPONENT)


def engine_deployment(inputs: EngineInputs, *, replicas: int) -> Manifest:
    """Deployment with ``replicas`` engines. A rollout needs no spare GPU: the old pod goes first."""
    owner = inputs.owner
    return {
        "apiVersion": DEPLOYMENT.api_version,
        "kind": DEPLOYMENT.kind,
        "metadata": child_metadata(
            owner,
            engine_deployment_name(owner.name),
            ENGINE_COMPONENT,
            annotations={PLAN_ANNOTATION: inputs.plan.model_dump_json()},
        ),
        "spec": {
            "replicas": replicas,
            "revisionHistoryLimit": 2,
            "progressDeadlineSeconds": STARTUP_SECONDS + 1800,
            "selector": {"matchLabels": selector_labels(owner, ENGINE_COMPONENT)},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}},
            "template": engine_pod_template(inputs),
        },
    }
