"""Bring the whole stack up on the local cluster: cluster, images, chart, and a volume with models and rows."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from demo.kubectl import Kubectl

REPOSITORY = Path(__file__).resolve().parents[2]
HACK = REPOSITORY / "hack"
CHART = REPOSITORY / "charts" / "vllm-operator"
EXAMPLES = REPOSITORY / "examples" / "demo"

RELEASE = "vllm-operator"
RELEASE_NAMESPACE = "vllm-operator-system"
IMAGE_PREFIX = "localhost/vllm-operator"
IMAGE_TAG = "dev"


@dataclass(frozen=True, slots=True)
class Tools:
    """The binaries and the kubeconfig of the local cluster."""

    kubectl: Path
    helm: Path
    kubeconfig: Path


def _capture(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def tools() -> Tools:
    """Paths of kubectl, helm and the kubeconfig; builds or fetches what is absent."""
    cluster = str(HACK / "cluster")
    return Tools(
        kubectl=Path(_capture(cluster, "bin", "kubectl")),
        helm=Path(_capture(cluster, "bin", "helm")),
        kubeconfig=Path(_capture(cluster, "kubeconfig")),
    )


IMAGES = ("operator", "nats", "runtime-cpu", "demo-data")


class ImageBuild:
    """All images, built in the background: the first time, compiling Kubernetes and installing vLLM take turns well."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [str(HACK / "images" / "build"), *IMAGES], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def load(self) -> None:
        """Wait for the build, print what it said, and load the images into the cluster.

        Raises:
            RuntimeError: an image could not be built; its output was printed.
        """
        output, _ = self._process.communicate()
        # The archives' paths, one a line, are for scripts; the steps are indented.
        print("".join(f"{line}\n" for line in output.splitlines() if line.startswith(" ")), end="", flush=True)
        if self._process.returncode != 0:
            print(output, end="", flush=True)
            raise RuntimeError("an image could not be built")
        subprocess.run([str(HACK / "images" / "build"), *IMAGES, "--load"], check=True, stdout=subprocess.DEVNULL)


def cluster_up() -> None:
    """Start the local cluster, or leave it as it is when it runs."""
    subprocess.run([str(HACK / "cluster"), "up"], check=True)


def cluster_down() -> None:
    """Remove the local cluster."""
    subprocess.run([str(HACK / "cluster"), "down"], check=True)


def helm(paths: Tools, *args: str) -> str:
    """Run helm against the local cluster and return its output.

    Raises:
        subprocess.CalledProcessError: helm failed.
    """
    environment = {**os.environ, "KUBECONFIG": str(paths.kubeconfig)}
    done = subprocess.run(
        [str(paths.helm), *args], env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(f"helm {args[0]}: {done.stderr.strip()}")
    return done.stdout


def install_chart(paths: Tools, *extra: str) -> None:
    """``helm upgrade --install`` with the locally built images, and wait until it is ready."""
    values = [f"image.{part}.repository={IMAGE_PREFIX}/{image}" for part, image in LOCAL_IMAGES.items()]
    values += [f"image.{part}.tag={IMAGE_TAG}" for part in LOCAL_IMAGES]
    # The tag stays the same when an image changes: an annotation makes the operator's pod follow it.
    values.append(f"operator.podAnnotations.image={_image_version('operator')}")
    arguments = [argument for value in values for argument in ("--set", value)]
    helm(
        paths, "upgrade", "--install", RELEASE, str(CHART), "--namespace", RELEASE_NAMESPACE, "--create-namespace",
        "--wait", "--timeout", "180s", *arguments, *extra,
    )  # fmt: skip


def _image_version(image: str) -> str:
    """What ``hack/images/build`` made last: the archive's name holds a hash of all that went into it."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vllm-operator"
    cache = Path(os.environ.get("VLLM_OPERATOR_CACHE") or default)
    return (cache / "images" / f"{image}.tar").resolve().stem


LOCAL_IMAGES = {"operator": "operator", "runtime": "runtime-cpu", "nats": "nats"}
"""Part of the chart's ``image`` values -> image that ``hack/images/build`` makes for it."""


def uninstall_chart(paths: Tools) -> None:
    """``helm uninstall`` and wait."""
    helm(paths, "uninstall", RELEASE, "--namespace", RELEASE_NAMESPACE, "--wait", "--ignore-not-found")


def seed_volume(kubectl: Kubectl) -> None:
    """Make a claim ``demo`` with models and rows on it, and a pod ``client`` that mounts it and talks to services."""
    kubectl.apply((EXAMPLES / "volume.yaml").read_text())
    kubectl.wait("condition=Complete", "job/seed-demo", timeout_seconds=180)
    kubectl.wait("condition=Ready", "pod/client", timeout_seconds=120)
    kubectl("exec", "client", "--", "sh", "-c", "cd /mnt/demo && head -n 200 fortunes.jsonl > fortunes-200.jsonl")
