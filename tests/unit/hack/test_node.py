"""The native node: configuration texts, its process, control groups, routes, volumes."""

import json
import tomllib
from pathlib import Path

import pytest

from localk8s import bootstrap, cgroups, mounts, network, node_config, node_process
from localk8s.node_main import Settings, open_new_volumes


def test_containerd_starts_pods_without_cap_sys_resource() -> None:
    config = tomllib.loads(node_config.containerd_config("localhost/pause:1", "/usr/sbin/runc"))
    cri = config["plugins"]["io.containerd.grpc.v1.cri"]
    assert cri["restrict_oom_score_adj"] is True
    assert cri["sandbox_image"] == "localhost/pause:1"
    assert "io.containerd.grpc.v1.cri" not in config["disabled_plugins"]


def test_containerd_for_cleaning_has_no_cri() -> None:
    config = tomllib.loads(node_config.containerd_config("localhost/pause:1", "/usr/sbin/runc", cri=False))
    assert "io.containerd.grpc.v1.cri" in config["disabled_plugins"]


def test_kubelet_never_evicts_and_never_collects_images() -> None:
    config = json.loads(node_config.kubelet_config())
    assert set(config["evictionHard"].values()) == {"0%"}
    assert config["imageGCHighThresholdPercent"] == 100
    assert config["cgroupRoot"] == f"/{node_config.CGROUP}"


def test_kube_proxy_leaves_the_limits_of_the_machine_alone() -> None:
    conntrack = json.loads(node_config.kube_proxy_config())["conntrack"]
    assert conntrack == {"maxPerCore": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"}


def test_pods_are_not_masqueraded() -> None:
    bridge = json.loads(node_config.cni_config())["plugins"][0]
    assert bridge["ipMasq"] is False
    assert bridge["ipam"]["ranges"] == [[{"subnet": node_config.NODE_POD_CIDR}]]


def test_gpus_are_advertised_as_capacity_and_allocatable() -> None:
    assert {(op["path"], op["value"]) for op in bootstrap.GPU_STATUS_PATCH} == {
        ("/status/capacity/nvidia.com~1gpu", "8"),
        ("/status/allocatable/nvidia.com~1gpu", "8"),
    }
    assert bootstrap.GPU_LABELS["nvidia.com/gpu.product"] == "NVIDIA-L4"


def test_the_nodes_processes_are_told_from_others() -> None:
    settings = Path("/cache/cluster/node-settings.json")
    python = b"python3\0-P\0-m\0localk8s.node_main\0/cache/cluster/node-settings.json\0"
    assert node_process.is_node_command(python, settings)
    assert node_process.is_node_command(b"unshare\0--fork\0" + python, settings)
    assert not node_process.is_node_command(python, Path("/other/cluster/node-settings.json"))
    assert not node_process.is_node_command(b"vi\0/cache/cluster/node-settings.json\0", settings)
    assert not node_process.is_node_command(b"", settings)
    assert node_process.settings_of(python) == settings
    assert node_process.settings_of(b"python3\0-m\0pytest\0") is None


V1 = "31 24 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory"
V2 = "30 24 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate"
HYBRID = "32 24 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw"
OTHER = "25 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw"


@pytest.mark.parametrize(
    ("mountinfo", "expected"),
    [
        ([OTHER, V2], [("/sys/fs/cgroup", 2)]),
        ([OTHER, V1], [("/sys/fs/cgroup/memory", 1)]),
        ([V1, HYBRID], [("/sys/fs/cgroup/memory", 1)]),
        ([OTHER], []),
    ],
)
def test_control_group_hierarchies(mountinfo: list[str], expected: list[tuple[str, int]]) -> None:
    assert cgroups.hierarchies("\n".join(mountinfo)) == [(Path(path), version) for path, version in expected]


def test_only_routes_inside_the_clusters_ranges_conflict() -> None:
    routes = [
        {"dst": "default", "gateway": "192.0.2.1", "dev": "eth0"},
        {"dst": "10.0.0.0/8", "dev": "vpn0"},  # wider: the cluster's routes win
        {"dst": "10.244.0.0/16", "dev": "cni0"},
        {"dst": "10.199.0.7", "dev": "tun0"},
        {"dst": "10.96.0.0/16", "dev": network.LINK},
        {"type": "blackhole", "dst": "10.96.0.0/16"},
    ]
    assert network.conflicts(routes) == ["10.244.0.0/16 dev cni0", "10.199.0.7 dev tun0"]


def test_new_volumes_are_opened_and_links_are_left_alone(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o750)
    volumes = tmp_path / "volumes"
    volumes.mkdir()
    (volumes / "claim").mkdir(mode=0o750)
    (volumes / "link").symlink_to(outside)
    open_new_volumes(volumes)
    assert (volumes / "claim").stat().st_mode & 0o777 == 0o777
    assert outside.stat().st_mode & 0o777 == 0o750


def test_settings_survive_their_file(tmp_path: Path) -> None:
    values = {
        "cache_root": "/cache",
        "cluster": "/cache/cluster",
        "programs": {"etcd": "/cache/bin/etcd"},
        "search_path": "/bin",
        "admin_token": "t",
        "pause_image": "localhost/pause:1",
        "pause_archive": "/cache/pause.tar",
    }
    file = tmp_path / "settings.json"
    file.write_text(json.dumps(values))
    assert Settings.read(file) == Settings(**values)  # type: ignore[arg-type]


def test_mount_points_below_a_directory_come_innermost_first() -> None:
    def line(point: str) -> str:
        return f"30 24 0:26 / {point} rw - ext4 /dev/vda rw"

    mountinfo = "\n".join(line(point) for point in ("/", "/cache", "/cache/a", "/cache/a/b", "/cache2", "/proc"))
    assert mounts.points_below(Path("/cache"), mountinfo) == [Path("/cache/a/b"), Path("/cache/a")]
