"""``--model-config FILE``: a model's own files on this machine, read within bounds."""

from __future__ import annotations

import re
import stat
from dataclasses import replace
from pathlib import Path
from typing import Final

from vllm_operator.cli.errors import CommandError
from vllm_operator.planner.facts.config import model_facts
from vllm_operator.planner.facts.document import MAX_DOCUMENT_BYTES
from vllm_operator.planner.facts.errors import ModelError
from vllm_operator.planner.facts.files import CONFIG_FILE, PARAMS_FILE, QUANTIZATION_FILE
from vllm_operator.planner.facts.gguf import MAX_HEADER_BYTES
from vllm_operator.planner.facts.override import apply_override
from vllm_operator.planner.facts.weights import LoadedWeights
from vllm_operator.planner.sources.assemble import assemble_gguf, read_documents
from vllm_operator.planner.sources.directory import read_directory
from vllm_operator_api.model import ModelFacts, WeightsSource
from vllm_operator_api.quantities import BYTES_PER_GIB

_GGUF: Final = ".gguf"
_WEIGHTS: Final = frozenset({".safetensors", _GGUF, ".bin", ".pt", ".pth"})
_PART: Final = re.compile(r"^(.+)-[0-9]{5}-of-([0-9]{5})\.gguf$")
_MAX_PARTS: Final = 1000


def read_model(path: Path, *, weights_bytes: int | None = None) -> ModelFacts:
    """Facts of the model at ``path``: a file of its configuration, a GGUF file, or a directory.

    ``weights_bytes`` goes before what the files say of the weights.

    Raises:
        CommandError: nothing usable is there; the message has the path.
    """
    try:
        if path.is_dir():
            return _directory(path, weights_bytes)
        if path.suffix.lower() == _GGUF:
            return _gguf(path, weights_bytes)
        return _configuration(path, weights_bytes)
    except ModelError as error:
        raise CommandError(f"--model-config {path}: {error.message}") from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise CommandError(f"--model-config {path}: {reason}") from error


def _directory(path: Path, weights_bytes: int | None) -> ModelFacts:
    """With its weights where there are any, else the configuration alone."""
    names = {entry.name for entry in path.iterdir()}
    configuration = next((name for name in (CONFIG_FILE, PARAMS_FILE) if name in names), None)
    has_weights = any(Path(name).suffix in _WEIGHTS for name in names)
    if configuration is not None and (weights_bytes is not None or not has_weights):
        return _configuration(path / configuration, weights_bytes)
    if configuration is None and not has_weights:
        raise CommandError(f"--model-config {path}: it has no {CONFIG_FILE}, no {PARAMS_FILE} and no *{_GGUF} file")
    facts = replace(read_directory(path.absolute(), Path("/")), source=str(path))
    return _with_weights(facts, weights_bytes)


def _configuration(path: Path, weights_bytes: int | None) -> ModelFacts:
    separate = path.with_name(QUANTIZATION_FILE)
    beside = _whole(separate) if path.name == CONFIG_FILE and separate.exists() else None
    documents = read_documents(_whole(path), path.name, beside, separate.name)
    given = None
    if weights_bytes is not None:
        given = LoadedWeights(total_bytes=weights_bytes, source=WeightsSource.GIVEN)
    return model_facts(documents.config, source=str(path), weights=given, hf_quant_config=documents.quantization)


def _gguf(path: Path, weights_bytes: int | None) -> ModelFacts:
    total = sum(_size(part) for part in _parts(path))
    with path.open("rb") as file:
        header = file.read(MAX_HEADER_BYTES)
    return _with_weights(assemble_gguf(header, path.name, total, source=str(path)), weights_bytes)


def _parts(path: Path) -> list[Path]:
    """All files of a GGUF model that is split."""
    match = _PART.match(path.name)
    if match is None or int(match[2]) > _MAX_PARTS:
        return [path]
    return [path.with_name(f"{match[1]}-{part:05}-of-{match[2]}.gguf") for part in range(1, int(match[2]) + 1)]


def _with_weights(facts: ModelFacts, weights_bytes: int | None) -> ModelFacts:
    return facts if weights_bytes is None else apply_override(facts, {"weightsGiB": weights_bytes / BYTES_PER_GIB})


def _whole(path: Path) -> bytes:
    size = _size(path)
    if size > MAX_DOCUMENT_BYTES:
        raise CommandError(f"--model-config {path}: it has {size} bytes; at most {MAX_DOCUMENT_BYTES} are read")
    with path.open("rb") as file:
        return file.read(MAX_DOCUMENT_BYTES + 1)


def _size(path: Path) -> int:
    """Bytes of a regular file: a pipe or a device could be read for ever."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise CommandError(f"--model-config {path}: it is no regular file")
    return status.st_size
