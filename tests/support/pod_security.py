"""Whether a pod has the shape that all pods of ours have: Pod Security ``restricted`` and our own rules on top of it.

For rendered or built manifests, without a cluster. What the API server itself thinks is asked in the integration tests.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

_RESTRICTED_VOLUMES = {
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "image", "persistentVolumeClaim", "projected", "secret",
}  # fmt: skip


def pod_template(manifest: dict[str, Any]) -> dict[str, Any] | None:
    """The pod (metadata and spec) that a manifest is or makes; None for a manifest without one."""
    match manifest["kind"]:
        case "Pod":
            return manifest
        case "Deployment" | "StatefulSet" | "Job" | "DaemonSet" | "ReplicaSet":
            template: dict[str, Any] = manifest["spec"]["template"]
            return template
        case _:
            return None


def violations(pod: dict[str, Any], *, api_token: bool = False) -> list[str]:
    """Everything about ``pod`` (with ``spec``) that breaks a rule; empty when it is as it should be.

    ``api_token``: whether this pod may have a token of the Kubernetes API.
    """
    spec = pod["spec"]
    return [
        *_restricted(spec),
        *_pod_rules(spec, api_token=api_token),
        *(problem for kind, container in _containers(spec) for problem in _container_rules(kind, container)),
    ]


def _containers(spec: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for field in ("initContainers", "containers", "ephemeralContainers"):
        for container in spec.get(field, ()):
            yield f"{field}[{container['name']}]", container


def _restricted(spec: dict[str, Any]) -> Iterator[str]:
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(field):
            yield f"{field} is set"
    security = spec.get("securityContext", {})
    if security.get("sysctls"):
        yield "sysctls are set"
    for volume in spec.get("volumes", ()):
        sources = set(volume) - {"name"}
        if not sources <= _RESTRICTED_VOLUMES:
            yield f"volume {volume['name']} is of type {sources}"
    for kind, container in _containers(spec):
        own = container.get("securityContext", {})
        both = security | own
        if both.get("runAsNonRoot") is not True:
            yield f"{kind}: runAsNonRoot is not true"
        if both.get("runAsUser") == 0:
            yield f"{kind}: runs as root"
        if both.get("seccompProfile", {}).get("type") not in ("RuntimeDefault", "Localhost"):
            yield f"{kind}: no seccomp profile"
        if own.get("allowPrivilegeEscalation") is not False:
            yield f"{kind}: allowPrivilegeEscalation is not false"
        if own.get("privileged"):
            yield f"{kind}: privileged"
        capabilities = own.get("capabilities", {})
        if "ALL" not in capabilities.get("drop", ()):
            yield f"{kind}: capabilities are not dropped"
        if set(capabilities.get("add", ())) - {"NET_BIND_SERVICE"}:
            yield f"{kind}: capabilities are added"
        if any(port.get("hostPort") for port in container.get("ports", ())):
            yield f"{kind}: has a host port"
        if own.get("procMount", "Default") != "Default":
            yield f"{kind}: procMount is {own['procMount']}"


def _pod_rules(spec: dict[str, Any], *, api_token: bool) -> Iterator[str]:
    if spec.get("automountServiceAccountToken") is not api_token:
        yield f"automountServiceAccountToken is not {str(api_token).lower()}"
    if spec.get("enableServiceLinks") is not False:
        yield "enableServiceLinks is not false: a Service's name would become environment variables"
    user = spec.get("securityContext", {}).get("runAsUser")
    if not isinstance(user, int) or user < 1:
        yield f"runAsUser is {user!r}, not a number above 0"
    for volume in spec.get("volumes", ()):
        if "emptyDir" in volume and not (volume["emptyDir"] or {}).get("sizeLimit"):
            yield f"emptyDir {volume['name']} has no sizeLimit"


def _container_rules(kind: str, container: dict[str, Any]) -> Iterator[str]:
    if container.get("securityContext", {}).get("readOnlyRootFilesystem") is not True:
        yield f"{kind}: the root file system is writable"
    resources = container.get("resources", {})
    if not {"cpu", "memory"} <= set(resources.get("requests", ())):
        yield f"{kind}: no requests for cpu and memory"
    if "memory" not in resources.get("limits", ()):
        yield f"{kind}: no memory limit"
