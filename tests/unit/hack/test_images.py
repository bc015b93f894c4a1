"""Image archives: what the pause image's holds, what tells two apart, what was imported before."""

import hashlib
import io
import json
import tarfile
from pathlib import Path

import pytest

from localk8s import pause_image
from localk8s.errors import ClusterError
from localk8s.image_store import ImportRecord, archive_identity, archive_names


def read(archive: bytes, name: str) -> bytes:
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        stream = tar.extractfile(name)
        assert stream is not None
        return stream.read()


def test_the_pause_archive_is_a_consistent_oci_layout() -> None:
    archive = pause_image.write_archive(b"program", "localhost/pause:1")
    index = json.loads(read(archive, "index.json"))
    (entry,) = index["manifests"]
    assert entry["annotations"]["io.containerd.image.name"] == "localhost/pause:1"
    manifest = json.loads(read(archive, f"blobs/sha256/{entry['digest'][7:]}"))
    for blob in (manifest["config"], *manifest["layers"]):
        content = read(archive, f"blobs/sha256/{blob['digest'][7:]}")
        assert len(content) == blob["size"]
        assert hashlib.sha256(content).hexdigest() == blob["digest"][7:]
    config = json.loads(read(archive, f"blobs/sha256/{manifest['config']['digest'][7:]}"))
    assert config["rootfs"]["diff_ids"] == [manifest["layers"][0]["digest"]]
    assert read(read(archive, f"blobs/sha256/{manifest['layers'][0]['digest'][7:]}"), "pause") == b"program"


def test_the_pause_archive_is_reproducible() -> None:
    assert pause_image.write_archive(b"p", "a:1") == pause_image.write_archive(b"p", "a:1")


def test_identity_follows_the_content(tmp_path: Path) -> None:
    def identity(program: bytes) -> str:
        file = tmp_path / "image.tar"
        file.write_bytes(pause_image.write_archive(program, "a:1"))
        return archive_identity(file)

    assert identity(b"one") == identity(b"one")
    assert identity(b"one") != identity(b"two")


def test_names_come_from_either_index(tmp_path: Path) -> None:
    oci = tmp_path / "oci.tar"
    oci.write_bytes(pause_image.write_archive(b"p", "localhost/a:1"))
    assert archive_names(oci) == {"localhost/a:1"}
    docker = tmp_path / "docker.tar"
    manifest = json.dumps([{"Config": "c.json", "RepoTags": ["b:1", "b:2"]}, {"RepoTags": None}]).encode()
    with tarfile.open(docker, "w") as tar:
        member = tarfile.TarInfo("manifest.json")
        member.size = len(manifest)
        tar.addfile(member, io.BytesIO(manifest))
    assert archive_names(docker) == {"b:1", "b:2"}


def test_what_is_no_image_archive_is_refused(tmp_path: Path) -> None:
    text = tmp_path / "notes.tar"
    text.write_text("no tar")
    empty = tmp_path / "empty.tar"
    with tarfile.open(empty, "w"):
        pass
    for file in (text, empty, tmp_path / "missing.tar"):
        with pytest.raises(ClusterError, match=str(file)):
            archive_identity(file)


def test_an_archive_is_present_only_with_all_its_images_unchanged(tmp_path: Path) -> None:
    record = ImportRecord(tmp_path / "imports.json")
    assert not record.present("id", {"a:1": "sha256:1"})
    record.add("id", {"a:1": "sha256:1", "b:1": "sha256:2"})
    assert record.present("id", {"a:1": "sha256:1", "b:1": "sha256:2", "c:1": "sha256:3"})
    assert not record.present("id", {"a:1": "sha256:1"})
    assert not record.present("id", {"a:1": "sha256:9", "b:1": "sha256:2"})


def test_an_unreadable_or_empty_record_means_import_again(tmp_path: Path) -> None:
    file = tmp_path / "imports.json"
    file.write_text("{")
    assert not ImportRecord(file).present("id", {})
    ImportRecord(file).add("id", {})
    assert not ImportRecord(file).present("id", {})
