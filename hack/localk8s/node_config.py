"""Configuration of the components of the native node: pure text from constants.

All paths are those the node sees in its own mount namespace, so that nothing
here depends on where the cache lies.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

NODE_NAME = "node1"
HOST_ADDRESS = "10.199.0.1"
NODE_ADDRESS = "10.199.0.2"
NODE_SUBNET = "10.199.0.0/24"
SERVICE_CIDR = "10.96.0.0/16"
POD_CIDR = "10.244.0.0/16"
# One node has one /24 of it, as the node IPAM controller would assign.
NODE_POD_CIDR = "10.244.0.0/24"
API_PORT = 6443
SERVER_URL = f"https://{NODE_ADDRESS}:{API_PORT}"
CLUSTER_DOMAIN = "cluster.local"
CGROUP = "vllm-operator-node"

# In the node's namespace: BASE is on a private tmpfs, DISK a directory of the cache.
BASE = "/run/localk8s"
DISK = f"{BASE}/disk"
IMAGE_STORE = f"{BASE}/containerd"
# The path is fixed in kube-controller-manager's host-path provisioner (pkg/volume/hostpath).
VOLUMES = "/tmp/hostpath_pv"
KUBECONFIG = f"{BASE}/admin.kubeconfig"
SERVICE_ACCOUNT_KEY = f"{BASE}/service-account.key"
TOKENS = f"{BASE}/tokens.csv"
CERTIFICATES = f"{BASE}/pki"
CA_FILE = f"{CERTIFICATES}/apiserver.crt"
CONTAINERD_SOCKET = "/run/containerd/containerd.sock"
CNI_PLUGINS = "/usr/lib/cni"


def containerd_config(pause_image: str, runc: str, *, cri: bool = True) -> str:
    """For containerd 1.6 and 1.7, configuration version 2.

    ``restrict_oom_score_adj``: runc may not lower oom_score_adj on a machine
    that withholds CAP_SYS_RESOURCE, and then no pod starts. ``disable_apparmor``:
    the default profile would be loaded into the machine's kernel and stay there.
    Without ``cri`` the daemon serves ``ctr`` only, for cleaning its store.
    """
    disabled = [
        "io.containerd.snapshotter.v1.aufs",
        "io.containerd.snapshotter.v1.btrfs",
        "io.containerd.snapshotter.v1.devmapper",
        "io.containerd.snapshotter.v1.zfs",
        "io.containerd.tracing.processor.v1.otlp",
        "io.containerd.internal.v1.tracing",
    ]
    if not cri:
        disabled.append("io.containerd.grpc.v1.cri")
    return f"""version = 2
root = "{IMAGE_STORE}"
state = "/run/containerd"
disabled_plugins = {json.dumps(disabled)}
[grpc]
  address = "{CONTAINERD_SOCKET}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause_image}"
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{CNI_PLUGINS}"
    conf_dir = "{BASE}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        BinaryName = "{runc}"
        SystemdCgroup = false
