"""What the operator has seen of the cluster, in memory.

Fed from three sources: watch events, full lists (which also prune what vanished during a gap of a watch), and the
answers of the operator's own writes. The newest of them wins, whatever the order in which they arrive.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from vllm_operator.kube.kinds import Manifest, ObjectRef

_MAX_TOMBSTONES: Final = 8192
"""Deleted uids that are remembered, so that a late answer to a write does not bring a deleted object back."""


class ObjectCache:
    """Objects by reference; children also by the uid in their owner label.

    The manifests it returns are shared: read them, never change them. ``metadata.managedFields`` is left out of what
    is kept. Not thread-safe: it belongs to one event loop.
    """

    def __init__(
        self,
        watched: Iterable[str],
        owner_uid_label: str,
        slim: Mapping[str, Callable[[Manifest], Manifest]] | None = None,
    ) -> None:
        """``watched``: the kinds that are listed and watched, so that an absent object is known to be absent.

        Objects of other kinds get in by the answers of the operator's own writes only. ``slim`` gives, by kind, a
        function that returns what is worth keeping of an object.
        """
        self._watched = frozenset(watched)
        self._owner_uid_label = owner_uid_label
        self._slim = dict(slim or {})
        self._objects: dict[str, dict[str, dict[str, Manifest]]] = {}
        self._children: dict[tuple[str, str], dict[ObjectRef, Manifest]] = {}
        self._listed: set[str] = set()
        self._tombstones: OrderedDict[str, None] = OrderedDict()

    @property
    def watched(self) -> frozenset[str]:
        """Kinds that are listed and watched."""
        return self._watched

    @property
    def synced(self) -> bool:
        """Whether every watched kind was listed at least once."""
        return self._listed >= self._watched

    def mark_listed(self, kind: str) -> None:
        """A complete list of this kind went in."""
        self._listed.add(kind)

    def get(self, ref: ObjectRef) -> Manifest | None:
        """The newest known state of one object."""
        return self._objects.get(ref.kind, {}).get(ref.namespace, {}).get(ref.name)

    def list(self, kind: str, namespace: str | None = None) -> tuple[Manifest, ...]:
        """All objects of a kind (of one namespace, or of all), sorted by namespace and name."""
        namespaces = self._objects.get(kind, {})
        if namespace is not None:
            return _sorted(namespaces.get(namespace, {}).values())
        return tuple(m for name in sorted(namespaces) for m in _sorted(namespaces[name].values()))

    def labelled(self, owner_uid: str, kind: str) -> tuple[Manifest, ...]:
        """Children of a kind whose owner label holds this uid, sorted by name."""
        return _sorted(self._children.get((kind, owner_uid), {}).values())

    def count(self, kind: str) -> int:
        """Number of objects of a kind."""
        return sum(len(names) for names in self._objects.get(kind, {}).values())

    def kinds(self) -> frozenset[str]:
        """Kinds of which there is or was at least one object, and all watched ones."""
        return self._watched | self._objects.keys()

    def put(self, manifest: Manifest) -> bool:
        """Take this state unless a newer one (or the object's deletion) is known; True when it was taken."""
        ref = ObjectRef.of(manifest)
        uid = manifest["metadata"].get("uid")
        if uid in self._tombstones:
            return False
        known = self.get(ref)
        if known is not None and not _is_newer(manifest, known):
            return False
        if known is not None:
            self._unindex(ref, known)
        slim = _without_managed_fields(manifest)
        if ref.kind in self._slim:
            slim = self._slim[ref.kind](slim)
        self._objects.setdefault(ref.kind, {}).setdefault(ref.namespace, {})[ref.name] = slim
        owner_uid = self._owner_uid(slim)
        if owner_uid:
            self._children.setdefault((ref.kind, owner_uid), {})[ref] = slim
        return True

    def drop(self, ref: ObjectRef, uid: str | None = None) -> Manifest | None:
        """Forget an object that is gone; with ``uid`` only if it is this very one. Returns what was forgotten."""
        if uid is not None:
            self._bury(uid)
        known = self.get(ref)
        if known is None or (uid is not None and known["metadata"].get("uid") != uid):
            return None
        if uid is None and (known_uid := known["metadata"].get("uid")):
            self._bury(known_uid)
        self._unindex(ref, known)
        namespaces = self._objects[ref.kind]
        del namespaces[ref.namespace][ref.name]
        if not namespaces[ref.namespace]:
            del namespaces[ref.namespace]
        return known

    def drop_unwatched_children(self, owner_uid: str) -> None:
        """Forget the children, of kinds that are not watched, of an owner that is gone: no event will ever say so."""
        for kind, uid in [key for key in self._children if key[1] == owner_uid and key[0] not in self._watched]:
            for ref in list(self._children.get((kind, uid), {})):
                self.drop(ref)

    def replace(
        self, kind: str, items: Iterable[Manifest], resource_version: str, namespace: str | None = None
    ) -> tuple[tuple[Manifest, ...], tuple[Manifest, ...]]:
        """Take a complete list: returns what was new or newer, and what was forgotten because it is not on the list.

        Objects that are newer than the list stay. ``items`` must be all there are of the kind (in that namespace).
        """
        taken: list[Manifest] = []
        present: set[tuple[ObjectRef, str | None]] = set()
        for item in items:
            present.add((ObjectRef.of(item), item["metadata"].get("uid")))
            if self.put(item):
                taken.append(item)
        gone: list[Manifest] = []
        for known in self.list(kind, namespace):
            metadata = known["metadata"]
            ref = ObjectRef.of(known)
            if (ref, metadata.get("uid")) in present or _version(metadata) > _version(
                {"resourceVersion": resource_version}
            ):
                continue
            self.drop(ref, metadata.get("uid"))
            gone.append(known)
        return tuple(taken), tuple(gone)

    def _owner_uid(self, manifest: Manifest) -> str | None:
        labels = manifest["metadata"].get("labels") or {}
        owner_uid: str | None = labels.get(self._owner_uid_label)
        return owner_uid

    def _unindex(self, ref: ObjectRef, manifest: Manifest) -> None:
        owner_uid = self._owner_uid(manifest)
        if owner_uid is None:
            return
        children = self._children.get((ref.kind, owner_uid), {})
        children.pop(ref, None)
        if not children:
            self._children.pop((ref.kind, owner_uid), None)

    def _bury(self, uid: str) -> None:
        self._tombstones[uid] = None
        if len(self._tombstones) > _MAX_TOMBSTONES:
            self._tombstones.popitem(last=False)


def _sorted(manifests: Iterable[Manifest]) -> tuple[Manifest, ...]:
    return tuple(sorted(manifests, key=lambda manifest: str(manifest["metadata"]["name"])))


def _version(metadata: Manifest) -> int:
    """A resource version as a number (KEP-5504: versions of one resource type are comparable integers); 0 when none."""
    text = str(metadata.get("resourceVersion") or "")
    return int(text) if text.isdecimal() else 0


def _is_newer(manifest: Manifest, known: Manifest) -> bool:
    version = _version(manifest["metadata"])
    return version == 0 or version > _version(known["metadata"])


def _without_managed_fields(manifest: Manifest) -> Manifest:
    metadata = manifest["metadata"]
    if "managedFields" not in metadata:
        return manifest
    return {**manifest, "metadata": {key: value for key, value in metadata.items() if key != "managedFields"}}
