"""The Kubernetes client Protocol. Every call has a timeout and raises only errors of ``kube.errors``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from vllm_operator.kube.kinds import Kind, Manifest, ObjectRef


@dataclass(frozen=True, slots=True)
class ObjectList:
    """A LIST: its items (with ``apiVersion`` and ``kind`` filled in) and the resource version it is of."""

    items: tuple[Manifest, ...]
    resource_version: str


class KubeClient(Protocol):
    """What the operator asks of the API server."""

    async def get(self, ref: ObjectRef) -> Manifest:
        """Read one object."""
        ...

    async def list(
        self,
        kind: Kind,
        *,
        namespace: str | None = None,
        label_selector: str | None = None,
        field_selector: str | None = None,
        from_cache: bool = False,
    ) -> ObjectList:
        """Read all objects of a kind (of one namespace, or of all).

        ``from_cache``: any state that the API server has in memory will do (``resourceVersion=0``). Cheap for it, and
        in one page: for lists that a selector keeps short.
        """
        ...

    async def apply(self, manifest: Manifest, *, field_manager: str, subresource: str | None = None) -> Manifest:
        """Server-side apply, forced; returns the object as stored."""
        ...

    async def create(self, manifest: Manifest, *, dry_run: bool = False) -> Manifest:
        """Create; raises ``AlreadyExistsError`` rather than touching what is there."""
        ...

    async def merge_patch(self, ref: ObjectRef, body: dict[str, Any], *, subresource: str | None = None) -> Manifest:
        """JSON merge patch; a ``metadata.resourceVersion`` in the body makes it conditional."""
        ...

    async def replace(self, manifest: Manifest) -> Manifest:
        """PUT; conditional on the manifest's ``metadata.resourceVersion``."""
        ...

    async def delete(self, ref: ObjectRef, *, uid: str | None = None, grace_period_seconds: int | None = None) -> None:
        """Delete in the background, if ``uid`` still is the object's; an absent object is no error."""
        ...
