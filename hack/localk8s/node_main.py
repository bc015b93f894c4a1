"""Process 1 of the native node: sets up its namespaces, starts the components, reaps, restarts what ends.

Run by ``native.start`` inside new mount, pid, network, UTS and IPC namespaces,
as ``python -m localk8s.node_main SETTINGS``. SIGKILL of this process is the
way to end a node: processes, mounts, links and rules go with the namespaces.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from localk8s import image_store, kubeconfig, mounts
from localk8s import node_config as cfg
from localk8s.api import ApiClient, wait_until
from localk8s.commands import run
from localk8s.errors import ClusterError

# Private and empty in the node, so that no component leaves files on the machine.
_PRIVATE_DIRECTORIES = (("/run", "755"), ("/tmp", "1777"), ("/var/lib", "755"), ("/var/log", "755"))
_TICK_SECONDS = 0.05
_RESTART_SECONDS = 1.0


@dataclass(frozen=True)
class Settings:
    """What the host tells the node, as a JSON file."""

    cache_root: str
    cluster: str  # state directory of the cluster, below the cache
    programs: dict[str, str]  # name -> path
    search_path: str
    admin_token: str
    pause_image: str
    pause_archive: str

    @classmethod
    def read(cls, path: Path) -> Settings:
        """Settings from the file that ``native`` wrote."""
        return cls(**json.loads(path.read_text(encoding="utf-8")))


class Components:
    """The daemons of the node, each with its log; restarted a second after they end."""

    def __init__(self, logs_fd: int, environment: dict[str, str]) -> None:
        self._logs_fd = logs_fd
        self._environment = environment
        self._commands: dict[str, tuple[str, Sequence[str]]] = {}
        self._pids: dict[int, str] = {}
        self._due: dict[str, float] = {}

    def start(self, name: str, program: str, arguments: Sequence[str]) -> int:
        """Start a daemon and keep it running from now on."""
        self._commands[name] = (program, arguments)
        return self._spawn(name)

    def stop(self, name: str, pid: int) -> None:
        """End a daemon for good."""
        del self._commands[name], self._pids[pid]
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)

    def _spawn(self, name: str) -> int:
        program, arguments = self._commands[name]
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        log = os.open(f"{name}.log", flags, 0o644, dir_fd=self._logs_fd)
        try:
            pid = os.posix_spawn(
                program,
                [name, *arguments],
                self._environment,
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_DUP2, log, 1),
                    (os.POSIX_SPAWN_DUP2, log, 2),
                ],
                setsigmask=[],
            )
        finally:
            os.close(log)
        self._pids[pid] = name
        return pid

    def tick(self) -> None:
        """Reap whatever ended (process 1 inherits orphans) and restart daemons that are due."""
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, _ = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    break
                name = self._pids.pop(pid, None)
                if name in self._commands:
                    print(f"{name} ended, restarting it", flush=True)
                    self._due[name] = time.monotonic() + _RESTART_SECONDS
        for name in [name for name, due in self._due.items() if due <= time.monotonic()]:
            del self._due[name]
            self._spawn(name)


def main(settings_file: str) -> None:
    """Bring the node up and serve as its init process for ever."""
    settings = Settings.read(Path(settings_file))
    logs = os.open(f"{settings.cluster}/logs", os.O_RDONLY | os.O_DIRECTORY)
    _private_file_system(settings)
    socket.sethostname(cfg.NODE_NAME)
    _network()
    _write_configuration(settings)
    environment = {"PATH": settings.search_path, "HOME": cfg.BASE, "LANG": "C.UTF-8"}
    components = Components(logs, environment)
    programs = settings.programs
    components.start("etcd", programs["etcd"], cfg.etcd_arguments())
    components.start("kube-apiserver", programs["kube-apiserver"], cfg.apiserver_arguments())
    _start_containerd(settings, components)
    _wait_for_api(settings)
    components.start("kube-controller-manager", programs["kube-controller-manager"], cfg.controller_manager_arguments())
    components.start("kube-scheduler", programs["kube-scheduler"], cfg.scheduler_arguments())
    components.start("kubelet", programs["kubelet"], cfg.kubelet_arguments())
    components.start("kube-proxy", programs["kube-proxy"], [f"--config={cfg.BASE}/kube-proxy.json"])
    components.start("coredns", programs["coredns"], ["-conf", f"{cfg.BASE}/Corefile"])
    print("all components are started", flush=True)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    while True:
        signal.sigtimedwait({signal.SIGCHLD}, _TICK_SECONDS)
        components.tick()
        open_new_volumes(Path(cfg.VOLUMES))


def open_new_volumes(directory: Path) -> None:
    """Let every user write to new volumes.

    The host-path provisioner makes them 0750 for root, and the kubelet applies
    no fsGroup to hostPath volumes, so a pod that is not root could not use its claim.
    """
    with os.scandir(directory) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):
                if entry.is_dir(follow_symlinks=False) and entry.stat(follow_symlinks=False).st_mode & 0o777 != 0o777:
                    Path(entry.path).chmod(0o777)


def _private_file_system(settings: Settings) -> None:
    """Cover the directories that components write to, then bring in what has to be on disk."""
    cluster = Path(settings.cluster)
    # An image build that runs now mounts below the cache; a copy of its mounts here would keep them in use.
    for point in mounts.points_below(Path(settings.cache_root), Path("/proc/self/mountinfo").read_text()):
        mounts.detach(point)
    open_directory = os.O_RDONLY | os.O_DIRECTORY
    wanted = {
        settings.cache_root: os.open(settings.cache_root, open_directory),
        cfg.DISK: os.open(cluster / "node", open_directory),
        cfg.IMAGE_STORE: os.open(cluster / "containerd", open_directory),
        cfg.VOLUMES: os.open(cluster / "node" / "volumes", open_directory),
    }
    for directory, mode in _PRIVATE_DIRECTORIES:
        mounts.tmpfs(directory, mode)
    for target, fd in wanted.items():
        covered = any(target.startswith(f"{directory}/") for directory, _ in _PRIVATE_DIRECTORIES)
        if covered:
            Path(target).mkdir(parents=True, exist_ok=True)
            mounts.bind_fd(fd, target)
        os.close(fd)
    Path("/run/lock").mkdir()
    hidden = Path(cfg.BASE, "sysctl")
    hidden.mkdir()
    for name, value in cfg.host_sysctls():
        sysctl = Path("/proc/sys", name)
        if sysctl.exists():
            stand_in = hidden / name.replace("/", ".")
            stand_in.write_text(f"{value}\n")
            mounts.bind(stand_in, sysctl)
    mounts.share_all()


def _network() -> None:
    """Configure the link that the host puts into this namespace; all other destinations are unreachable.

    The route for Services is there only so that the node's own processes pass
    routing; kube-proxy rewrites their destination before it matters.
    """
    wait_until(lambda: Path("/proc/sys/net/ipv4/conf/eth0").exists(), 30, "eth0", interval=0.01)
    for command in (
        "ip link set lo up",
        f"ip address add {cfg.NODE_ADDRESS}/24 dev eth0",
        "ip link set eth0 up",
        f"ip route add {cfg.SERVICE_CIDR} via {cfg.HOST_ADDRESS}",
        "ip route add unreachable default",
    ):
        run(command.split(), timeout=10)
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    # kube-proxy has to see packets between two pods of the same bridge.
    through_bridge = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
    if through_bridge.exists():
        through_bridge.write_text("1")


def _write_configuration(settings: Settings) -> None:
    base = Path(cfg.BASE)
    base.chmod(0o755)
    run(["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", cfg.SERVICE_ACCOUNT_KEY])
    os.umask(0o077)
    Path(cfg.TOKENS).write_text(f"{settings.admin_token},admin,1,system:masters\n")
    os.umask(0o022)
    runc = shutil.which("runc", path=settings.search_path) or "/usr/sbin/runc"
    for name, text in (
        ("containerd.toml", cfg.containerd_config(settings.pause_image, runc)),
        ("containerd-store.toml", cfg.containerd_config(settings.pause_image, runc, cri=False)),
        ("kubelet.json", cfg.kubelet_config()),
        ("kube-proxy.json", cfg.kube_proxy_config()),
        ("Corefile", cfg.corefile()),
        ("resolv.conf", ""),
        ("cni/10-bridge.conflist", cfg.cni_config()),
    ):
        path = base / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    for name in ("kubelet", "pod-logs"):
        Path(cfg.DISK, name).mkdir(exist_ok=True)


def _start_containerd(settings: Settings, components: Components) -> None:
    """containerd, first without its Kubernetes side to drop the containers of the last run, then for good."""
    program = settings.programs["containerd"]
    ctr = image_store.Ctr([settings.programs["ctr"], "--address", cfg.CONTAINERD_SOCKET])
    if Path(cfg.IMAGE_STORE, "io.containerd.metadata.v1.bolt").exists():
        name = "containerd-store"
        pid = components.start(name, program, ["--config", f"{cfg.BASE}/containerd-store.toml"])
        wait_until(ctr.answers, 30, "containerd")
        ctr.remove_containers()
        components.stop(name, pid)
        for stale in ("io.containerd.grpc.v1.cri", "io.containerd.runtime.v2.task"):
            shutil.rmtree(Path(cfg.IMAGE_STORE, stale), ignore_errors=True)
    components.start("containerd", program, ["--config", f"{cfg.BASE}/containerd.toml"])
    wait_until(ctr.answers, 30, "containerd")
    if settings.pause_image not in ctr.images():
        ctr.import_archive(Path(settings.pause_archive))


def _wait_for_api(settings: Settings) -> None:
    client = ApiClient(cfg.SERVER_URL, Path(cfg.CA_FILE), settings.admin_token)
    wait_until(lambda: Path(cfg.CA_FILE).exists() and client.ready(), 90, "the API server")
    authority = Path(cfg.CA_FILE).read_bytes()
    kubeconfig.write(Path(cfg.KUBECONFIG), kubeconfig.render(cfg.SERVER_URL, authority, settings.admin_token))
    # The last act of the start, for the host to find: written into the cache, not the private tmpfs.
    kubeconfig.write(
        Path(cfg.DISK, "admin.kubeconfig"), kubeconfig.render(cfg.SERVER_URL, authority, settings.admin_token)
    )
    shutil.copyfile(cfg.CA_FILE, f"{cfg.DISK}/ca.crt")


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except (ClusterError, OSError, subprocess.SubprocessError) as error:
        print(f"the node cannot start: {error}", flush=True)
        sys.exit(1)
