"""Facts of a model in a directory, as on a mounted PersistentVolumeClaim."""

from __future__ import annotations

import errno
import stat
from pathlib import Path
from typing import Final

from vllm_operator.planner.facts import MAX_CONFIG_BYTES, ModelError, index_shards, model_facts, parse_json
from vllm_operator_api.conditions import Reason
from vllm_operator_api.runtime import ModelFacts

CONFIG_FILE: Final = "config.json"
INDEX_FILE: Final = "model.safetensors.index.json"
SAFETENSORS: Final = ".safetensors"
PICKLES: Final = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")
CONSOLIDATED: Final = "consolidated"
"""Prefix of a second copy of the weights in another layout, which vLLM does not load beside the first."""
_MAX_ENTRIES: Final = 20_000


class TransientModelError(ModelError):
    """A fault that may pass: reading again later may succeed."""


def read_directory(directory: Path, root: Path) -> ModelFacts:
    """Facts of the model in ``directory``, which with all its files must lie below ``root`` (symlinks resolved).

    Raises:
        ModelError: there is no usable model there.
        TransientModelError: the volume could not be read.
    """
    shown = _relative(directory, root)
    try:
        return _read(directory, root, shown)
    except PermissionError as error:
        raise ModelError(
            Reason.MODEL_FACTS_UNAVAILABLE,
            f"{_relative(Path(error.filename or directory), root)} may not be read; "
            "make the model's files readable by all",
        ) from error
    except OSError as error:
        raise TransientModelError(
            Reason.MODEL_FACTS_UNAVAILABLE, f"{shown} cannot be read: {error.strerror or error}"
        ) from error


def _read(directory: Path, root: Path, shown: str) -> ModelFacts:
    if not directory.is_dir():
        problem = "is not a directory" if directory.exists() else "does not exist"
        raise ModelError(
            Reason.MODEL_NOT_FOUND, f"the directory {shown} {problem} on the volume; correct spec.model.id"
        )
    _inside(directory, root)
    config = _document(directory / CONFIG_FILE, root)
    if config is None:
        raise ModelError(
            Reason.MODEL_NOT_FOUND,
            f"the directory {shown} has no {CONFIG_FILE}; it must hold a model in the layout of the model hub",
        )
    weights_bytes = sum(_size(directory / name, root) for name in _weight_files(directory, root, shown))
    return model_facts(config, weights_bytes=weights_bytes, source=shown)


def _weight_files(directory: Path, root: Path, shown: str) -> tuple[str, ...]:
    index = _document(directory / INDEX_FILE, root)
    if index is not None:
        return index_shards(index, INDEX_FILE)
    names = _names(directory)
    files = weight_files(names)
    if not files:
        raise no_safetensors(names, f"the directory {shown}")
    return files


def weight_files(names: tuple[str, ...]) -> tuple[str, ...]:
    """The safetensors files that vLLM loads where no index names them."""
    found = tuple(name for name in names if name.endswith(SAFETENSORS))
    return tuple(name for name in found if not name.startswith(CONSOLIDATED)) or found


def no_safetensors(names: tuple[str, ...], where: str) -> ModelError:
    """The error of a model without safetensors."""
    pickles = [name for name in names if name.endswith(PICKLES)]
    if pickles:
        return ModelError(
            Reason.UNSAFE_WEIGHTS,
            f"{where} has its weights only as pickles ({', '.join(pickles[:3])}), which can run code when they are "
            "loaded; convert them to safetensors",
        )
    return ModelError(Reason.MODEL_CONFIG_INVALID, f"{where} has no weights: there is no file *{SAFETENSORS}")


def _names(directory: Path) -> tuple[str, ...]:
    names: list[str] = []
    for entry in directory.iterdir():
        names.append(entry.name)
        if len(names) > _MAX_ENTRIES:
            raise ModelError(Reason.MODEL_CONFIG_INVALID, f"the directory holds more than {_MAX_ENTRIES} files")
    return tuple(sorted(names))


def _document(path: Path, root: Path) -> dict[str, object] | None:
    if not path.is_symlink() and not path.exists():
        return None
    _size(path, root)
    with path.open("rb") as file:
        return parse_json(file.read(MAX_CONFIG_BYTES + 1), path.name)


def _size(path: Path, root: Path) -> int:
    _inside(path, root)
    try:
        status = path.stat()
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP, errno.ENOTDIR):
            raise ModelError(
                Reason.MODEL_CONFIG_INVALID,
                f"the file {_relative(path, root)} is missing; copy the model again, whole",
            ) from error
        raise
    if not stat.S_ISREG(status.st_mode):
        raise ModelError(Reason.MODEL_CONFIG_INVALID, f"{_relative(path, root)} is not a regular file")
    return status.st_size


def _inside(path: Path, root: Path) -> None:
    try:
        resolved = path.resolve()
    except RuntimeError:  # a loop of symlinks
        resolved = Path("/")
    if not resolved.is_relative_to(root.resolve()):
        raise ModelError(
            Reason.MODEL_CONFIG_INVALID,
            f"{_relative(path, root)} is a link that leads out of the volume; copy the file",
        )


def _relative(path: Path, root: Path) -> str:
    return str(path.relative_to(root)) if path.is_relative_to(root) else path.name
