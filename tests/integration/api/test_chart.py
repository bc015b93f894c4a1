"""The chart on a real API server: Pod Security, rights, credentials over upgrades, what an uninstall leaves."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from tests.support import helm
from tests.support.kubectl import Kubectl, KubectlError

from localk8s.api import wait_until
from localk8s.control_plane import ControlPlane

pytestmark = pytest.mark.integration

ACCOUNT = f"system:serviceaccount:{helm.NAMESPACE}:vllm-operator"
QUEUE = "vllm-operator-queue"
SETTINGS = ("--set", "queue.namespaces={default,team-a}")


@pytest.fixture(scope="module")
def cluster() -> Iterator[ControlPlane]:
    """A control plane without our definitions; the release's namespace refuses all but restricted pods."""
    with ControlPlane() as running:
        kubectl = Kubectl(running.kubeconfig)
        kubectl("create", "namespace", "team-a")
        kubectl("create", "namespace", "team-b")
        kubectl("create", "namespace", helm.NAMESPACE)
        kubectl("label", "namespace", helm.NAMESPACE, "pod-security.kubernetes.io/enforce=restricted")
        yield running


@pytest.fixture(scope="module")
def release(cluster: ControlPlane) -> Kubectl:
    """The chart, installed by helm with its defaults; kubectl of an administrator."""
    run_helm(cluster, "install", helm.RELEASE, str(helm.CHART), *SETTINGS)
    return Kubectl(cluster.kubeconfig)


def run_helm(cluster: ControlPlane, *arguments: str) -> str:
    return helm.helm(*arguments, "--namespace", helm.NAMESPACE, kubeconfig=cluster.kubeconfig)


def rights(kubectl: Kubectl, account: str, namespace: str) -> dict[str, set[str]]:
    """Verbs by ``resource.group`` (and names of single objects), as ``kubectl auth can-i --list`` asks for them."""
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectRulesReview",
        "spec": {"namespace": namespace},
    }
    answer = json.loads(
        kubectl("create", "--validate=false", f"--as={account}", "-o", "json", "-f", "-", stdin=json.dumps(review))
    )
    found: dict[str, set[str]] = {}
    for rule in answer["status"]["resourceRules"]:
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                name, _, subresource = resource.partition("/")
                key = "/".join(filter(None, [".".join(filter(None, [name, group])), subresource]))
                for suffix in [f" {name}" for name in rule.get("resourceNames", ())] or [""]:
                    found.setdefault(key + suffix, set()).update(rule["verbs"])
    return found


def own_rights(kubectl: Kubectl, namespace: str) -> dict[str, set[str]]:
    """What the operator may do beyond what any account may."""
    anybody = rights(kubectl, "system:serviceaccount:default:default", namespace)
    return {key: verbs for key, verbs in rights(kubectl, ACCOUNT, namespace).items() if anybody.get(key) != verbs}


EVERYWHERE = {
    "nodes": {"get", "list", "watch"},
    "nodepools.karpenter.sh": {"get", "list"},
    "resourceslices.resource.k8s.io": {"get", "list"},
}
WATCHED = {
    "llmservices.inference.vllm-operator.io": {"get", "list", "watch"},
    "llmservices.inference.vllm-operator.io/status": {"patch"},
    "llmservices.inference.vllm-operator.io/finalizers": {"update"},
    "inferencejobs.inference.vllm-operator.io": {"get", "list", "watch"},
    "inferencejobs.inference.vllm-operator.io/status": {"patch"},
    "inferencejobs.inference.vllm-operator.io/finalizers": {"update"},
    "deployments.apps": {"get", "list", "watch", "create", "patch", "delete"},
    "jobs.batch": {"get", "list", "watch", "create", "patch", "delete"},
    "leaderworkersets.leaderworkerset.x-k8s.io": {"get", "list", "watch", "create", "patch", "delete"},
    "resourcequotas": {"list"},
    "services": {"get", "list", "watch", "create", "patch", "delete"},
    "configmaps": {"create", "patch", "delete"},
    "pods": {"get", "list", "watch", "patch", "delete"},
    "events": {"create", "patch"},
}
LEADER = {
    "leases.coordination.k8s.io": {"create"},
    "leases.coordination.k8s.io vllm-operator": {"get", "update"},
}


def entropies(kubectl: Kubectl, role: str) -> dict[str, str]:
    secrets = json.loads(kubectl("get", "secrets", "-A", "-o", "json"))["items"]
    return {
        secret["metadata"]["namespace"]: base64.b64decode(secret["data"]["entropy"]).decode()
        for secret in secrets
        if secret["metadata"]["name"] == f"{QUEUE}-{role}"
    }


def test_rights_of_the_operator(release: Kubectl) -> None:
    assert own_rights(release, "team-a") == EVERYWHERE | WATCHED
    assert own_rights(release, helm.NAMESPACE) == EVERYWHERE | WATCHED | LEADER


@pytest.mark.parametrize("namespace", ["team-a", helm.NAMESPACE, "kube-system"])
@pytest.mark.parametrize("verb", ["get", "list", "watch", "create", "update", "patch", "delete"])
def test_no_right_on_secrets(release: Kubectl, verb: str, namespace: str) -> None:
    with pytest.raises(KubectlError):
        release("auth", "can-i", verb, "secrets", f"--as={ACCOUNT}", "-n", namespace)


