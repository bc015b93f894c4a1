"""Builds with a Docker engine: `docker buildx build`, which needs nothing of this machine's settings."""

from __future__ import annotations

from pathlib import Path

from images.targets import REPOSITORY, Target
from localk8s.commands import run, succeeds
from localk8s.console import step
from localk8s.kind_cluster import docker_answers
from localk8s.paths import Layout


def answers() -> bool:
    """Whether a Docker engine with buildx answers."""
    return docker_answers() and succeeds(["docker", "buildx", "version"])


def build(layout: Layout, target: Target, contexts: dict[str, Path], content: str) -> list[Path]:
    """Build one target and return its archive."""
    output = layout.root / "images" / f"{target.name}-{content}.tar"
    partial = output.with_suffix(".partial")
    arguments = ["docker", "buildx", "build", "--target", target.name, "--tag", target.image]
    for name, path in contexts.items():
        arguments += ["--build-context", f"{name}={path}"]
    with step(f"build {target.image}"):
        run([*arguments, "--output", f"type=docker,dest={partial}", str(REPOSITORY)], timeout=3600)
    partial.replace(output)
    return [output]
