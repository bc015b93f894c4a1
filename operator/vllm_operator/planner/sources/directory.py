"""Facts of a model in a directory, as on a mounted PersistentVolumeClaim."""

from __future__ import annotations

import errno
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

from vllm_operator.planner.facts import gguf
from vllm_operator.planner.facts.document import MAX_DOCUMENT_BYTES
from vllm_operator.planner.facts.errors import DocumentTooLargeError, ModelError, TransientModelError, invalid
from vllm_operator.planner.facts.files import ModelFiles, model_files
from vllm_operator.planner.facts.safetensors import PREFIX_BYTES, TensorSizes, header_length, read_index
from vllm_operator.planner.facts.weights import LoadedWeights
from vllm_operator.planner.sources.assemble import Documents, assemble, assemble_gguf, read_documents
from vllm_operator_api.conditions import Reason
from vllm_operator_api.model import ModelFacts, WeightsSource

_MAX_ENTRIES: Final = 20_000
_MAX_HEADERS_BYTES: Final = 512 * 1024 * 1024
"""Of all files together: more is read from no volume, and their sizes have to do."""
_PART_BYTES: Final = 1024 * 1024


def read_directory(directory: Path, root: Path) -> ModelFacts:
    """Facts of the model in ``directory``, which with all its files must lie below ``root`` (symlinks resolved).

    Raises:
        ModelError: there is no usable model there.
        TransientModelError: the volume could not be read.
    """
    volume = _Volume(root)
    shown = volume.relative(directory)
    try:
        return _read(volume, directory, shown)
    except PermissionError as error:
        raise ModelError(
            Reason.MODEL_FACTS_UNAVAILABLE,
            f"{volume.relative(Path(error.filename or directory))} may not be read; "
            "make the model's files readable by all",
        ) from error
    except OSError as error:
        raise TransientModelError(
            Reason.MODEL_FACTS_UNAVAILABLE, f"{shown} cannot be read: {error.strerror or error}"
        ) from error


def _read(volume: _Volume, directory: Path, shown: str) -> ModelFacts:
    if not directory.is_dir():
        problem = "is not a directory" if directory.exists() else "does not exist"
        raise ModelError(
            Reason.MODEL_NOT_FOUND, f"the directory {shown} {problem} on the volume; correct spec.model.id"
        )
    volume.inside(directory)
    files = model_files(_names(directory), f"the directory {shown}")
    if files.is_gguf:
        total = sum(volume.size(directory / name) for name in files.weights)
        header = volume.beginning(directory / files.config, gguf.MAX_HEADER_BYTES)
        return assemble_gguf(header, files.config, total, source=shown)
    separate = None if files.quantization is None else volume.document(directory / files.quantization)
    documents = read_documents(volume.document(directory / files.config), files.config, separate, files.quantization)
    return assemble(documents, _weights(volume, directory, files, documents), source=shown)


def _weights(volume: _Volume, directory: Path, files: ModelFiles, documents: Documents) -> LoadedWeights:
    names, holds_speculative = files.weights, False
    if files.index is not None:
        index = read_index(volume.parts(directory / files.index), files.index, layers=documents.layers)
        names, holds_speculative = index.names(files.index), index.holds_speculative
    sizes = [volume.size(directory / name) for name in names]
    exact = _from_headers(volume, [directory / name for name in names], sizes, documents.layers)
    if exact is not None:
        return exact
    return LoadedWeights(total_bytes=sum(sizes), source=WeightsSource.FILES, holds_speculative=holds_speculative)


def _from_headers(volume: _Volume, paths: list[Path], sizes: list[int], layers: int) -> LoadedWeights | None:
    """The tensors' own sizes. None: the headers are too large to be read within bounds."""
    tensors = TensorSizes(layers)
    read = 0
    for path, size in zip(paths, sizes, strict=True):
        with volume.open(path) as file:
            prefix = file.read(PREFIX_BYTES)
            length = int.from_bytes(prefix, "little") if len(prefix) == PREFIX_BYTES else 0
            data_bytes = size - PREFIX_BYTES - length
            read += length
            if length > MAX_DOCUMENT_BYTES and data_bytes >= 0:
                return None
            length = header_length(prefix, volume.relative(path))
            if data_bytes < 0:
                invalid(f"{volume.relative(path)} ends within its header; copy the model again, whole")
            if read > _MAX_HEADERS_BYTES:
                return None
            try:
                tensors.add(file.read(length), path.name, data_bytes=data_bytes)
            except DocumentTooLargeError:
                return None
    return tensors.weights()


def _names(directory: Path) -> list[str]:
    names: list[str] = []
    for entry in directory.iterdir():
        names.append(entry.name)
        if len(names) > _MAX_ENTRIES:
            invalid(f"the directory holds more than {_MAX_ENTRIES} files")
    return names


class _Volume:
    """Files below a root: nothing outside of it is read, wherever links lead."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._resolved = root.resolve()

    def relative(self, path: Path) -> str:
        return str(path.relative_to(self._root)) if path.is_relative_to(self._root) else path.name

    def inside(self, path: Path) -> None:
        try:
            resolved = path.resolve()
        except RuntimeError:  # a loop of symlinks
            resolved = Path("/")
        if not resolved.is_relative_to(self._resolved):
            invalid(f"{self.relative(path)} is a link that leads out of the volume; copy the file")

    def size(self, path: Path) -> int:
        self.inside(path)
        try:
            status = path.stat()
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ELOOP, errno.ENOTDIR):
                raise ModelError(
                    Reason.MODEL_CONFIG_INVALID,
                    f"the file {self.relative(path)} is missing; copy the model again, whole",
                ) from error
            raise
        if not stat.S_ISREG(status.st_mode):
            invalid(f"{self.relative(path)} is not a regular file")
        return status.st_size

    def open(self, path: Path) -> BinaryIO:
        self.size(path)
        return path.open("rb")

    def document(self, path: Path) -> bytes:
        return self.beginning(path, MAX_DOCUMENT_BYTES + 1)

    def beginning(self, path: Path, most: int) -> bytes:
        with self.open(path) as file:
            return file.read(most)

    def parts(self, path: Path) -> Iterator[bytes]:
        with self.open(path) as file:
            while part := file.read(_PART_BYTES):
                yield part
