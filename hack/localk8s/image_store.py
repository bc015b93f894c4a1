"""containerd's image store, spoken to through ``ctr``."""

from __future__ import annotations

import hashlib
import json
import re
import tarfile
from collections.abc import Sequence
from pathlib import Path

from localk8s.commands import run, succeeds
from localk8s.errors import ClusterError

# The namespace of the CRI plugin.
_NAMESPACE = "k8s.io"
_UNPACKED = re.compile(r"^unpacking (\S+) \((sha256:[0-9a-f]{64})\)", re.MULTILINE)
_IMPORT_SECONDS = 1800.0


class Ctr:
    """``ctr`` with a fixed beginning of its command line (program, address, and how to enter the node)."""

    def __init__(self, command: Sequence[str]) -> None:
        self._command = [*command, "--namespace", _NAMESPACE]

    def answers(self) -> bool:
        """Whether containerd serves images already."""
        return succeeds([*self._command, "images", "ls", "--quiet"], timeout=5)

    def images(self) -> dict[str, str]:
        """Image name -> digest; names by digest only are left out."""
        table = run([*self._command, "images", "ls"], timeout=60).splitlines()[1:]
        found = {}
        for line in table:
            name, _, digest, *_ = line.split()
            if not name.startswith("sha256:"):
                found[name] = digest
        return found

    def import_archive(self, archive: Path) -> dict[str, str]:
        """Import an OCI or docker archive; returns name -> digest of the images in it.

        By standard input: the node does not see every directory of the machine.
        """
        output = run([*self._command, "images", "import", "-"], stdin_file=archive, timeout=_IMPORT_SECONDS)
        return dict(_UNPACKED.findall(output))

    def remove_containers(self) -> None:
        """Remove every container record and its writable layer; none may be running."""
        identities = run([*self._command, "containers", "ls", "--quiet"], timeout=60).split()
        if identities:
            run([*self._command, "containers", "rm", *identities], timeout=300)


def archive_identity(archive: Path) -> str:
    """A digest over the index of an image archive, which names all its content by digest.

    Reads the table of contents only, so it costs milliseconds on a plain tar of several GB.
    """
    parts = _indexes(archive)
    return hashlib.sha256(b"\0".join(parts[name] for name in sorted(parts))).hexdigest()


def archive_names(archive: Path) -> set[str]:
    """The image names that an archive gives its images, as they stand in it (a registry's default host left out)."""
    parts = _indexes(archive)
    index = json.loads(parts.get("index.json", b"{}"))
    annotations = [entry.get("annotations", {}) for entry in index.get("manifests", [])]
    names = {entry.get("io.containerd.image.name") for entry in annotations}
    for image in json.loads(parts.get("manifest.json", b"[]")):
        names.update(image.get("RepoTags") or ())
    return {name for name in names if name}


def _indexes(archive: Path) -> dict[str, bytes]:
    """``index.json`` (OCI) and ``manifest.json`` (docker), those that the archive has."""
    try:
        with tarfile.open(archive, "r:*") as tar:
            wanted = {"index.json", "manifest.json"}
            parts: dict[str, bytes] = {}
            for member in tar:
                name = member.name.removeprefix("./")
                stream = tar.extractfile(member) if name in wanted else None
                if stream is not None:
                    parts[name] = stream.read()
                if len(parts) == len(wanted):
                    break
    except (OSError, tarfile.TarError) as error:
        raise ClusterError(f"{archive}: not a readable image archive: {error}", exit_code=2) from None
    if not parts:
        raise ClusterError(f"{archive}: neither index.json nor manifest.json in it: not an image archive", exit_code=2)
    return parts


class ImportRecord:
    """Which archives were imported as which images, kept beside the store that holds them."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def _read(self) -> dict[str, dict[str, str]]:
        try:
            entries = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return entries if isinstance(entries, dict) else {}

    def present(self, identity: str, images: dict[str, str]) -> bool:
        """Whether all images of this archive are in the store (``images``) with the same digests."""
        entry = self._read().get(identity)
        return bool(entry) and all(images.get(name) == digest for name, digest in (entry or {}).items())

    def add(self, identity: str, imported: dict[str, str]) -> None:
        """Remember an import."""
        entries = self._read()
        entries[identity] = imported
        partial = self._path.with_suffix(".partial")
        partial.write_text(json.dumps(entries, indent=1), encoding="utf-8")
        partial.replace(self._path)
