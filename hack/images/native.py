"""Builds without Docker: buildah with chroot isolation, its store below the cache directory."""

from __future__ import annotations

import configparser
import hashlib
import json
import os
import shlex
import tempfile
from pathlib import Path
from typing import Any

from images.archive import blob_path, prefix_image, write_archive
from images.base import base_version, ensure_base
from images.targets import DOCKERFILE, REPOSITORY, Target
from localk8s import privilege, system_packages
from localk8s.commands import run, succeeds
from localk8s.console import step
from localk8s.errors import ClusterError
from localk8s.paths import Layout

_PACKAGES: dict[str, str] = {"buildah": "buildah"}
_CA_BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")
# Settings of this machine that a package client inside the build needs as well.
_CLIENT_SETTINGS = (
    "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_TRUSTED_HOST", "PIP_DEFAULT_TIMEOUT", "UV_DEFAULT_INDEX", "UV_INDEX",
    "UV_HTTP_TIMEOUT", "http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY",
)  # fmt: skip
_PIP_FILES = (Path("/etc/pip.conf"), Path("~/.pip/pip.conf"), Path("~/.config/pip/pip.conf"))


def client_settings() -> str:
    """Shell lines with this machine's settings for pip and uv: the secret `build-env` of the Dockerfile."""
    settings: dict[str, str] = {}
    for file in _PIP_FILES:
        parser = configparser.ConfigParser(interpolation=None)
        parser.read(file.expanduser())
        if parser.has_section("global"):
            for key, name in (("index-url", "PIP_INDEX_URL"), ("extra-index-url", "PIP_EXTRA_INDEX_URL")):
                value = parser.get("global", key, fallback="")
                if value:
                    settings[name] = value
    settings |= {name: os.environ[name] for name in _CLIENT_SETTINGS if os.environ.get(name)}
    if "PIP_INDEX_URL" in settings:
        settings.setdefault("UV_DEFAULT_INDEX", settings["PIP_INDEX_URL"])
    settings |= {"SSL_CERT_FILE": str(_CA_BUNDLE), "PIP_CERT": str(_CA_BUNDLE)}
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in sorted(settings.items()))


