"""An API server in memory, as far as the operator can tell the difference."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from vllm_operator.engine.cache import ObjectCache
from vllm_operator.kube.client import ObjectList
from vllm_operator.kube.errors import AlreadyExistsError, ConflictError, KubeError, NotFoundError, TerminalError
from vllm_operator.kube.kinds import BY_KIND, Kind, Manifest, ObjectRef
from vllm_operator_api.names import OWNER_UID_LABEL

WATCHED = ("LLMService", "InferenceJob", "Deployment", "Service", "Job", "Pod", "Node")
_WITH_STATUS = frozenset({"LLMService", "InferenceJob", "Deployment", "Job", "Service", "Pod", "Node"})
_WITH_GENERATION = frozenset({"LLMService", "InferenceJob", "Deployment", "Job"})
Listener = Callable[[str, Manifest], None]


@dataclass(frozen=True)
class Call:
    """One call of the client. ``verb``: get, list, apply, create, dry-run, patch, replace, delete."""

    verb: str
    kind: str
    namespace: str
    name: str
    subresource: str | None = None
    changed: bool = False

    @property
    def is_write(self) -> bool:
        """Whether an API server would see a mutating request that is not a plain read through a patch."""
        return self.verb in {"apply", "create", "replace", "delete"} or (self.verb == "patch" and self.changed)


@dataclass
class _Fault:
    error: KubeError
    verb: str | None
    kind: str | None
    name: str | None
    subresource: str | None
    times: int

    def matches(self, verb: str, ref: ObjectRef, subresource: str | None) -> bool:
        return (
            self.times > 0
            and self.verb in (None, verb)
            and self.kind in (None, ref.kind)
            and self.name in (None, ref.name)
            and self.subresource in (None, subresource)
        )


class FakeKube:
    """Implements ``vllm_operator.kube.client.KubeClient``.

    Has resource versions, generations, uids, server-side apply with ownership by manager (lists are atomic), status as
    a subresource, optimistic locking, and background garbage collection by ownerReferences. ``seed``, ``set_status``,
    ``edit`` and ``remove`` are what others (users, controllers) do; they are neither counted nor disturbed by ``fail``.
    """

    def __init__(self, cache: ObjectCache | None = None) -> None:
        """``cache`` gets every change at once, as if by a watch (all objects, whatever their labels)."""
        self.objects: dict[ObjectRef, Manifest] = {}
        self.calls: list[Call] = []
        self.forbidden: set[tuple[str, str]] = set()
        """(verb, kind) that RBAC does not grant."""
        self._version = 0
        self._next_uid = 0
        self._owned: dict[tuple[ObjectRef, str], Manifest] = {}
        self._faults: list[_Fault] = []
        self._listeners: list[Listener] = []
        if cache is not None:
            self.feed(cache)

    # ---- what tests say and ask

    def feed(self, cache: ObjectCache) -> None:
        """Put everything there is, and every change from now on, into a cache; it is synced then."""
        for manifest in self.objects.values():
            cache.put(copy.deepcopy(manifest))
        for kind in cache.watched:
            cache.mark_listed(kind)

        def follow(event: str, manifest: Manifest) -> None:
            if event == "DELETED":
                cache.drop(ObjectRef.of(manifest), manifest["metadata"]["uid"])
            else:
                cache.put(manifest)

        self.listen(follow)

    def listen(self, listener: Listener) -> None:
        """Call this with ``ADDED``, ``MODIFIED`` or ``DELETED`` and a copy of the object at each change."""
        self._listeners.append(listener)

    def fail(
        self,
        error: KubeError,
        *,
        verb: str | None = None,
        kind: str | None = None,
        name: str | None = None,
        subresource: str | None = None,
        times: int = 1,
    ) -> None:
        """Let the next ``times`` calls that match raise this."""
        self._faults.append(_Fault(error, verb, kind, name, subresource, times))

    @property
    def writes(self) -> list[Call]:
        """The mutating calls so far, in order."""
        return [call for call in self.calls if call.is_write]

    def reset_calls(self) -> None:
        """Forget the calls so far."""
        self.calls.clear()

    def seed(self, manifest: Manifest) -> Manifest:
        """Put an object there, status included, as another user of the API would."""
        ref = ObjectRef.of(manifest)
        return self._store(ref, copy.deepcopy(manifest))

    def set_status(self, ref: ObjectRef, status: dict[str, Any]) -> Manifest:
        """Replace the status, as the kubelet or a built-in controller would."""
        return self._store(ref, {**copy.deepcopy(self.objects[ref]), "status": copy.deepcopy(status)})

    def edit(self, ref: ObjectRef, change: Callable[[Manifest], None]) -> Manifest:
        """Change an object in place, as with ``kubectl edit``."""
        manifest = copy.deepcopy(self.objects[ref])
        change(manifest)
        return self._store(ref, manifest)

    def remove(self, ref: ObjectRef) -> None:
        """Delete an object, as with ``kubectl delete``; what it owns goes too."""
        self._remove(ref)

    def of_kind(self, kind: str) -> list[Manifest]:
        """All objects of a kind, by name."""
        return [copy.deepcopy(self.objects[ref]) for ref in sorted(self.objects) if ref.kind == kind]

    # ---- KubeClient

    async def get(self, ref: ObjectRef) -> Manifest:
        self._enter("get", ref)
        return copy.deepcopy(self._existing(ref))

    async def list(
        self,
        kind: Kind,
        *,
        namespace: str | None = None,
        label_selector: str | None = None,
        field_selector: str | None = None,
        from_cache: bool = False,
    ) -> ObjectList:
        self._enter("list", ObjectRef(kind.kind, namespace or "", ""))
        items = [
            copy.deepcopy(manifest)
            for ref, manifest in sorted(self.objects.items())
            if ref.kind == kind.kind
            and namespace in (None, ref.namespace)
            and _selected(manifest, label_selector)
            and _has_fields(manifest, field_selector)
        ]
        return ObjectList(items=tuple(items), resource_version=str(self._version))

    async def apply(self, manifest: Manifest, *, field_manager: str, subresource: str | None = None) -> Manifest:
        ref = ObjectRef.of(manifest)
        self._enter("apply", ref, subresource)
        intent = _without_server_fields(manifest)
        current = self.objects.get(ref)
        wanted_uid = manifest["metadata"].get("uid")
        if current is None and (subresource is not None or wanted_uid is not None):
            raise NotFoundError(f'{ref.kind} "{ref.name}" not found', status=404, reason="NotFound")
        if current is not None and wanted_uid not in (None, current["metadata"]["uid"]):
            raise ConflictError("Precondition failed: UID in precondition", status=409, reason="Conflict")
        if subresource == "status":
            intent = {"status": intent.get("status", {})}
        elif ref.kind in _WITH_STATUS:
            intent.pop("status", None)
        merged = copy.deepcopy(current) if current is not None else _skeleton(manifest)
        owner = (ref, field_manager)
        others = [held for (r, manager), held in self._owned.items() if r == ref and manager != field_manager]
        _take_away(merged, self._owned.get(owner, {}), intent, others)
        _merge(merged, intent)
        self._check_controllers(merged)
        self._owned[owner] = copy.deepcopy(intent)
        return copy.deepcopy(self._store(ref, merged))

    async def create(self, manifest: Manifest, *, dry_run: bool = False) -> Manifest:
        ref = ObjectRef.of(manifest)
        self._enter("dry-run" if dry_run else "create", ref)
        if ref in self.objects:
            raise AlreadyExistsError(f'{ref.kind} "{ref.name}" already exists', status=409, reason="AlreadyExists")
        if dry_run:
            return copy.deepcopy(manifest)
        return copy.deepcopy(self._store(ref, _without_server_fields(manifest)))

    async def merge_patch(self, ref: ObjectRef, body: dict[str, Any], *, subresource: str | None = None) -> Manifest:
        self._enter("patch", ref, subresource, changed=bool(body))
        current = self._existing(ref)
        body = copy.deepcopy(body)
        self._check_version(current, (body.get("metadata") or {}).pop("resourceVersion", None))
        if subresource == "status":
            body = {"status": body.get("status", {})}
        merged = copy.deepcopy(current)
        _json_merge(merged, body)
        return copy.deepcopy(self._store(ref, merged))

    async def replace(self, manifest: Manifest) -> Manifest:
        ref = ObjectRef.of(manifest)
        self._enter("replace", ref)
        current = self._existing(ref)
        self._check_version(current, manifest["metadata"].get("resourceVersion"))
        return copy.deepcopy(self._store(ref, _without_server_fields(manifest)))

    async def delete(self, ref: ObjectRef, *, uid: str | None = None, grace_period_seconds: int | None = None) -> None:
        self._enter("delete", ref)
        current = self.objects.get(ref)
        if current is None:
            return
        if uid is not None and current["metadata"]["uid"] != uid:
            raise ConflictError("Precondition failed: UID in precondition", status=409, reason="Conflict")
        self._remove(ref)

    # ---- inside

    def _enter(self, verb: str, ref: ObjectRef, subresource: str | None = None, *, changed: bool = False) -> None:
        self.calls.append(Call(verb, ref.kind, ref.namespace, ref.name, subresource, changed))
        if (verb, ref.kind) in self.forbidden:
            raise TerminalError(f"{ref.kind} is forbidden: cannot {verb}", status=403, reason="Forbidden")
        for fault in self._faults:
            if fault.matches(verb, ref, subresource):
                fault.times -= 1
                raise fault.error

    def _existing(self, ref: ObjectRef) -> Manifest:
        if ref not in self.objects:
            raise NotFoundError(f'{ref.kind} "{ref.name}" not found', status=404, reason="NotFound")
        return self.objects[ref]

    def _check_version(self, current: Manifest, version: str | None) -> None:
        if version and version != current["metadata"]["resourceVersion"]:
            raise ConflictError("the object has been modified", status=409, reason="Conflict")

    def _check_controllers(self, manifest: Manifest) -> None:
        references = manifest["metadata"].get("ownerReferences") or []
        if sum(bool(reference.get("controller")) for reference in references) > 1:
            raise TerminalError("Only one reference can have Controller set to true", status=422, reason="Invalid")

    def _store(self, ref: ObjectRef, manifest: Manifest) -> Manifest:
        old = self.objects.get(ref)
        metadata = manifest.setdefault("metadata", {})
        for field in ("uid", "creationTimestamp", "generation", "resourceVersion"):
            if old is not None and field in old["metadata"] and field != "resourceVersion":
                metadata[field] = old["metadata"][field]
        if old is None:
            self._next_uid += 1
            metadata.setdefault("uid", f"uid-{self._next_uid:04d}")
            metadata.setdefault("creationTimestamp", "2026-01-01T00:00:00Z")
            if ref.kind in _WITH_GENERATION:
                metadata.setdefault("generation", 1)
        else:
            metadata["resourceVersion"] = old["metadata"]["resourceVersion"]
            if manifest == old:
                return old
            if ref.kind in _WITH_GENERATION and manifest.get("spec") != old.get("spec"):
                metadata["generation"] = old["metadata"].get("generation", 1) + 1
        self._version += 1
        metadata["resourceVersion"] = str(self._version)
        self.objects[ref] = manifest
        self._tell("ADDED" if old is None else "MODIFIED", manifest)
        return manifest

    def _remove(self, ref: ObjectRef) -> None:
        manifest = self.objects.pop(ref, None)
        if manifest is None:
            return
        for owner in [owner for owner in self._owned if owner[0] == ref]:
            del self._owned[owner]
        self._version += 1
        manifest["metadata"]["resourceVersion"] = str(self._version)
        self._tell("DELETED", manifest)
        uid = manifest["metadata"]["uid"]
        for child, held in list(self.objects.items()):
            if any(owner.get("uid") == uid for owner in held["metadata"].get("ownerReferences") or ()):
                self._remove(child)

    def _tell(self, event: str, manifest: Manifest) -> None:
        for listener in self._listeners:
            listener(event, copy.deepcopy(manifest))


def make_cache(manifests: Iterable[Manifest] = ()) -> ObjectCache:
    """A cache as the operator's, holding these objects."""
    cache = ObjectCache(watched=WATCHED, owner_uid_label=OWNER_UID_LABEL)
    for kind in WATCHED:
        cache.mark_listed(kind)
    for manifest in manifests:
        cache.put(manifest)
    return cache


