"""The Service by which clients reach a service's engines."""

from __future__ import annotations

from vllm_operator.kube.kinds import Manifest
from vllm_operator.manifests.common import ENGINE_COMPONENT, Owner, child_metadata, selector_labels
from vllm_operator_api.names import ROUTABLE_LABEL
from vllm_operator_api.runtime import ENGINE_PORT


def engine_service(owner: Owner) -> Manifest:
    """ClusterIP Service of the service's own name, on port 8000, for the engines that are in routing."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": child_metadata(owner, owner.name, ENGINE_COMPONENT),
        "spec": {
            "type": "ClusterIP",
            "selector": {**selector_labels(owner, ENGINE_COMPONENT), ROUTABLE_LABEL: "true"},
            "ports": [{"name": "http", "port": ENGINE_PORT, "targetPort": "http", "protocol": "TCP"}],
        },
    }


def service_url(name: str, namespace: str, cluster_domain: str) -> str:
    """Base URL of the service inside the cluster."""
    return f"http://{name}.{namespace}.svc.{cluster_domain}:{ENGINE_PORT}"
