"""The sandbox ("pause") image, compiled from Kubernetes' own source and written as an OCI archive."""

from __future__ import annotations

import hashlib
import io
import json
import platform
import tarfile
import tempfile
from pathlib import Path

from localk8s import binaries, versions
from localk8s.commands import run
from localk8s.console import step
from localk8s.locks import file_lock
from localk8s.paths import Layout

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_OCI = "application/vnd.oci.image"


def image_name() -> str:
    """Name and tag of the image in containerd."""
    return f"localhost/pause:{versions.version('PAUSE_VERSION')}"


def ensure(layout: Layout) -> Path:
    """The archive, made when it is absent."""
    pinned = versions.version("PAUSE_VERSION")
    archive = layout.bin / f"pause-{pinned}" / "pause.oci.tar"
    if archive.exists():
        return archive
    with file_lock(layout.locks / f"pause-{pinned}.lock"):
        if archive.exists():
            return archive
        with step(f"make the image {image_name()}"), tempfile.TemporaryDirectory() as scratch:
            program = Path(scratch, "pause")
            source = binaries.pause_source(layout)
            # Flags of build/pause/Makefile.
            run(["gcc", "-Os", "-Wall", "-static", "-s", f"-DVERSION={pinned}", "-o", program, source], timeout=60)
            data = write_archive(program.read_bytes(), image_name())
            archive.parent.mkdir(parents=True, exist_ok=True)
            partial = archive.with_suffix(".partial")
            partial.write_bytes(data)
            partial.replace(archive)
    return archive


def write_archive(program: bytes, name: str) -> bytes:
    """An OCI archive of one layer that holds ``/pause``; the same bytes for the same program."""
    layer = _tar({"pause": (program, 0o755)})
    config = {
        "architecture": _ARCHITECTURES.get(platform.machine(), platform.machine()),
        "os": "linux",
        "config": {"Entrypoint": ["/pause"], "User": "65535:65535"},
        "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
    }
    config_bytes = json.dumps(config, sort_keys=True).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{_OCI}.manifest.v1+json",
        "config": _descriptor(f"{_OCI}.config.v1+json", config_bytes),
        "layers": [_descriptor(f"{_OCI}.layer.v1.tar", layer)],
    }
    manifest_bytes = json.dumps(manifest, sort_keys=True).encode()
    entry = _descriptor(f"{_OCI}.manifest.v1+json", manifest_bytes)
    entry["annotations"] = {"io.containerd.image.name": name}
    index = {"schemaVersion": 2, "mediaType": f"{_OCI}.index.v1+json", "manifests": [entry]}
    files = {
        "oci-layout": (b'{"imageLayoutVersion": "1.0.0"}', 0o644),
        "index.json": (json.dumps(index, sort_keys=True).encode(), 0o644),
    }
    for blob in (layer, config_bytes, manifest_bytes):
        files[f"blobs/sha256/{hashlib.sha256(blob).hexdigest()}"] = (blob, 0o644)
    return _tar(files)


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _descriptor(media_type: str, data: bytes) -> dict[str, object]:
    return {"mediaType": media_type, "digest": _digest(data), "size": len(data)}


def _tar(files: dict[str, tuple[bytes, int]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, (data, mode) in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(data), mode
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()
