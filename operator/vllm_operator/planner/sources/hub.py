"""Facts of a model in a repository of the model hub (or a mirror of it)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from vllm_operator.planner.facts import gguf
from vllm_operator.planner.facts.document import MAX_DOCUMENT_BYTES, parse_json
from vllm_operator.planner.facts.errors import DocumentTooLargeError, ModelError, TransientModelError
from vllm_operator.planner.facts.files import ModelFiles, model_files
from vllm_operator.planner.facts.safetensors import (
    MAX_INDEX_BYTES,
    PREFIX_BYTES,
    TensorSizes,
    header_length,
    read_index,
)
from vllm_operator.planner.facts.weights import LoadedWeights
from vllm_operator.planner.sources.assemble import Documents, assemble, assemble_gguf, read_documents
from vllm_operator.planner.sources.hub_client import HubClient
from vllm_operator_api.conditions import Reason
from vllm_operator_api.model import ModelFacts, WeightsSource

DEFAULT_ENDPOINT: Final = "https://huggingface.co"
DEFAULT_REVISION: Final = "main"
_MAX_FILES: Final = 20_000
_MAX_TOKEN_BYTES: Final = 4096


def read_hub(repository: str, revision: str | None, endpoint: str | None, token_file: Path | None = None) -> ModelFacts:
    """Some small GETs: the repository's files, its configuration, its index or header of weights, all of one commit.

    Raises:
        ModelError: there is no usable model there.
        TransientModelError: the hub could not be asked.
    """
    base = (endpoint or DEFAULT_ENDPOINT).rstrip("/")
    token = None if token_file is None else _token(token_file)
    with HubClient(base, repository, revision or DEFAULT_REVISION, token) as client:
        return _Repository(client, repository, revision or DEFAULT_REVISION).facts()


def _token(path: Path) -> str:
    """The token, which is in no message."""
    try:
        with path.open("rb") as file:
            token = file.read(_MAX_TOKEN_BYTES).decode("ascii").strip()
    except (OSError, UnicodeDecodeError):
        token = ""
    if not token or not token.isprintable() or " " in token:
        raise ModelError(
            Reason.MODEL_FACTS_UNAVAILABLE,
            f"the file {path} holds no token for the model hub; correct the Secret that it is mounted from",
        )
    return token


class _Repository:
    """One repository at one revision."""

    def __init__(self, client: HubClient, name: str, revision: str) -> None:
        self._client = client
        self._name = name
        self._revision = revision
        self._commit = revision

    def facts(self) -> ModelFacts:
        path = f"/api/models/{quote(self._name)}/revision/{quote(self._revision, safe='')}?blobs=true"
        what = "the description of the repository"
        info = parse_json(self._client.read(path, what, MAX_DOCUMENT_BYTES), what)
        self._client.gated = info.get("gated") not in (None, False)
        sizes = _file_sizes(info)
        commit = info.get("sha")
        if isinstance(commit, str) and commit.isalnum() and len(commit) <= 64:
            self._commit = commit
        files = model_files(sizes, f"the repository {self._name} at {self._revision}")
        source = f"{self._name}@{self._commit}"
        if files.is_gguf:
            header = self._client.beginning(self._path(files.config), files.config, gguf.MAX_HEADER_BYTES)
            total = self._sum(files.weights, sizes)
            return assemble_gguf(header, files.config, total, source=source, revision=self._commit)
        separate = None if files.quantization is None else self._document(files.quantization)
        documents = read_documents(self._document(files.config), files.config, separate, files.quantization)
        weights = self._weights(files, sizes, documents)
        return assemble(documents, weights, source=source, revision=self._commit)

    def _weights(self, files: ModelFiles, sizes: Mapping[str, int | None], documents: Documents) -> LoadedWeights:
        if files.index is not None:
            return self._indexed(files.index, sizes, documents.layers)
        if len(files.weights) == 1:
            exact = self._from_header(files.weights[0], sizes, documents.layers)
            if exact is not None:
                return exact
        return LoadedWeights(total_bytes=self._sum(files.weights, sizes), source=WeightsSource.FILES)

    def _indexed(self, name: str, sizes: Mapping[str, int | None], layers: int) -> LoadedWeights:
        index = read_index(self._parts(name), name, layers=layers)
        shards = index.names(name)
        missing = next((shard for shard in shards if shard not in sizes), None)
        if missing is not None:
            raise ModelError(
                Reason.MODEL_CONFIG_INVALID, f"the repository {self._name} lacks {missing}, which its {name} names"
            )
        if index.total_bytes is not None and any(sizes[shard] is None for shard in shards):
            total, source = index.total_bytes, WeightsSource.INDEX
        else:
            total, source = self._sum(shards, sizes), WeightsSource.FILES
        return LoadedWeights(total_bytes=total, source=source, holds_speculative=index.holds_speculative)

    def _from_header(self, name: str, sizes: Mapping[str, int | None], layers: int) -> LoadedWeights | None:
        """The tensors' own sizes. None: the header is larger than what is read, or the hub gives no part of a file."""
        prefix = self._client.part(self._path(name), name, 0, PREFIX_BYTES)
        if prefix is None:
            return None
        size = sizes[name]
        length = int.from_bytes(prefix, "little")
        if MAX_DOCUMENT_BYTES < length < (size or 0):
            return None
        header = self._client.part(self._path(name), name, PREFIX_BYTES, header_length(prefix, name))
        if header is None:
            return None
        tensors = TensorSizes(layers)
        try:
            tensors.add(header, name, data_bytes=None if size is None else size - PREFIX_BYTES - length)
        except DocumentTooLargeError:
            return None
        return tensors.weights()

    def _sum(self, names: tuple[str, ...], sizes: Mapping[str, int | None]) -> int:
        unknown = next((name for name in names if sizes[name] is None), None)
        if unknown is not None:
            raise TransientModelError(
                Reason.MODEL_FACTS_UNAVAILABLE,
                f"{self._client.base} does not say how large {unknown} of {self._name} is",
            )
        return sum(sizes[name] or 0 for name in names)

    def _document(self, name: str) -> bytes:
        return self._client.read(self._path(name), name, MAX_DOCUMENT_BYTES)

    def _parts(self, name: str) -> Iterator[bytes]:
        return self._client.parts(self._path(name), name, MAX_INDEX_BYTES)

    def _path(self, name: str) -> str:
        return f"/{quote(self._name)}/resolve/{quote(self._commit, safe='')}/{quote(name)}"


def _file_sizes(info: Mapping[str, Any]) -> dict[str, int | None]:
    siblings = info.get("siblings")
    if not isinstance(siblings, list) or len(siblings) > _MAX_FILES:
        raise ModelError(Reason.MODEL_FACTS_UNAVAILABLE, "the hub does not list the files of the repository")
    sizes: dict[str, int | None] = {}
    for sibling in siblings:
        if isinstance(sibling, dict) and isinstance(sibling.get("rfilename"), str):
            size = sibling.get("size")
            whole = isinstance(size, int) and not isinstance(size, bool) and size >= 0
            sizes[sibling["rfilename"]] = size if whole else None
    return sizes
