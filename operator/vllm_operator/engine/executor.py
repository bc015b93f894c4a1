"""Carries a plan out: only the writes that are needed, only on objects that are the owner's."""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Self

from vllm_operator.engine.cache import ObjectCache
from vllm_operator.engine.containment import contains
from vllm_operator.engine.plan import Deletion, Failure, MergePatch, Outcome, Plan
from vllm_operator.kube.client import KubeClient
from vllm_operator.kube.errors import (
    AlreadyExistsError,
    ConflictError,
    KubeError,
    NotFoundError,
    RetryableError,
    TerminalError,
)
from vllm_operator.kube.kinds import Manifest, ObjectRef

_MAX_UNCONVERGED: Final = 4096
_INTERNAL_ERROR: Final = 500
"""What the API server answers when an admission webhook does not: worth another try, and worth telling."""


@dataclass(slots=True)
class _Progress:
    writes: int = 0
    failures: list[Failure] = field(default_factory=list)
    errors: list[KubeError] = field(default_factory=list)

    @property
    def outcome(self) -> Outcome:
        return Outcome(writes=self.writes, failures=tuple(self.failures))

    @property
    def name_taken(self) -> bool:
        return any(failure.conflict for failure in self.failures)


class UnfinishedWritesError(ExceptionGroup[KubeError]):
    """Writes to be tried again. ``outcome`` tells what was done, and what its owner's user should be told of."""

    outcome: Outcome

    def __new__(cls, errors: Sequence[KubeError], outcome: Outcome) -> Self:
        """``errors``: ``RetryableError`` and ``ConflictError`` only."""
        group = super().__new__(cls, "writes to be tried again", errors)
        group.outcome = outcome
        return group

    def __init__(self, errors: Sequence[KubeError], outcome: Outcome) -> None:  # noqa: ARG002 -- taken by __new__
        super().__init__("writes to be tried again", errors)


