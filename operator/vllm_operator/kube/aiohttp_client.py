"""The Kubernetes client: a thin adapter over aiohttp, dicts in and out (ADR 0010 has the measurements)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import quote, urlencode

import aiohttp
import orjson
from yarl import URL

from vllm_operator.kube.client import ObjectList
from vllm_operator.kube.connection import Connection, TokenSource
from vllm_operator.kube.errors import (
    AlreadyExistsError,
    ConflictError,
    KubeError,
    NotFoundError,
    RetryableError,
    TerminalError,
)
from vllm_operator.kube.kinds import BY_KIND, Kind, Manifest, ObjectRef

_CONNECT_SECONDS: Final = 5.0
_TOTAL_SECONDS: Final = 30.0
_PAGE_SIZE: Final = 500
_MAX_CONNECTIONS: Final = 32
"""Above the number of workers that reconcile at the same time, and far below what an API server minds."""
_APPLY: Final = "application/apply-patch+yaml"
_MERGE_PATCH: Final = "application/merge-patch+json"
_JSON: Final = "application/json"

Observer = Callable[[str, str, int], None]
"""Called after each request with verb, kind and HTTP status (0: no answer)."""


class AiohttpKubeClient:
    """Implements ``KubeClient``. One session, made by ``start``, closed by ``stop``; belongs to one event loop."""

    def __init__(
        self,
        connection: Connection,
        *,
        user_agent: str,
        namespaces: tuple[str, ...] = (),
        observer: Observer | None = None,
    ) -> None:
        """``namespaces``: those that a list of all namespaces is to cover (RBAC may grant no more); empty: all."""
        self._connection = connection
        self._namespaces = namespaces
        self._user_agent = user_agent
        self._observer = observer
        self._tokens = TokenSource(connection)
        self._session: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        """Make the session; no connection is opened yet."""
        secure = self._connection.server.startswith("https:")
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=_MAX_CONNECTIONS, ssl=self._connection.ssl_context() if secure else False
            ),
            timeout=aiohttp.ClientTimeout(total=_TOTAL_SECONDS, sock_connect=_CONNECT_SECONDS),
            headers={"User-Agent": self._user_agent, "Accept": _JSON},
        )

    async def stop(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def get(self, ref: ObjectRef) -> Manifest:
        """Read one object."""
        return await self._request("get", "GET", BY_KIND[ref.kind], ref.namespace, ref.name)

    async def list(
        self,
        kind: Kind,
        *,
        namespace: str | None = None,
        label_selector: str | None = None,
        field_selector: str | None = None,
        from_cache: bool = False,
    ) -> ObjectList:
        """Read all objects of a kind (of one namespace, or of all that this client covers)."""
        # With resourceVersion=0 the server ignores a limit.
        query = {"resourceVersion": "0"} if from_cache else {"limit": str(_PAGE_SIZE)}
        if label_selector:
            query["labelSelector"] = label_selector
        if field_selector:
            query["fieldSelector"] = field_selector
        if namespace is not None or not kind.namespaced or not self._namespaces:
            return await self._list(kind, namespace or "", query)
        lists = [await self._list(kind, each, query) for each in self._namespaces]
        return ObjectList(
            items=tuple(item for each in lists for item in each.items),
            # The oldest: what is newer than it is not known to be gone.
            resource_version=min((each.resource_version for each in lists), key=_version),
        )

    async def _list(self, kind: Kind, namespace: str, query: Mapping[str, str]) -> ObjectList:
        """In pages. When the server drops the rest of a paged list, it starts over with one page for all."""
        items: list[Manifest] = []
        query = dict(query)
        while True:
            try:
                page = await self._request("list", "GET", kind, namespace, query=query)
            except TerminalError as error:
                if error.status != 410 or "continue" not in query:
                    raise
                items.clear()
                query = {key: value for key, value in query.items() if key in ("labelSelector", "fieldSelector")}
                continue
            identity = {"apiVersion": kind.api_version, "kind": kind.kind}
            items.extend({**item, **identity} for item in page.get("items") or ())
            metadata = page.get("metadata") or {}
            if not metadata.get("continue"):
                return ObjectList(items=tuple(items), resource_version=str(metadata.get("resourceVersion") or ""))
            query["continue"] = metadata["continue"]

    async def apply(self, manifest: Manifest, *, field_manager: str, subresource: str | None = None) -> Manifest:
        """Server-side apply, forced; returns the object as stored."""
        ref = ObjectRef.of(manifest)
        return await self._request(
            "apply",
            "PATCH",
            BY_KIND[ref.kind],
            ref.namespace,
            ref.name,
            subresource,
            query={"fieldManager": field_manager, "force": "true"},
            body=manifest,
            content_type=_APPLY,
        )

    async def create(self, manifest: Manifest, *, dry_run: bool = False) -> Manifest:
        """Create; raises ``AlreadyExistsError`` rather than touching what is there."""
        ref = ObjectRef.of(manifest)
        verb = "dry-run" if dry_run else "create"
        query = {"dryRun": "All"} if dry_run else None
        return await self._request(verb, "POST", BY_KIND[ref.kind], ref.namespace, query=query, body=manifest)

    async def merge_patch(self, ref: ObjectRef, body: dict[str, Any], *, subresource: str | None = None) -> Manifest:
        """JSON merge patch; a ``metadata.resourceVersion`` in the body makes it conditional."""
        return await self._request(
            "patch",
            "PATCH",
            BY_KIND[ref.kind],
            ref.namespace,
            ref.name,
            subresource,
            body=body,
            content_type=_MERGE_PATCH,
        )

    async def replace(self, manifest: Manifest) -> Manifest:
        """PUT; conditional on the manifest's ``metadata.resourceVersion``."""
        ref = ObjectRef.of(manifest)
        return await self._request("replace", "PUT", BY_KIND[ref.kind], ref.namespace, ref.name, body=manifest)

    async def delete(self, ref: ObjectRef, *, uid: str | None = None, grace_period_seconds: int | None = None) -> None:
        """Delete in the background, if ``uid`` still is the object's; an absent object is no error."""
        options: dict[str, Any] = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
        if uid is not None:
            options["preconditions"] = {"uid": uid}
        if grace_period_seconds is not None:
            options["gracePeriodSeconds"] = grace_period_seconds
        try:
            await self._request("delete", "DELETE", BY_KIND[ref.kind], ref.namespace, ref.name, body=options)
        except NotFoundError:
            return

    async def _request(
        self,
        verb: str,
        method: str,
        kind: Kind,
        namespace: str,
        name: str = "",
        subresource: str | None = None,
        *,
        query: dict[str, str] | None = None,
        body: Manifest | None = None,
        content_type: str = _JSON,
    ) -> Manifest:
        url = self._connection.server + path_of(kind, namespace, name, subresource)
        if query:
            url = f"{url}?{urlencode(query)}"
        data = None if body is None else orjson.dumps(body)
        status, answer = await self._exchange(verb, method, kind, url, data, content_type)
        if status == 401 and self._connection.token_file is not None:
            self._tokens.invalidate()
            status, answer = await self._exchange(verb, method, kind, url, data, content_type)
        try:
            document = orjson.loads(answer) if answer else {}
        except orjson.JSONDecodeError as error:
            if 200 <= status < 300:
                raise RetryableError(f"{verb} {kind.kind}: the answer is not JSON: {error}", status=status) from error
            document = {"message": answer[:512].decode(errors="replace")}
        if not 200 <= status < 300:
            raise error_of(status, document if isinstance(document, dict) else {}, f"{verb} {kind.kind} {name}".strip())
        found: Manifest = document
        return found

    async def _exchange(
        self, verb: str, method: str, kind: Kind, url: str, data: bytes | None, content_type: str
    ) -> tuple[int, bytes]:
        if self._session is None:
            raise RetryableError("the client is not started, or stopped already")
        status = 0
        try:
            headers = {"Content-Type": content_type} if data is not None else {}
            if token := self._tokens.token():
                headers["Authorization"] = f"Bearer {token}"
            async with self._session.request(method, URL(url, encoded=True), data=data, headers=headers) as response:
                status = response.status
                return status, await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            raise RetryableError(f"{verb} {kind.kind}: no answer from the API server: {said}") from error
        finally:
            if self._observer is not None:
                self._observer(verb, kind.kind, status)


def _version(text: str) -> int:
    return int(text) if text.isdecimal() else 0


def path_of(kind: Kind, namespace: str, name: str = "", subresource: str | None = None) -> str:
    """The path of a collection (no ``name``), an object, or a subresource of it."""
    prefix = f"/apis/{kind.api_version}" if "/" in kind.api_version else f"/api/{kind.api_version}"
    scope = f"/namespaces/{quote(namespace, safe='')}" if namespace and kind.namespaced else ""
    tail = f"/{quote(name, safe='')}" if name else ""
    return f"{prefix}{scope}/{kind.plural}{tail}" + (f"/{subresource}" if subresource else "")


def error_of(status: int, document: Manifest, what: str) -> KubeError:
    """The error type of an HTTP status, with the API server's own message (``kind: Status``)."""
    reason = str(document.get("reason") or "")
    message = str(document.get("message") or f"{what}: HTTP {status}")
    if status == 404:
        return NotFoundError(message, status=status, reason=reason)
    if status == 409:
        kind = AlreadyExistsError if reason == "AlreadyExists" else ConflictError
        return kind(message, status=status, reason=reason)
    if status == 429 or status >= 500:
        return RetryableError(message, status=status, reason=reason)
    return TerminalError(message, status=status, reason=reason)
