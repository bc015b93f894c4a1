"""The native cluster: one node in namespaces of its own, with the distribution's containerd and runc.

Everything the node changes lies in its mount, pid, network, UTS and IPC
namespaces and goes with them. On the machine itself there are a veth link,
routes, control groups and files below the cache; ``down`` takes all but the
image store and the blackhole routes (see ``network``).
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
from contextlib import AbstractContextManager
from pathlib import Path

from localk8s import binaries, bootstrap, cgroups, kubeconfig, mounts, network, node_process, pause_image, privilege
from localk8s import node_config as cfg
from localk8s import system_packages as packages
from localk8s.api import ApiClient, wait_until
from localk8s.commands import succeeds
from localk8s.console import say, step
from localk8s.errors import ClusterError
from localk8s.image_store import Ctr, ImportRecord, archive_identity
from localk8s.locks import file_lock
from localk8s.paths import HACK_DIR, Layout

_KUBERNETES = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy")
_NODE_PROGRAMS = ("etcd", *_KUBERNETES, "coredns")
_START_SECONDS = 120.0
# In the kernel, or modules to load; a kernel that has them built in knows no such module.
_MODULES = ("overlay", "br_netfilter", "veth", "bridge", "nf_tables", "nf_conntrack")


class NativeCluster:
    """``up``, ``down`` and the rest for the cluster of one cache directory; all but ``prepare`` need root."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._settings_file = layout.cluster / "node-settings.json"
        self._import_record = ImportRecord(layout.cluster / "imports.json")

    def prepare(self) -> None:
        """Build, fetch and install what a node takes; as the user who owns the cache."""
        packages.install_missing(packages.NODE_PACKAGES)
        packages.unpacked(self._layout, "containerd")
        binaries.ensure_tier(self._layout, "node")
        pause_image.ensure(self._layout)

    def up(self) -> None:
        """A ready cluster, whatever state the last one was left in; a healthy one is kept as it is."""
        with self._lock():
            for other in node_process.others(self._settings_file):
                raise ClusterError(
                    f"the cluster of {other.parent.parent} is up, and a machine has room for one."
                    f"\nEnd it with: VLLM_OPERATOR_CACHE={other.parent.parent} hack/cluster down",
                    exit_code=2,
                )
            if self.healthy():
                self._finish(self._admin_token())
                say("  the cluster is up already")
                return
            self._clean()
            try:
                self._start()
            except ClusterError as error:
                raise ClusterError(f"{error}\nThe logs are in {self._layout.logs}") from None

    def down(self) -> None:
        """End the node and remove its traces; images stay in the store."""
        with self._lock(), step("node, link, control groups and state removed"):
            self._clean()

    def purge(self) -> None:
        """``down``, and also the image store and the blackhole routes."""
        self.down()
        network.remove_last_resort_routes()
        shutil.rmtree(self._layout.cluster, ignore_errors=True)

    def healthy(self) -> bool:
        """Whether the node runs, is linked, and its Node object is Ready."""
        if node_process.init_pid(self._settings_file) is None or not network.connected():
            return False
        try:
            client = self._client(self._admin_token())
            return client.ready() and bootstrap.node_ready(client, cfg.NODE_NAME)
        except (ClusterError, OSError, ValueError, KeyError):
            return False

    def load_images(self, archives: list[Path]) -> None:
        """Import image archives into the node, skipping those whose images are there with the same digests."""
        ctr = self._ctr()
        present = ctr.images()
        for archive in archives:
            identity = archive_identity(archive)
            if self._import_record.present(identity, present):
                say(f"  {archive.name}: already there")
                continue
            with step(f"import {archive.name}"):
                imported = ctr.import_archive(archive)
            self._import_record.add(identity, imported)
            for name in imported:
                say(f"    {name}")

    def images(self) -> dict[str, str]:
        """Image name -> digest."""
        return self._ctr().images()

    def _lock(self) -> AbstractContextManager[None]:
        return file_lock(self._layout.locks / "cluster.lock")

    def _clean(self) -> None:
        """Remove whatever a former node left: works from any half-finished state, and when there is nothing."""
        node_process.end(self._settings_file)
        if not node_process.others(self._settings_file):
            network.disconnect()
            cgroups.remove(cfg.CGROUP)
        for file in (self._layout.kubeconfig, self._settings_file):
            file.unlink(missing_ok=True)
        self._refuse_mounts_below(self._layout.node)
        if self._layout.node.exists():
            shutil.rmtree(self._layout.node)

    def _refuse_mounts_below(self, directory: Path) -> None:
        """Deleting through a mount would hit what is mounted; the node's mounts are private, so none is expected."""
        for point in mounts.points_below(directory, Path("/proc/self/mountinfo").read_text(encoding="utf-8")):
            raise ClusterError(f"{point} is a mount point; unmount it and run the command again")

    def _start(self) -> None:
        layout = self._layout
        network.refuse_conflicts()
        for directory in (layout.logs, layout.containerd, layout.node / "volumes"):
            directory.mkdir(parents=True, exist_ok=True)
        for log in layout.logs.glob("*.log"):
            log.replace(log.with_suffix(".log.old"))
        succeeds(["modprobe", "--all", "--quiet", *_MODULES])
        cgroups.create(cfg.CGROUP)
        token = secrets.token_urlsafe(24)
        self._write_settings(token)
        with step("node started"):
            process = self._launch()
            wait_until(lambda: self._init_pid(process) is not None, 10, "the node's first process", interval=0.01)
            network.connect(self._init_pid(process) or 0)
        with step("API server ready"):
            wait_until(lambda: self._still_starting(process, "admin.kubeconfig"), _START_SECONDS, "the API server")
        client = self._client(token)
        with step(f"{cfg.NODE_NAME} ready"):
            wait_until(lambda: bootstrap.node_ready(client, cfg.NODE_NAME), _START_SECONDS, cfg.NODE_NAME)
            self._finish(token)

    def _launch(self) -> subprocess.Popen[bytes]:
        """Start process 1 of the node in a session of its own, so that it outlives this command and its terminal."""
        unshare = ["unshare", "--mount", "--propagation=slave", "--pid", "--net", "--uts", "--ipc"]
        unshare += ["--fork", "--kill-child", "--mount-proc"]
        command = [*unshare, sys.executable, "-P", "-m", node_process.MODULE, str(self._settings_file)]
        with (self._layout.logs / "node.log").open("ab") as log:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd="/",
                env={"PATH": packages.search_path(), "PYTHONPATH": str(HACK_DIR), "PYTHONDONTWRITEBYTECODE": "1"},
                start_new_session=True,
            )

    def _init_pid(self, process: subprocess.Popen[bytes]) -> int | None:
        self._require_alive(process)
        pid = node_process.init_pid(self._settings_file)
        # unshare execs Python after its last fork; the pid counts once it is in a network namespace of its own.
        if pid is None or _network_namespace(pid) == _network_namespace(os.getpid()):
            return None
        return pid

    def _still_starting(self, process: subprocess.Popen[bytes], file: str) -> bool:
        self._require_alive(process)
        return (self._layout.node / file).exists() and (self._layout.node / "ca.crt").exists()

    def _require_alive(self, process: subprocess.Popen[bytes]) -> None:
        if process.poll() is not None:
            lines = (self._layout.logs / "node.log").read_text(errors="replace").splitlines()
            raise ClusterError("\n".join(["the node ended:", *lines[-10:]]))

    def _finish(self, token: str) -> None:
        """What lies beyond a Ready node; repeatable."""
        client = self._client(token)
        bootstrap.add_storage_class(client)
        bootstrap.add_fake_gpus(client, cfg.NODE_NAME)
        account = "/api/v1/namespaces/default/serviceaccounts/default"
        wait_until(lambda: client.exists(account), 30, "the default ServiceAccount")
        authority = (self._layout.node / "ca.crt").read_bytes()
        text = kubeconfig.render(cfg.SERVER_URL, authority, token)
        kubeconfig.write(self._layout.kubeconfig, text, privilege.invoking_user())

    def _write_settings(self, token: str) -> None:
        layout = self._layout
        containerd = packages.unpacked(layout, "containerd") / "usr" / "bin"
        programs = {name: str(binaries.path_of(layout, name)) for name in _NODE_PROGRAMS}
        programs |= {name: str(containerd / name) for name in ("containerd", "ctr")}
        settings = {
            "cache_root": str(layout.root),
            "cluster": str(layout.cluster),
            "programs": programs,
            "search_path": f"{containerd}:{packages.search_path()}",
            "admin_token": token,
            "pause_image": pause_image.image_name(),
            "pause_archive": str(pause_image.ensure(layout)),
        }
        kubeconfig.write(self._settings_file, json.dumps(settings, indent=1))

    def _admin_token(self) -> str:
        return str(json.loads(self._settings_file.read_text(encoding="utf-8"))["admin_token"])

    def _client(self, token: str) -> ApiClient:
        return ApiClient(cfg.SERVER_URL, self._layout.node / "ca.crt", token)

    def _ctr(self) -> Ctr:
        pid = node_process.init_pid(self._settings_file)
        if pid is None:
            raise ClusterError("the cluster is not up; start it with: hack/cluster up")
        program = packages.unpacked(self._layout, "containerd") / "usr" / "bin" / "ctr"
        enter = ["nsenter", "--target", str(pid), "--mount", "--pid", "--net"]
        return Ctr([*enter, str(program), "--address", cfg.CONTAINERD_SOCKET])


def _network_namespace(pid: int) -> str:
    return str(Path(f"/proc/{pid}/ns/net").readlink())