def test_namespaced_mode_has_no_rights_elsewhere(cluster: ControlPlane, release: Kubectl) -> None:
    manifests = helm.render("watchNamespaces={team-a}", release="narrow")
    kinds = {"Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding", "ServiceAccount"}
    text = yaml.safe_dump_all([manifest for manifest in manifests if manifest["kind"] in kinds])
    release("apply", "-f", "-", stdin=text)
    account = f"system:serviceaccount:{helm.NAMESPACE}:narrow-vllm-operator"
    try:
        anybody = rights(release, "system:serviceaccount:default:default", "team-b")
        elsewhere = rights(release, account, "team-b")
        assert {key: verbs for key, verbs in elsewhere.items() if anybody.get(key) != verbs} == EVERYWHERE
        assert rights(release, account, "team-a").items() >= WATCHED.items()
    finally:
        release("delete", "-f", "-", stdin=text)


def test_all_pods_are_admitted_by_pod_security(release: Kubectl) -> None:
    def pods() -> dict[str, Any]:
        items = json.loads(release("get", "pods", "-n", helm.NAMESPACE, "-o", "json"))["items"]
        return {pod["metadata"]["labels"]["app.kubernetes.io/component"]: pod for pod in items}

    wait_until(lambda: {"operator", "queue"} <= pods().keys(), 20, "the pods of operator and queue")
    test_pod = helm.one(helm.render(), "Pod", "vllm-operator-test")
    release("apply", "--dry-run=server", "-f", "-", stdin=json.dumps(test_pod))


def test_definitions_are_served(release: Kubectl) -> None:
    release("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
    assert "llmservices" in release("api-resources", "--api-group=inference.vllm-operator.io", "-o", "name")


@pytest.mark.parametrize(
    ("role", "verb", "want"), [("edit", "create", True), ("view", "list", True), ("view", "create", False)]
)
def test_users_of_a_namespace_may_use_both_kinds(release: Kubectl, role: str, verb: str, want: bool) -> None:
    user = f"{role}-user"
    release("create", "rolebinding", f"{user}-{verb}", f"--clusterrole={role}", f"--user={user}", "-n", "team-a")

    def allowed() -> bool:
        try:
            release("auth", "can-i", verb, "inferencejobs", f"--as={user}", "-n", "team-a")
        except KubectlError:
            return False
        return True

    if want:
        wait_until(allowed, 20, "the aggregated role")
    else:
        assert not allowed()


def test_upgrades_keep_credentials_and_hand_them_to_new_namespaces(cluster: ControlPlane, release: Kubectl) -> None:
    before = {role: entropies(release, role) for role in ("operator", "agent", "driver")}
    assert set(before["operator"]) == {helm.NAMESPACE}
    assert set(before["agent"]) == {helm.NAMESPACE, "default", "team-a"}
    generation = release("get", "sts", QUEUE, "-n", helm.NAMESPACE, "-o", "jsonpath={.metadata.generation}")
    run_helm(cluster, "upgrade", helm.RELEASE, str(helm.CHART), "--set", "queue.namespaces={team-a,team-b}")
    after = {role: entropies(release, role) for role in before}
    assert set(after["agent"]) == {helm.NAMESPACE, "team-a", "team-b"}
    for role, by_namespace in after.items():
        assert set(by_namespace.values()) == set(before[role].values())
    # The queue does not restart for it.
    assert release("get", "sts", QUEUE, "-n", helm.NAMESPACE, "-o", "jsonpath={.metadata.generation}") == generation


def test_a_second_install_of_the_definitions_takes_over_after_an_uninstall(
    cluster: ControlPlane, release: Kubectl
) -> None:
    release("apply", "-f", "-", "-n", "team-a", stdin=json.dumps({
        "apiVersion": "inference.vllm-operator.io/v1alpha1", "kind": "LLMService", "metadata": {"name": "kept"},
        "spec": {"model": {"id": "a/b"}},
    }))  # fmt: skip
    run_helm(cluster, "uninstall", helm.RELEASE)
    selector = f"app.kubernetes.io/instance={helm.RELEASE}"
    kinds = "all,secrets,serviceaccounts,roles,rolebindings,networkpolicies,poddisruptionbudgets"

    def gone() -> bool:
        return release("get", kinds, "-A", "-l", selector, "-o", "name") == ""

    def claims_gone() -> bool:
        return release("get", "persistentvolumeclaims", "-A", "-o", "name") == ""

    # No kubelet ends pods here, nor takes their claims out of use.
    release("delete", "pods", "-n", helm.NAMESPACE, "--all", "--force", "--grace-period=0")
    wait_until(gone, 30, "everything of the release to go")
    wait_until(claims_gone, 30, "the queue's claim to go")
    left = release("get", "clusterroles,clusterrolebindings,crd", "-l", selector, "-o", "name").split()
    assert {name.split("/")[1].split(".")[0] for name in left} == {"llmservices", "inferencejobs"}
    run_helm(cluster, "install", helm.RELEASE, str(helm.CHART))
    assert "kept" in release("get", "llm", "-n", "team-a", "-o", "name")
