"""Facts of a model in a repository of the model hub (or a mirror of it)."""

from __future__ import annotations

from typing import Any, Final, NoReturn
from urllib.parse import quote

import httpx

from vllm_operator.planner.facts import MAX_CONFIG_BYTES, ModelError, index_shards, model_facts, parse_json
from vllm_operator.planner.facts_directory import (
    CONFIG_FILE,
    INDEX_FILE,
    TransientModelError,
    no_safetensors,
    weight_files,
)
from vllm_operator_api.conditions import Reason
from vllm_operator_api.runtime import ModelFacts

DEFAULT_ENDPOINT: Final = "https://huggingface.co"
DEFAULT_REVISION: Final = "main"
_TIMEOUT: Final = httpx.Timeout(30.0, connect=10.0)
_MAX_REDIRECTS: Final = 5
_MAX_SIBLINGS: Final = 100_000


def read_hub(repository: str, revision: str | None, endpoint: str | None) -> ModelFacts:
    """Three small GETs: the repository's files, its ``config.json``, its index of weights. All of one commit.

    Raises:
        ModelError: there is no usable model there.
        TransientModelError: the hub could not be asked.
    """
    base = (endpoint or DEFAULT_ENDPOINT).rstrip("/")
    with httpx.Client(
        base_url=base, timeout=_TIMEOUT, follow_redirects=True, max_redirects=_MAX_REDIRECTS, headers={"Accept": "*/*"}
    ) as client:
        hub = _Hub(client, base, repository, revision or DEFAULT_REVISION)
        return hub.facts()


class _Hub:
    def __init__(self, client: httpx.Client, base: str, repository: str, revision: str) -> None:
        self._client = client
        self._base = base
        self._repository = repository
        self._revision = revision

    def facts(self) -> ModelFacts:
        path = f"/api/models/{quote(self._repository)}/revision/{quote(self._revision, safe='')}?blobs=true"
        info = self._document(path, "the description of the repository")
        sizes = _file_sizes(info)
        commit = info.get("sha")
        if not isinstance(commit, str) or not commit.isalnum() or len(commit) > 64:
            commit = self._revision
        names = tuple(sorted(sizes))
        if CONFIG_FILE not in sizes:
            raise ModelError(
                Reason.MODEL_NOT_FOUND, f"the repository {self._repository} has no {CONFIG_FILE} at {self._revision}"
            )
        config = self._file(commit, CONFIG_FILE)
        if INDEX_FILE in sizes:
            weights_bytes = self._indexed_bytes(self._file(commit, INDEX_FILE), sizes)
        else:
            files = weight_files(tuple(name for name in names if "/" not in name))
            if not files:
                raise no_safetensors(names, f"the repository {self._repository}")
            weights_bytes = self._sum(files, sizes)
        source = f"{self._repository}@{commit}"
        return model_facts(config, weights_bytes=weights_bytes, source=source, revision=commit)

    def _indexed_bytes(self, index: dict[str, Any], sizes: dict[str, int | None]) -> int:
        shards = index_shards(index, INDEX_FILE)
        missing = [name for name in shards if name not in sizes]
        if missing:
            raise ModelError(
                Reason.MODEL_CONFIG_INVALID,
                f"the repository {self._repository} lacks {missing[0]}, which its {INDEX_FILE} names",
            )
        metadata = index.get("metadata")
        total = metadata.get("total_size") if isinstance(metadata, dict) else None
        if any(sizes[name] is None for name in shards) and isinstance(total, int):
            return total
        return self._sum(shards, sizes)

    def _sum(self, names: tuple[str, ...], sizes: dict[str, int | None]) -> int:
        unknown = next((name for name in names if sizes[name] is None), None)
        if unknown is not None:
            raise ModelError(
                Reason.MODEL_FACTS_UNAVAILABLE,
                f"{self._base} does not say how large {unknown} of {self._repository} is",
            )
        return sum(sizes[name] or 0 for name in names)

    def _file(self, commit: str, name: str) -> dict[str, Any]:
        return self._document(f"/{quote(self._repository)}/resolve/{quote(commit, safe='')}/{name}", name)

    def _document(self, path: str, what: str) -> dict[str, Any]:
        try:
            with self._client.stream("GET", path) as answer:
                if answer.status_code != 200:
                    self._refuse(answer)
                kind = answer.headers.get("content-type", "")
                if kind.startswith("text/html"):
                    _transient(
                        f"{self._base} answers with a web page instead of {what}: a proxy or a login is in between"
                    )
                body = _bounded(answer, what)
        except httpx.TimeoutException:
            _transient(f"{self._base} does not answer in time")
        except httpx.TooManyRedirects:
            _transient(f"{self._base} redirects without end")
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            _transient(f"{self._base} cannot be reached: {str(error)[:200] or type(error).__name__}")
        return parse_json(body, what)

    def _refuse(self, answer: httpx.Response) -> NoReturn:
        status = answer.status_code
        if status == 404:
            raise ModelError(
                Reason.MODEL_NOT_FOUND,
                f"{self._base} has no repository {self._repository} with the revision {self._revision}; "
                "correct spec.model.id or spec.model.revision",
            )
        if status in (401, 403):
            raise ModelError(
                Reason.MODEL_NOT_FOUND,
                f"{self._base} answers {status} for {self._repository}: it does not exist, is private, or is gated; "
                "copy such a model to a volume and use pvc://",
            )
        if status == 429:
            _transient(f"{self._base} answers 429: too many requests from this address")
        _transient(f"{self._base} answers {status}")


def _file_sizes(info: dict[str, Any]) -> dict[str, int | None]:
    siblings = info.get("siblings")
    if not isinstance(siblings, list) or len(siblings) > _MAX_SIBLINGS:
        raise ModelError(Reason.MODEL_FACTS_UNAVAILABLE, "the hub does not list the files of the repository")
    sizes: dict[str, int | None] = {}
    for sibling in siblings:
        if isinstance(sibling, dict) and isinstance(sibling.get("rfilename"), str):
            size = sibling.get("size")
            sizes[sibling["rfilename"]] = size if isinstance(size, int) and size >= 0 else None
    return sizes


def _bounded(answer: httpx.Response, what: str) -> bytes:
    body = bytearray()
    for part in answer.iter_bytes():
        body += part
        if len(body) > MAX_CONFIG_BYTES:
            raise ModelError(Reason.MODEL_CONFIG_INVALID, f"{what} has more than {MAX_CONFIG_BYTES} bytes")
    return bytes(body)


def _transient(message: str) -> NoReturn:
    raise TransientModelError(Reason.MODEL_FACTS_UNAVAILABLE, message)
