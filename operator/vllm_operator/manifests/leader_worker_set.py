"""The LeaderWorkerSet of a service's engines, where each engine spans several nodes.

Each group is one engine: a leader with vLLM's HTTP server and the queue agent, and followers that lend their GPUs.
vLLM cannot go on without one of its ranks, so a group is made anew when any of its pods restarts
(https://lws.sigs.k8s.io, API leaderworkerset.x-k8s.io/v1).
"""

from __future__ import annotations

from typing import Final

from vllm_operator.kube.kinds import LEADER_WORKER_SET, Manifest
from vllm_operator.manifests.common import ENGINE_COMPONENT, child_metadata
from vllm_operator.manifests.engine_pod import EngineInputs, engine_pod_template
from vllm_operator_api.names import PLAN_ANNOTATION, child_name

_RESTART_POLICY: Final = "RecreateGroupOnPodRestart"


def leader_worker_set_name(service_name: str) -> str:
    """Name of the LeaderWorkerSet; its pods are ``<name>-<group>`` (the leader) and ``<name>-<group>-<index>``."""
    return child_name(service_name, ENGINE_COMPONENT)


def leader_worker_set(inputs: EngineInputs, *, replicas: int) -> Manifest:
    """LeaderWorkerSet with ``replicas`` engines of ``layout.nodes`` pods each.

    Followers start with the leader, for it becomes ready only once they have joined. A rollout needs no spare GPU: the
    old group goes first.
    """
    owner = inputs.owner
    return {
        "apiVersion": LEADER_WORKER_SET.api_version,
        "kind": LEADER_WORKER_SET.kind,
        "metadata": child_metadata(
            owner,
            leader_worker_set_name(owner.name),
            ENGINE_COMPONENT,
            annotations={PLAN_ANNOTATION: inputs.plan.model_dump_json()},
        ),
        "spec": {
            "replicas": replicas,
            "startupPolicy": "LeaderCreated",
            "rolloutStrategy": {
                "type": "RollingUpdate",
                "rollingUpdateConfiguration": {"maxSurge": 0, "maxUnavailable": 1},
            },
            "leaderWorkerTemplate": {
                "size": inputs.placement.layout.nodes,
                "restartPolicy": _RESTART_POLICY,
                "leaderTemplate": engine_pod_template(inputs),
                "workerTemplate": engine_pod_template(inputs, follower=True),
            },
        },
    }