class Buildah:
    """buildah with its own store, run as root."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._home = layout.root / "buildah"
        self._images = layout.root / "images"
        self._scratch = self._home / "tmp"  # also holds the cache mounts (packages that were downloaded)
        self._policy = Path(__file__).with_name("signature-policy.json")

    def _run(self, *arguments: str | Path, timeout: float = 600) -> str:
        command = ["env", f"TMPDIR={self._scratch}", "buildah", "--root", self._home / "storage"]
        command += ["--runroot", self._home / "run", "--storage-driver", self._driver(), *arguments]
        return run(privilege.as_root([str(part) for part in command]), timeout=timeout)

    def _driver(self) -> str:
        """overlay, or vfs where the cache is itself on a file system that overlay cannot lie on."""
        choice = self._home / "storage-driver"
        if choice.exists():
            return choice.read_text(encoding="utf-8")
        self._scratch.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._scratch) as scratch:
            for name in ("lower", "upper", "work", "merged"):
                Path(scratch, name).mkdir()
            options = f"lowerdir={scratch}/lower,upperdir={scratch}/upper,workdir={scratch}/work"
            mounts = ["mount", "-t", "overlay", "overlay", "-o", options, f"{scratch}/merged"]
            works = succeeds(privilege.as_root(mounts))
            if works:
                run(privilege.as_root(["umount", f"{scratch}/merged"]))
            run(privilege.as_root(["rm", "-rf", f"{scratch}/work"]))
        choice.write_text("overlay" if works else "vfs", encoding="utf-8")
        return choice.read_text(encoding="utf-8")

    def _base(self) -> str:
        """Name of the base image, loaded into the store when it is not there."""
        name = f"localhost/vllm-operator/base:{base_version()}"
        layer = ensure_base(self._layout)
        known = self._run("images", "--format", "{{.Name}}:{{.Tag}}", timeout=60).split()
        if name not in known:
            with step("base image into buildah's store"), tempfile.TemporaryDirectory(dir=self._scratch) as scratch:
                os.link(layer, Path(scratch, "base.tar"))
                recipe = 'FROM scratch\nADD base.tar /\nENV PATH=/usr/local/bin:/usr/bin:/bin\nCMD ["python3"]\n'
                Path(scratch, "Dockerfile").write_text(recipe, encoding="utf-8")
                self._run("build", "--quiet", "--isolation", "chroot", "--tag", name, scratch)
        return name

    def build(self, target: Target, contexts: dict[str, Path], content: str) -> list[Path]:
        """Build one target and return its archives, in the order in which to import them."""
        system_packages.install_missing(_PACKAGES)
        base = self._base()
        self._forget_old_layers()
        arguments: list[str | Path] = ["build", "--layers", "--pull-never", "--isolation", "chroot"]
        arguments += ["--build-arg", f"PYTHON_IMAGE={base}", "--target", target.name, "--tag", target.image]
        for name, path in contexts.items():
            arguments += ["--build-context", f"{name}={path}"]
        if _CA_BUNDLE.exists():
            bundle = Path(os.environ.get("SSL_CERT_FILE") or _CA_BUNDLE).resolve()
            arguments += ["--volume", f"{bundle}:{_CA_BUNDLE}:ro"]
        with step(f"build {target.image}"), tempfile.NamedTemporaryFile("w", dir=self._scratch) as secret:
            secret.write(client_settings())
            secret.flush()
            try:
                self._run(*arguments, "--secret", f"id=build-env,src={secret.name}", REPOSITORY, timeout=1800)
            except ClusterError:
                self._run("rm", "--all")  # a build that fails leaves its containers mounted
                raise
        with step(f"export {target.image}"):
            return self._export_split(target, content) if target.own_layers else [self._export_whole(target, content)]

    def _forget_old_layers(self) -> None:
        """Drop unnamed layers of earlier generations: gigabytes each time that the recipe of vLLM's layer changes."""
        digest = hashlib.sha256()
        for path in (DOCKERFILE, REPOSITORY / "runtime" / "requirements-cpu.txt"):
            digest.update(path.read_bytes())
        mark = self._home / "generation"
        if mark.exists() and mark.read_text(encoding="utf-8") != digest.hexdigest():
            self._run("rmi", "--prune", "--force")
        mark.write_text(digest.hexdigest(), encoding="utf-8")

    def _push(self, target: Target, destination: str) -> None:
        arguments = ("--quiet", "--format", "oci", "--disable-compression", "--signature-policy", self._policy)
        self._run("push", *arguments, target.image, destination, timeout=1800)

    def _export_whole(self, target: Target, content: str) -> Path:
        """One archive with all layers."""
        with tempfile.TemporaryDirectory(dir=self._images, prefix=".export-") as scratch:
            self._push(target, f"dir:{scratch}")
            manifest = json.loads(Path(scratch, "manifest.json").read_bytes())
            output = self._images / f"{target.name}-{content}.tar"
            blobs = [manifest["config"]["digest"], *(layer["digest"] for layer in manifest["layers"])]
            write_archive(output, target.image, manifest, {b: blob_path(Path(scratch), b) for b in blobs})
        return output

    def _export_split(self, target: Target, content: str) -> list[Path]:
        """Two archives: the layers below our code, written once; and the layers of our code alone."""
        own = target.own_layers
        below = self._diff_ids(target)[:-own]
        name = f"{target.name}-deps-{hashlib.sha256(' '.join(below).encode()).hexdigest()[:12]}"
        deps, sizes = self._images / f"{name}.tar", self._images / f"{name}.sizes.json"
        output = self._images / f"{target.name}-{content}.tar"
        with tempfile.TemporaryDirectory(dir=self._images, prefix=".export-") as scratch:
            whole = not (deps.exists() and sizes.exists())
            if whole:
                self._push(target, f"dir:{scratch}")
                blobs, manifest = Path(scratch), json.loads(Path(scratch, "manifest.json").read_bytes())
            else:
                blobs, manifest = self._push_top(target, Path(scratch), json.loads(sizes.read_bytes()))
            if [layer["digest"] for layer in manifest["layers"][:-own]] != below:
                raise ClusterError(f"{target.image}: buildah exported other layers than it built")
            if whole:
                config = json.loads(blob_path(blobs, manifest["config"]["digest"]).read_bytes())
                short, data = prefix_image(manifest, config, len(below))
                sources: dict[str, Path | bytes] = {digest: blob_path(blobs, digest) for digest in below}
                sources[short["config"]["digest"]] = data
                write_archive(deps, f"localhost/vllm-operator/{target.name}-deps:dev", short, sources)
                known = {layer["digest"]: layer["size"] for layer in manifest["layers"][:-own]}
                sizes.write_text(json.dumps(known), encoding="utf-8")
            top = [manifest["config"]["digest"], *(layer["digest"] for layer in manifest["layers"][-own:])]
            write_archive(output, target.image, manifest, {digest: blob_path(blobs, digest) for digest in top})
        return [deps, output]

    def _diff_ids(self, target: Target) -> list[str]:
        found = json.loads(self._run("inspect", "--type", "image", target.image, timeout=60))
        return [str(digest) for digest in found["OCIv1"]["rootfs"]["diff_ids"]]

    def _push_top(self, target: Target, scratch: Path, sizes: dict[str, int]) -> tuple[Path, dict[str, Any]]:
        """Push into an OCI layout that seems to hold the lower layers already, so that they are not read again."""
        blobs = scratch / "blobs" / "sha256"
        blobs.mkdir(parents=True)
        for digest, size in sizes.items():
            with blob_path(blobs, digest).open("wb") as placeholder:
                placeholder.truncate(size)  # sparse: only its size is looked at
        self._push(target, f"oci:{scratch}:dev")
        index = json.loads((scratch / "index.json").read_bytes())
        return blobs, json.loads(blob_path(blobs, index["manifests"][0]["digest"]).read_bytes())