"""


def cni_config() -> str:
    """Bridge network without masquerading: pods reach each other, Services and the host, nothing outside."""
    bridge = {
        "type": "bridge",
        "bridge": "cni0",
        "isGateway": True,
        "ipMasq": False,
        "hairpinMode": True,
        "ipam": {
            "type": "host-local",
            "dataDir": f"{BASE}/cni-addresses",
            "ranges": [[{"subnet": NODE_POD_CIDR}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        },
    }
    portmap = {"type": "portmap", "capabilities": {"portMappings": True}}
    return json.dumps({"cniVersion": "1.0.0", "name": "bridge", "plugins": [bridge, portmap]}, indent=2)


def kubelet_config() -> str:
    """KubeletConfiguration: no eviction and no image collection, whatever the disk of the machine looks like."""
    return json.dumps(
        {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "failCgroupV1": False,
            "failSwapOn": False,
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{CGROUP}",
            "containerRuntimeEndpoint": f"unix://{CONTAINERD_SOCKET}",
            "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
            "authorization": {"mode": "AlwaysAllow"},
            "clusterDNS": [NODE_ADDRESS],
            "clusterDomain": CLUSTER_DOMAIN,
            "resolvConf": f"{BASE}/resolv.conf",
            "evictionHard": {
                "memory.available": "0%",
                "nodefs.available": "0%",
                "nodefs.inodesFree": "0%",
                "imagefs.available": "0%",
                "imagefs.inodesFree": "0%",
            },
            "imageGCHighThresholdPercent": 100,
            "imageMinimumGCAge": "24h",
            "registryPullQPS": 0,
            "eventRecordQPS": 0,
            "podLogsDir": f"{DISK}/pod-logs",
            "volumePluginDir": f"{BASE}/volume-plugins",
            "nodeStatusUpdateFrequency": "4s",
            "syncFrequency": "10s",
        },
        indent=2,
    )


def kube_proxy_config() -> str:
    """KubeProxyConfiguration; the zeros keep it from setting conntrack limits of the whole machine."""
    return json.dumps(
        {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": "nftables",
            "clusterCIDR": POD_CIDR,
            "hostnameOverride": NODE_NAME,
            "clientConnection": {"kubeconfig": KUBECONFIG},
            "nftables": {"minSyncPeriod": "100ms"},
            "conntrack": {"maxPerCore": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        },
        indent=2,
    )


def corefile() -> str:
    """Names of the cluster, and NXDOMAIN at once for all others: there is no resolver outside.

    Two server blocks, because ``template`` in the block of ``kubernetes`` answers everything.
    """
    return f"""{CLUSTER_DOMAIN} in-addr.arpa ip6.arpa {{
  bind {NODE_ADDRESS}
  errors
  kubernetes {CLUSTER_DOMAIN} in-addr.arpa ip6.arpa {{
    kubeconfig {KUBECONFIG}
    ttl 2
  }}
}}
. {{
  bind {NODE_ADDRESS}
  template ANY ANY {{
    rcode NXDOMAIN
  }}
}}
"""


def etcd_arguments() -> list[str]:
    """Of etcd, on the private tmpfs, where fsync means nothing."""
    return [
        f"--data-dir={BASE}/etcd",
        "--unsafe-no-fsync",
        "--listen-client-urls=http://127.0.0.1:2379",
        "--advertise-client-urls=http://127.0.0.1:2379",
        "--listen-peer-urls=http://127.0.0.1:2380",
        "--log-level=warn",
    ]


def apiserver_arguments() -> list[str]:
    """Of kube-apiserver; it makes its own certificate authority in ``CERTIFICATES``."""
    return [
        "--etcd-servers=http://127.0.0.1:2379",
        f"--cert-dir={CERTIFICATES}",
        f"--advertise-address={NODE_ADDRESS}",
        "--bind-address=0.0.0.0",
        f"--secure-port={API_PORT}",
        f"--service-cluster-ip-range={SERVICE_CIDR}",
        f"--token-auth-file={TOKENS}",
        "--authorization-mode=Node,RBAC",
        "--allow-privileged=true",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={SERVICE_ACCOUNT_KEY}",
        f"--service-account-signing-key-file={SERVICE_ACCOUNT_KEY}",
        "--kubelet-preferred-address-types=InternalIP",
        "--enable-priority-and-fairness=false",
    ]


def controller_manager_arguments() -> list[str]:
    """Of kube-controller-manager, with the host-path provisioner behind the default StorageClass."""
    return [
        *_client_arguments(),
        f"--service-account-private-key-file={SERVICE_ACCOUNT_KEY}",
        f"--root-ca-file={CA_FILE}",
        "--use-service-account-credentials=false",
        "--enable-hostpath-provisioner=true",
        f"--flex-volume-plugin-dir={BASE}/volume-plugins",
    ]


def scheduler_arguments() -> list[str]:
    """Of kube-scheduler."""
    return _client_arguments()


def kubelet_arguments() -> list[str]:
    """Of kubelet."""
    return [
        f"--config={BASE}/kubelet.json",
        f"--kubeconfig={KUBECONFIG}",
        f"--root-dir={DISK}/kubelet",
        f"--hostname-override={NODE_NAME}",
        f"--node-ip={NODE_ADDRESS}",
    ]


def _client_arguments() -> list[str]:
    return [f"--kubeconfig={KUBECONFIG}", "--leader-elect=false", "--kube-api-qps=500", "--kube-api-burst=500"]


def host_sysctls() -> Sequence[tuple[str, str]]:
    """(file below /proc/sys, value) of what a kubelet sets for the whole machine (pkg/kubelet/cm, setupKernelTunables).

    The node hides these files behind private ones that hold the wanted value already.
    """
    return (
        ("vm/overcommit_memory", "1"),
        ("vm/panic_on_oom", "0"),
        ("kernel/panic", "10"),
        ("kernel/panic_on_oops", "1"),
        ("kernel/keys/root_maxkeys", "1000000"),
        ("kernel/keys/root_maxbytes", "25000000"),
    )
