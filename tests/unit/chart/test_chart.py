"""The rendered chart."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.support import helm
from tests.support.pod_security import pod_template, violations

from vllm_operator.manifests.common import DRIVER_COMPONENT, ENGINE_COMPONENT
from vllm_operator.planner.inventory.profiles import FIELDS, parse_profiles
from vllm_operator.queue.server_config import CLIENT_PORT, MONITOR_PORT, ROLES, STORE_DIRECTORY
from vllm_operator.settings import Settings
from vllm_operator_api.names import COMPONENT_LABEL, MANAGED_BY_LABEL, MANAGED_BY_VALUE
from vllm_operator_api.nkey import MIN_ENTROPY_CHARACTERS

REPOSITORY = Path(__file__).resolve().parents[3]
OPERATOR = "vllm-operator"
QUEUE = "vllm-operator-queue"
EXTERNAL = "queue.url=nats://nats.messaging:4223"
VARIANTS: dict[str, tuple[str, ...]] = {
    "defaults": (),
    "two replicas": ("operator.replicas=2",),
    "namespaced": ("watchNamespaces={team-a,team-b}",),
    "external queue": (EXTERNAL,),
    "scheduled": (
        "imagePullSecrets[0].name=pull",
        "operator.priorityClassName=high",
        "operator.nodeSelector.pool=system",
        "operator.tolerations[0].operator=Exists",
        "queue.nodeSelector.pool=system",
        "queue.storage.storageClassName=fast",
        "operator.env[0].name=VLLM_OPERATOR_RESYNC_SECONDS,operator.env[0].value=60",
    ),
}
ALL_VARIANTS = pytest.mark.parametrize("settings", VARIANTS.values(), ids=VARIANTS.keys())


def pods(manifests: tuple[helm.Manifest, ...]) -> Iterator[tuple[str, dict[str, Any]]]:
    for manifest in manifests:
        if (pod := pod_template(manifest)) is not None:
            yield f"{manifest['kind']}/{manifest['metadata']['name']}", pod


def operator_env(manifests: tuple[helm.Manifest, ...]) -> dict[str, str]:
    (deployment,) = helm.of_kind(manifests, "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    return {variable["name"]: variable.get("value", "") for variable in container["env"]}


def entropies(manifests: tuple[helm.Manifest, ...]) -> dict[str, dict[str, str]]:
    """Entropy by Secret name and namespace."""
    found: dict[str, dict[str, str]] = {}
    for secret in helm.of_kind(manifests, "Secret"):
        text = base64.b64decode(secret["data"]["entropy"]).decode()
        found.setdefault(secret["metadata"]["name"], {})[secret["metadata"]["namespace"]] = text
    return found


@ALL_VARIANTS
def test_every_pod_has_the_safe_shape(settings: tuple[str, ...]) -> None:
    problems = {
        name: found
        for name, pod in pods(helm.render(*settings))
        if (found := violations(pod, api_token=name == f"Deployment/{OPERATOR}"))
    }
    assert problems == {}


@ALL_VARIANTS
def test_every_object_is_labelled_and_placed(settings: tuple[str, ...]) -> None:
    cluster_scoped = {"ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition"}
    for manifest in helm.render(*settings):
        metadata = manifest["metadata"]
        assert metadata["labels"]["app.kubernetes.io/managed-by"] == "Helm", metadata["name"]
        assert metadata["labels"]["app.kubernetes.io/instance"] == helm.RELEASE
        assert ("namespace" in metadata) is (manifest["kind"] not in cluster_scoped), metadata["name"]


@ALL_VARIANTS
def test_network_policies_select_the_pods_that_are_there(settings: tuple[str, ...]) -> None:
    manifests = helm.render(*settings)
    labels = [pod["metadata"]["labels"] for _, pod in pods(manifests)]
    for policy in helm.of_kind(manifests, "NetworkPolicy"):
        wanted = policy["spec"]["podSelector"]["matchLabels"]
        assert sum(wanted.items() <= have.items() for have in labels) == 1, policy["metadata"]["name"]


@ALL_VARIANTS
def test_services_select_the_pods_that_are_there(settings: tuple[str, ...]) -> None:
    manifests = helm.render(*settings)
    for service in helm.of_kind(manifests, "Service"):
        wanted = service["spec"]["selector"]
        (pod,) = (pod for _, pod in pods(manifests) if wanted.items() <= pod["metadata"]["labels"].items())
        names = {port["name"] for container in pod["spec"]["containers"] for port in container.get("ports", ())}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= names


def test_rights_have_no_wildcard_and_no_secrets() -> None:
    for settings in VARIANTS.values():
        for kind in ("ClusterRole", "Role"):
            for role in helm.of_kind(helm.render(*settings), kind):
                for rule in role["rules"]:
                    assert "*" not in (*rule["apiGroups"], *rule["resources"], *rule["verbs"])
                    assert "secrets" not in rule["resources"]
                    assert not {"escalate", "bind", "impersonate"} & set(rule["verbs"])


def test_namespaced_mode_binds_in_these_namespaces_only() -> None:
    manifests = helm.render("watchNamespaces={team-a,team-b}")
    bound = {
        (binding["metadata"]["namespace"], binding["roleRef"]["name"])
        for binding in helm.of_kind(manifests, "RoleBinding")
    }
    assert bound == {
        ("team-a", OPERATOR),
        ("team-b", OPERATOR),
        (helm.NAMESPACE, f"{OPERATOR}-leader"),
    }
    assert [binding["roleRef"]["name"] for binding in helm.of_kind(manifests, "ClusterRoleBinding")] == [
        f"{OPERATOR}-nodes"
    ]
    assert operator_env(manifests)["VLLM_OPERATOR_WATCH_NAMESPACES"] == "team-a,team-b"


@pytest.mark.parametrize("settings", [(), ("watchNamespaces={team-a}",)], ids=["all namespaces", "some"])
def test_rights_outside_the_watched_namespaces_are_to_read_what_accelerators_there_are(
    settings: tuple[str, ...],
) -> None:
    role = helm.one(helm.render(*settings), "ClusterRole", f"{OPERATOR}-nodes")
    rights = {(*rule["apiGroups"], *rule["resources"]): set(rule["verbs"]) for rule in role["rules"]}
    assert rights == {
        ("", "nodes"): {"get", "list", "watch"},
        ("karpenter.sh", "nodepools"): {"get", "list"},
        ("resource.k8s.io", "resourceslices"): {"get", "list"},
    }


def test_quotas_are_listed_and_nothing_else() -> None:
    role = helm.one(helm.render(), "ClusterRole", OPERATOR)
    (verbs,) = (rule["verbs"] for rule in role["rules"] if "resourcequotas" in rule["resources"])
    assert verbs == ["list"]


def test_accelerator_profiles_reach_the_operator() -> None:
    assert parse_profiles(operator_env(helm.render())["VLLM_OPERATOR_ACCELERATOR_PROFILES"]) == ()
    env = operator_env(
        helm.render(
            "acceleratorProfiles[0].name=h100",
            "acceleratorProfiles[0].selector.pool=h100",
            "acceleratorProfiles[0].product=NVIDIA-H100-80GB-HBM3",
            "acceleratorProfiles[0].count=8",
            "acceleratorProfiles[0].price=3",
            "acceleratorProfiles[0].taints[0].key=gpu",
            "acceleratorProfiles[0].taints[0].effect=NoSchedule",
        )
    )
    (profile,) = parse_profiles(
        Settings(accelerator_profiles=env["VLLM_OPERATOR_ACCELERATOR_PROFILES"]).accelerator_profiles
    )
    assert (profile.name, profile.selector, profile.count, profile.price) == ("h100", (("pool", "h100"),), 8, 3.0)
    assert [taint.key for taint in profile.taints] == ["gpu"]


def test_the_schema_knows_every_field_of_a_profile() -> None:
    schema = yaml.safe_load((helm.CHART / "values.schema.json").read_text())
    properties = schema["properties"]["acceleratorProfiles"]["items"]["properties"]
    assert set(properties) == FIELDS


def test_cluster_mode_binds_everywhere() -> None:
    manifests = helm.render()
    bound = {binding["roleRef"]["name"] for binding in helm.of_kind(manifests, "ClusterRoleBinding")}
    assert bound == {OPERATOR, f"{OPERATOR}-nodes"}
    assert operator_env(manifests)["VLLM_OPERATOR_WATCH_NAMESPACES"] == ""


def test_every_variable_is_a_setting_of_the_operator() -> None:
    known = {f"VLLM_OPERATOR_{name.upper()}" for name in Settings.model_fields}
    given = operator_env(helm.render())
    assert set(given) <= known
    settings = Settings(
        **{name.removeprefix("VLLM_OPERATOR_").lower(): value for name, value in given.items() if value}  # type: ignore[arg-type]
    )
    assert settings.queue_url == f"nats://{QUEUE}.{helm.NAMESPACE}.svc:{CLIENT_PORT}"
    assert settings.agent_credentials_secret == f"{QUEUE}-agent"
    assert settings.driver_credentials_secret == f"{QUEUE}-driver"
    assert (settings.operator_image, settings.runtime_image) == (
        "vllm-operator/operator:0.1.0",
        "vllm-operator/runtime:0.1.0",
    )


def test_credentials_are_equal_in_all_namespaces_and_differ_between_roles() -> None:
    found = entropies(helm.render("queue.namespaces={team-a,team-b,team-a}"))
    assert set(found) == {f"{QUEUE}-{role}" for role in ROLES}
    assert set(found[f"{QUEUE}-operator"]) == {helm.NAMESPACE}
    for role in ("agent", "driver"):
        assert set(found[f"{QUEUE}-{role}"]) == {helm.NAMESPACE, "team-a", "team-b"}
    values = [set(by_namespace.values()) for by_namespace in found.values()]
    assert all(len(one) == 1 for one in values)
    assert len(set.union(*values)) == len(ROLES)
    assert all(len(text) >= MIN_ENTROPY_CHARACTERS for one in values for text in one)


@pytest.mark.parametrize(
    ("settings", "namespaces"),
    [
        ((), {"default"}),
        (("watchNamespaces={team-a}",), {"team-a"}),
        (("watchNamespaces={team-a,team-b}", "queue.namespaces={team-a}"), {"team-a"}),
    ],
)
def test_namespaces_of_the_credentials(settings: tuple[str, ...], namespaces: set[str]) -> None:
    assert set(entropies(helm.render(*settings))[f"{QUEUE}-agent"]) - {helm.NAMESPACE} == namespaces


def test_pods_restart_when_their_credentials_change() -> None:
    first, second = (yaml.safe_load_all(helm.render_text()) for _ in range(2))
    checksums = []
    for manifests in (first, second):
        queue = helm.one(tuple(filter(None, manifests)), "StatefulSet", QUEUE)["spec"]["template"]["metadata"]
        checksums.append({key: value for key, value in queue["annotations"].items() if key.startswith("checksum/")})
    assert checksums[0].keys() == {f"checksum/{role}" for role in ROLES}
    assert not set(checksums[0].values()) & set(checksums[1].values())


def test_credentials_made_elsewhere() -> None:
    manifests = helm.render(
        "queue.credentials.create=false",
        *(f"queue.credentials.secrets.{role}=own-{role}" for role in ROLES),
    )
    assert helm.of_kind(manifests, "Secret") == []
    assert operator_env(manifests)["VLLM_OPERATOR_AGENT_CREDENTIALS_SECRET"] == "own-agent"
    mounted = {
        volume["secret"]["secretName"]
        for _, pod in pods(manifests)
        for volume in pod["spec"].get("volumes", ())
        if "secret" in volume
    }
    assert mounted == {f"own-{role}" for role in ROLES}


def test_the_queue_is_what_its_configuration_says() -> None:
    stateful_set = helm.one(helm.render(), "StatefulSet", QUEUE)
    pod = stateful_set["spec"]["template"]["spec"]
    (config,), (nats,) = pod["initContainers"], pod["containers"]
    assert {port["name"]: port["containerPort"] for port in nats["ports"]} == {
        "nats": CLIENT_PORT,
        "monitoring": MONITOR_PORT,
    }
    assert STORE_DIRECTORY in [mount["mountPath"] for mount in nats["volumeMounts"] if mount["name"] == "data"]
    output = config["command"][config["command"].index("--output") + 1]
    assert nats["command"] == ["nats-server", "--config", output]
    assert {mount["mountPath"] for mount in config["volumeMounts"]} >= {f"/credentials/{role}" for role in ROLES}
    assert not [mount for mount in nats["volumeMounts"] if "credentials" in mount["name"]]
    assert stateful_set["spec"]["persistentVolumeClaimRetentionPolicy"]["whenDeleted"] == "Delete"
    assert helm.one(helm.render(), "Service", QUEUE)["spec"]["ports"] == [
        {"name": "nats", "port": CLIENT_PORT, "targetPort": "nats"}
    ]


def test_an_external_queue_leaves_ours_out() -> None:
    manifests = helm.render(EXTERNAL)
    assert helm.of_kind(manifests, "StatefulSet") == []
    assert [service["metadata"]["name"] for service in helm.of_kind(manifests, "Service")] == [OPERATOR]
    assert operator_env(manifests)["VLLM_OPERATOR_QUEUE_URL"] == "nats://nats.messaging:4223"
    (policy,) = helm.of_kind(manifests, "NetworkPolicy")
    assert {"ports": [{"port": 4223}]} in policy["spec"]["egress"]


def test_engines_and_drivers_of_all_namespaces_reach_the_queue() -> None:
    (rule,) = helm.one(helm.render(), "NetworkPolicy", QUEUE)["spec"]["ingress"]
    assert rule["ports"] == [{"port": "nats"}]
    assert rule["from"][1] == {
        "namespaceSelector": {},
        "podSelector": {
            "matchLabels": {MANAGED_BY_LABEL: MANAGED_BY_VALUE},
            "matchExpressions": [
                {"key": COMPONENT_LABEL, "operator": "In", "values": [ENGINE_COMPONENT, DRIVER_COMPONENT]}
            ],
        },
    }


def test_network_policies_can_be_left_out() -> None:
    assert helm.of_kind(helm.render("networkPolicy.enabled=false"), "NetworkPolicy") == []


def test_a_disruption_budget_only_where_it_does_not_block_a_drain() -> None:
    assert helm.of_kind(helm.render(), "PodDisruptionBudget") == []
    (budget,) = helm.of_kind(helm.render("operator.replicas=2"), "PodDisruptionBudget")
    assert budget["spec"]["maxUnavailable"] == 1


def test_definitions_are_the_generated_ones() -> None:
    generated = {
        definition["metadata"]["name"]: definition["spec"]
        for definition in (yaml.safe_load(path.read_text()) for path in (REPOSITORY / "crds").glob("*.yaml"))
    }
    rendered = helm.of_kind(helm.render(), "CustomResourceDefinition")
    assert {definition["metadata"]["name"]: definition["spec"] for definition in rendered} == generated
    assert {definition["metadata"]["annotations"]["helm.sh/resource-policy"] for definition in rendered} == {"keep"}


def test_definitions_can_be_removed_or_left_out() -> None:
    (first, _) = helm.of_kind(helm.render("crds.keep=false"), "CustomResourceDefinition")
    assert "helm.sh/resource-policy" not in first["metadata"].get("annotations", {})
    assert helm.of_kind(helm.render("crds.install=false"), "CustomResourceDefinition") == []


def test_names_follow_the_release() -> None:
    manifests = helm.render(release="inference", namespace="ai")
    assert helm.one(manifests, "Deployment", "inference-vllm-operator")
    assert helm.one(manifests, "StatefulSet", "inference-vllm-operator-queue")
    assert operator_env(manifests)["VLLM_OPERATOR_QUEUE_URL"] == "nats://inference-vllm-operator-queue.ai.svc:4222"


def test_an_image_by_digest() -> None:
    digest = "sha256:" + "0" * 64
    env = operator_env(helm.render(f"image.runtime.tag={digest}", "image.runtime.repository=mirror/runtime"))
    assert env["VLLM_OPERATOR_RUNTIME_IMAGE"] == f"mirror/runtime@{digest}"


def test_versions_are_the_pinned_ones() -> None:
    lines = (REPOSITORY / "hack" / "versions.env").read_text().splitlines()
    versions = dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
    values = yaml.safe_load((helm.CHART / "values.yaml").read_text())
    assert values["image"]["nats"]["tag"].removesuffix("-alpine") == versions["NATS_SERVER_VERSION"]
    chart = yaml.safe_load((helm.CHART / "Chart.yaml").read_text())
    pyproject = (REPOSITORY / "pyproject.toml").read_text()
    assert f'version = "{chart["appVersion"]}"' in pyproject
    assert chart["version"] == chart["appVersion"]


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ("operator.replicas=0", "operator.replicas"),
        ("operator.replica=2", "replica is not allowed"),
        ("operator.logLevel=loud", "operator.logLevel"),
        ("operator.env[0].name=PATH,operator.env[0].value=x", "operator.env.0.name"),
        ("queue.storage.size=big", "queue.storage.size"),
        ("queue.url=http://x", "queue.url"),
        ("queue.url=nats://user:secret@x:4222", "queue.url"),
        ("queue.namespaces=default", "queue.namespaces"),
        ("queue.namespaces={Team_A}", "queue.namespaces.0"),
        ("queue.credentials.create=maybe", "queue.credentials.create"),
        ("image.nats.pullPolicy=Sometimes", "image.nats.pullPolicy"),
        ("image.operator.tag=a b", "image.operator.tag"),
        ("watchNamespaces=team-a", "watchNamespaces"),
        ("networkPolicy.apiServerPorts={99999}", "networkPolicy.apiServerPorts.0"),
        ("acceleratorProfiles[0].name=x", "selector is required"),
        ("acceleratorProfiles[0].memory=80GB", "memory is not allowed"),
        ("acceleratorProfiles[0].link=wire", "acceleratorProfiles.0.link"),
        ("crds.instal=true", "instal is not allowed"),
        ("qeue.url=x", "qeue is not allowed"),
    ],
)
def test_wrong_values_are_refused(setting: str, complaint: str) -> None:
    with pytest.raises(helm.HelmError, match=complaint):
        helm.render_text(setting)


def test_lint_has_no_complaint() -> None:
    assert "0 chart(s) failed" in helm.helm("lint", "--strict", str(helm.CHART))


def test_every_value_is_in_the_schema() -> None:
    """So that a misspelt one is refused, at every level."""
    schema = yaml.safe_load((helm.CHART / "values.schema.json").read_text())
    values = yaml.safe_load((helm.CHART / "values.yaml").read_text())

    def missing(value: Any, node: dict[str, Any], path: str) -> Iterator[str]:
        if "$ref" in node:
            node = schema["definitions"][node["$ref"].rsplit("/", 1)[1]]
        if isinstance(value, dict) and "properties" in node:
            if node.get("additionalProperties") is not False:
                yield f"{path}: open"
            for key, child in value.items():
                if key not in node["properties"]:
                    yield f"{path}.{key}"
                else:
                    yield from missing(child, node["properties"][key], f"{path}.{key}")

    assert list(missing(values, schema, "values")) == []