def _skeleton(manifest: Manifest) -> Manifest:
    return {
        "apiVersion": manifest["apiVersion"],
        "kind": manifest["kind"],
        "metadata": {
            key: value for key, value in manifest["metadata"].items() if key in {"name", "namespace"} and value
        },
    }


def _without_server_fields(manifest: Manifest) -> Manifest:
    manifest = copy.deepcopy(manifest)
    for field in ("resourceVersion", "uid", "creationTimestamp", "generation", "managedFields"):
        manifest["metadata"].pop(field, None)
    if not manifest["metadata"].get("namespace"):
        manifest["metadata"].pop("namespace", None)
    if manifest["kind"] not in BY_KIND:
        raise NotFoundError(f"the server has no kind {manifest['kind']}", status=404, reason="NotFound")
    return manifest


def _selected(manifest: Manifest, label_selector: str | None) -> bool:
    if not label_selector:
        return True
    labels = manifest["metadata"].get("labels") or {}
    return all(labels.get(term.partition("=")[0]) == term.partition("=")[2] for term in label_selector.split(","))


def _has_fields(manifest: Manifest, field_selector: str | None) -> bool:
    for term in (field_selector or "").split(","):
        path, _, value = term.partition("=")
        field: Any = manifest
        for key in path.removesuffix("!").split(".") if path else ():
            field = (field or {}).get(key, "")
        if path and (field == value) is path.endswith("!"):
            return False
    return True


def _take_away(target: Manifest, before: Manifest, now: Manifest, others: list[Manifest]) -> None:
    """Remove what the manager owned before and does not want any more, unless another manager owns it too."""
    for key, value in before.items():
        elsewhere = [other[key] for other in others if key in other]
        if isinstance(value, dict):
            if isinstance(target.get(key), dict):
                _take_away(
                    target[key],
                    value,
                    now.get(key) if isinstance(now.get(key), dict) else {},
                    [other for other in elsewhere if isinstance(other, dict)],
                )
                if not target[key] and key not in now and not elsewhere:
                    del target[key]
        elif key not in now and not elsewhere:
            target.pop(key, None)


def _merge(target: Manifest, intent: Manifest) -> None:
    for key, value in intent.items():
        if isinstance(value, dict) and isinstance(target.get(key), dict):
            _merge(target[key], value)
        else:
            target[key] = copy.deepcopy(value)


def _json_merge(target: Manifest, patch: Manifest) -> None:
    for key, value in patch.items():
        if value is None:
            target.pop(key, None)
        elif isinstance(value, dict):
            if not isinstance(target.get(key), dict):
                target[key] = {}
            _json_merge(target[key], value)
        else:
            target[key] = value
