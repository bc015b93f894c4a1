"""The cluster on kind, for machines where a Docker engine answers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from localk8s import binaries, bootstrap, kubeconfig
from localk8s.api import wait_until
from localk8s.commands import run, succeeds
from localk8s.console import say, step
from localk8s.errors import ClusterError
from localk8s.image_store import ImportRecord, archive_identity, archive_names
from localk8s.locks import file_lock
from localk8s.paths import Layout

NAME = "vllm-operator"
_NODE = f"{NAME}-control-plane"


def docker_answers() -> bool:
    """Whether there is a Docker client and an engine behind it."""
    return shutil.which("docker") is not None and succeeds(["docker", "info"], timeout=20)


class KindCluster:
    """``up``, ``down`` and the rest on kind; the same commands as ``NativeCluster``, without root."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._import_record = ImportRecord(layout.cluster / "kind-imports.json")

    def prepare(self) -> None:
        """Build and fetch kind, kubectl and helm."""
        binaries.ensure_tier(self._layout, "kind")

    def up(self) -> None:
        """A ready cluster; one that exists but does not answer is made anew."""
        self._layout.cluster.mkdir(parents=True, exist_ok=True)
        with file_lock(self._layout.locks / "cluster.lock"):
            if self._exists() and not self.healthy():
                self._delete()
            if not self._exists():
                with step("kind create cluster"):
                    self._kind("create", "cluster", "--name", NAME, "--kubeconfig", str(self._private_kubeconfig))
            with step(f"{_NODE} ready"):
                self._write_kubeconfig()
                wait_until(self._node_ready, 180, _NODE, interval=0.5)
                self._add_fake_gpus()

    def down(self) -> None:
        """Delete the cluster, its images with it: they live in the node's container."""
        with file_lock(self._layout.locks / "cluster.lock"), step("kind delete cluster"):
            self._delete()

    def purge(self) -> None:
        """``down`` and the removal of the state directory."""
        self.down()
        shutil.rmtree(self._layout.cluster, ignore_errors=True)

    def healthy(self) -> bool:
        """Whether the cluster exists and its API server is ready."""
        if not self._exists():
            return False
        try:
            self._write_kubeconfig()
            return self._node_ready()
        except ClusterError:
            return False

    def load_images(self, archives: list[Path]) -> None:
        """``kind load image-archive``, skipping archives whose images are there with the same digests."""
        for archive in archives:
            identity = archive_identity(archive)
            if self._import_record.present(identity, self.images()):
                say(f"  {archive.name}: already there")
                continue
            with step(f"import {archive.name}"):
                self._kind("load", "image-archive", str(archive), "--name", NAME)
            # containerd adds the default registry to a name without one.
            names = archive_names(archive)
            present = self.images()
            imported = {n: d for n, d in present.items() if any(n == name or n.endswith(f"/{name}") for name in names)}
            self._import_record.add(identity, imported)

    def images(self) -> dict[str, str]:
        """Image name -> digest, as containerd in the node's container has them."""
        listing = json.loads(run(["docker", "exec", _NODE, "crictl", "images", "--output", "json"], timeout=60))
        return {tag: image["id"] for image in listing["images"] for tag in image.get("repoTags", [])}

    @property
    def _private_kubeconfig(self) -> Path:
        return self._layout.cluster / "kind.kubeconfig"

    def _exists(self) -> bool:
        return NAME in self._kind("get", "clusters").split()

    def _delete(self) -> None:
        self._kind("delete", "cluster", "--name", NAME, "--kubeconfig", str(self._private_kubeconfig))
        for file in (self._layout.kubeconfig, self._private_kubeconfig, self._layout.cluster / "kind-imports.json"):
            file.unlink(missing_ok=True)

    def _write_kubeconfig(self) -> None:
        """The kubeconfig of kind with the context called as on the native cluster."""
        text = self._kind("get", "kubeconfig", "--name", NAME)
        text = text.replace(f"kind-{NAME}", kubeconfig.CONTEXT)
        kubeconfig.write(self._layout.kubeconfig, text)

    def _node_ready(self) -> bool:
        query = "jsonpath={.status.conditions[?(@.type=='Ready')].status}"
        try:
            return self._kubectl("get", "node", _NODE, "--request-timeout=5s", "-o", query).strip() == "True"
        except ClusterError:
            return False

    def _add_fake_gpus(self) -> None:
        labels = [f"{key}={value}" for key, value in bootstrap.GPU_LABELS.items()]
        self._kubectl("label", "node", _NODE, "--overwrite", *labels)
        patch = json.dumps(bootstrap.GPU_STATUS_PATCH)
        self._kubectl("patch", "node", _NODE, "--subresource=status", "--type=json", "-p", patch)

    def _kind(self, *arguments: str) -> str:
        return run([binaries.ensure(self._layout, "kind"), *arguments], timeout=900)

    def _kubectl(self, *arguments: str) -> str:
        program = binaries.ensure(self._layout, "kubectl")
        return run([program, "--kubeconfig", self._layout.kubeconfig, *arguments], timeout=60)
