"""OCI archives that containerd imports quickly: layers uncompressed, the index first.

Compressing gigabytes costs a two-core machine minutes, and the archives never leave it. The index comes first so that a
reader knows the content without reading the layers.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

_OCI = "application/vnd.oci.image"


def _digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def blob_path(blobs: Path, digest: str) -> Path:
    """The file of a blob in a directory of blobs, which are named by their digest without the algorithm."""
    return blobs / digest.partition(":")[2]


def write_archive(output: Path, name: str, manifest: dict[str, Any], sources: dict[str, Path | bytes]) -> None:
    """Write the OCI archive of one image, complete or not at all.

    Args:
        output: the tar to write.
        name: full name and tag that containerd gives the image.
        manifest: the image manifest; its layers need not all be in `sources`.
        sources: digest of a blob -> its file or content. A layer that is absent here has to be in the store already.
    """
    data = _json(manifest)
    descriptor = {
        "mediaType": f"{_OCI}.manifest.v1+json",
        "digest": _digest(data),
        "size": len(data),
        "annotations": {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name.rpartition(":")[2]},
    }
    index = {"schemaVersion": 2, "mediaType": f"{_OCI}.index.v1+json", "manifests": [descriptor]}
    partial = output.with_suffix(".partial")
    with tarfile.open(partial, "w", format=tarfile.GNU_FORMAT) as tar:
        _add(tar, "index.json", _json(index))
        _add(tar, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
        for digest, source in {descriptor["digest"]: data, **sources}.items():
            _add(tar, "blobs/" + str(digest).replace(":", "/"), source)
    partial.replace(output)


def _add(tar: tarfile.TarFile, name: str, source: Path | bytes) -> None:
    info = tarfile.TarInfo(name)
    if isinstance(source, bytes):
        info.size = len(source)
        tar.addfile(info, io.BytesIO(source))
    else:
        info.size = source.stat().st_size
        with source.open("rb") as handle:
            tar.addfile(info, handle)


def prefix_image(manifest: dict[str, Any], config: dict[str, Any], layers: int) -> tuple[dict[str, Any], bytes]:
    """(manifest, config) of the image that the first `layers` layers of another make, without command and history."""
    short = {
        "architecture": config["architecture"],
        "os": config["os"],
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": config["rootfs"]["diff_ids"][:layers]},
    }
    data = _json(short)
    descriptor = {"mediaType": f"{_OCI}.config.v1+json", "digest": _digest(data), "size": len(data)}
    return {**_bare(manifest), "config": descriptor, "layers": manifest["layers"][:layers]}, data


def _bare(manifest: dict[str, Any]) -> dict[str, Any]:
    return {"schemaVersion": 2, "mediaType": f"{_OCI}.manifest.v1+json", **manifest, "annotations": {}}