class Executor:
    """The only writer of child objects. Feeds the cache with the answers."""

    def __init__(self, client: KubeClient, cache: ObjectCache, field_manager: str, hash_annotation: str) -> None:
        self._client = client
        self._cache = cache
        self._field_manager = field_manager
        self._hash_annotation = hash_annotation
        self._unconverged: OrderedDict[ObjectRef, tuple[str, str]] = OrderedDict()
        """Objects that did not contain the intent even right after its apply (a mutating webhook, an item that another
        manager added to a list): not applied again until intent or object change, or every reconcile would write."""

    async def execute(self, plan: Plan, owner_uid: str) -> Outcome:
        """Delete, create, apply, patch, in this order; a failed write does not stop the independent ones after it.

        An apply is left out when the object's hash annotation says that this intent was applied and the object still
        contains it, or when the object is on its way out (its deletion will be an event). An existing object whose
        controller is not ``owner_uid`` is not written: that is a failure with ``conflict``, after which nothing that
        does not exist yet is made: without one of its parts the rest is of no use.

        Raises:
            UnfinishedWritesError: of ``RetryableError`` and ``ConflictError`` only; everything else was tried.
        """
        progress = _Progress()
        for deletion in plan.delete:
            await self._guarded(progress, deletion.ref, self._delete(progress, deletion))
        for manifest in plan.create:
            await self._guarded(progress, ObjectRef.of(manifest), self._create(progress, manifest, owner_uid))
        for manifest in plan.apply:
            await self._guarded(progress, ObjectRef.of(manifest), self._apply(progress, manifest, owner_uid))
        for patch in plan.patch:
            await self._guarded(progress, patch.ref, self._patch(progress, patch))
        if progress.errors:
            raise UnfinishedWritesError(progress.errors, progress.outcome)
        return progress.outcome

    async def _guarded(self, progress: _Progress, ref: ObjectRef, step: Awaitable[None]) -> None:
        try:
            await step
        except (RetryableError, ConflictError) as error:
            progress.errors.append(error)
            if error.status == _INTERNAL_ERROR:
                progress.failures.append(Failure(ref=ref, message=error.message))
        except (TerminalError, NotFoundError) as error:
            progress.failures.append(Failure(ref=ref, message=error.message))

    async def _delete(self, progress: _Progress, deletion: Deletion) -> None:
        live = self._cache.get(deletion.ref)
        if live is not None and live["metadata"].get("uid") == deletion.uid and _is_going(live, deletion):
            return
        try:
            await self._client.delete(
                deletion.ref, uid=deletion.uid, grace_period_seconds=deletion.grace_period_seconds
            )
        except ConflictError:
            return  # another object has the name by now: the one that was meant is gone
        progress.writes += 1
        if deletion.ref.kind not in self._cache.watched:
            self._cache.drop(deletion.ref, deletion.uid)

    async def _create(self, progress: _Progress, manifest: Manifest, owner_uid: str) -> None:
        ref = ObjectRef.of(manifest)
        live = self._cache.get(ref)
        if live is None and progress.name_taken:
            return
        if live is None:
            try:
                self._cache.put(await self._client.create(manifest))
                progress.writes += 1
            except AlreadyExistsError:
                live = await self._read(ref)
                if live is None:
                    raise  # it went away in between: try again
        if live is not None:
            self._check_owner(progress, ref, live, manifest, owner_uid)

    async def _apply(self, progress: _Progress, manifest: Manifest, owner_uid: str) -> None:
        ref = ObjectRef.of(manifest)
        live = self._cache.get(ref) or await self._read(ref)
        if live is None and progress.name_taken:
            return
        intent_hash = manifest_hash(manifest)
        if live is not None:
            if not self._check_owner(progress, ref, live, manifest, owner_uid):
                return
            if live["metadata"].get("deletionTimestamp"):
                return
            annotations = live["metadata"].get("annotations") or {}
            if annotations.get(self._hash_annotation) == intent_hash and (
                contains(live, manifest) or self._unconverged.get(ref) == (intent_hash, _revision(live))
            ):
                return
        answer = await self._client.apply(self._with_hash(manifest, intent_hash), field_manager=self._field_manager)
        progress.writes += 1
        self._cache.put(answer)
        self._unconverged.pop(ref, None)
        if not contains(answer, manifest):
            self._unconverged[ref] = (intent_hash, _revision(answer))
            if len(self._unconverged) > _MAX_UNCONVERGED:
                self._unconverged.popitem(last=False)

    async def _patch(self, progress: _Progress, patch: MergePatch) -> None:
        try:
            answer = await self._client.merge_patch(patch.ref, patch.body)
        except NotFoundError:
            return  # gone meanwhile: its event leads to a new plan
        progress.writes += 1
        self._cache.put(answer)

    async def _read(self, ref: ObjectRef) -> Manifest | None:
        """The live object of a name that the cache does not know: somebody else's, perhaps.

        Kinds that are not watched (ConfigMaps) are read through an empty merge patch, which writes nothing: the
        operator has no right to read them otherwise.
        """
        try:
            if ref.kind in self._cache.watched:
                live = await self._client.get(ref)
            else:
                live = await self._client.merge_patch(ref, {})
                self._cache.put(live)
        except NotFoundError:
            return None
        return live

    def _check_owner(
        self, progress: _Progress, ref: ObjectRef, live: Manifest, intent: Manifest, owner_uid: str
    ) -> bool:
        controller = controller_of(live)
        if controller is not None and controller.get("uid") == owner_uid:
            return True
        wanted = controller_of(intent)
        if controller is not None and wanted is not None and _same_name(controller, wanted):
            message = f"it belongs to an earlier {wanted['kind']} {wanted['name']} and is being collected"
            progress.failures.append(Failure(ref=ref, message=message))
            raise RetryableError(f"{ref}: {message}")
        held_by = f"is controlled by {controller['kind']} {controller['name']}" if controller else "has no controller"
        message = f"{ref} exists and {held_by}: delete or rename it, or rename this resource"
        progress.failures.append(Failure(ref=ref, message=message, conflict=True))
        return False

    def _with_hash(self, manifest: Manifest, intent_hash: str) -> Manifest:
        metadata = manifest["metadata"]
        annotations = {**(metadata.get("annotations") or {}), self._hash_annotation: intent_hash}
        return {**manifest, "metadata": {**metadata, "annotations": annotations}}


def manifest_hash(manifest: Manifest) -> str:
    """16 hex digits over the intent, equal for equal intents whatever the order of their keys."""
    text = json.dumps(manifest, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def controller_of(manifest: Manifest) -> dict[str, Any] | None:
    """The ownerReference with ``controller: true``."""
    for reference in manifest["metadata"].get("ownerReferences") or ():
        if reference.get("controller"):
            found: dict[str, Any] = reference
            return found
    return None


def _same_name(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return (one.get("kind"), one.get("name")) == (other.get("kind"), other.get("name"))


def _is_going(live: Manifest, deletion: Deletion) -> bool:
    metadata = live["metadata"]
    if not metadata.get("deletionTimestamp"):
        return False
    asked = deletion.grace_period_seconds
    return asked is None or asked >= metadata.get("deletionGracePeriodSeconds", 0)


def _revision(manifest: Manifest) -> str:
    """Changes with what was asked of the object; with its status too for the kinds that have no generation."""
    metadata = manifest["metadata"]
    return str(metadata.get("generation") or metadata.get("resourceVersion"))
