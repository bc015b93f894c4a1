"""From something that changed to the keys that must be looked at again. No I/O, no decisions about content."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from vllm_operator.engine.cache import ObjectCache
from vllm_operator.kube.kinds import (
    DEPLOYMENT,
    INFERENCE_JOB,
    JOB,
    LEADER_WORKER_SET,
    LLM_SERVICE,
    NODE,
    POD,
    SERVICE,
    Key,
    Manifest,
)
from vllm_operator.kube.kinds import ObjectRef as Ref
from vllm_operator_api.names import MANAGED_BY_LABEL, MANAGED_BY_VALUE, OWNER_KIND_LABEL, OWNER_NAME_LABEL

OWN_CHILDREN: Final = f"{MANAGED_BY_LABEL}={MANAGED_BY_VALUE}"
"""Label selector of the operator's own children."""
WATCHED: Final = (
    (NODE, ""),
    (LLM_SERVICE, ""),
    (INFERENCE_JOB, ""),
    (DEPLOYMENT, OWN_CHILDREN),
    (SERVICE, OWN_CHILDREN),
    (JOB, OWN_CHILDREN),
    (POD, OWN_CHILDREN),
)
"""Kinds and label selectors, in the order of the first list."""
WATCHED_WITH_GROUPS: Final = (*WATCHED, (LEADER_WORKER_SET, OWN_CHILDREN))
"""The same where the cluster has LeaderWorkerSets: a watch of a kind that does not exist fails for ever."""
_PARENTS: Final = frozenset({LLM_SERVICE.kind, INFERENCE_JOB.kind})


class Router:
    """Keeps the cache up to date and says which keys a change concerns.

    An LLMService also concerns the InferenceJobs that refer to it, and an InferenceJob its LLMService. A child
    concerns its owner. A node concerns every LLMService, if what a planner reads of it changed.
    """

    def __init__(
        self,
        cache: ObjectCache,
        enqueue: Callable[[Key], None],
        on_parent_gone: Callable[[Manifest], None],
        on_relisted: Callable[[], None],
        on_node_changed: Callable[[str], None] | None = None,
    ) -> None:
        """``on_relisted`` is called for each object that a watch lists because it begins (anew).

        ``on_node_changed`` is called with the name of a node before the services that it concerns are enqueued.
        """
        self._cache = cache
        self._enqueue = enqueue
        self._on_parent_gone = on_parent_gone
        self._on_relisted = on_relisted
        self._on_node_changed = on_node_changed
        self._keys_by_uid: dict[str, Key] = {}

    def observe(self, event_type: str | None, manifest: Manifest) -> None:
        """A watch event: ``ADDED``, ``MODIFIED``, ``DELETED``, or None for an object listed when the watch began."""
        ref = Ref.of(manifest)
        if event_type == "DELETED":
            self._cache.drop(ref, manifest["metadata"].get("uid"))
            self.changed("DELETED", manifest)
            return
        before = self._cache.get(ref)
        newer = self._cache.put(manifest)
        if event_type is None:
            self._on_relisted()
            if not newer:
                return
        if ref.kind == NODE.kind and before is not None and node_facts(before) == node_facts(manifest):
            return
        # An event of the operator's own write is no news to the cache, but may be to those who depend on the object.
        self.changed("MODIFIED", manifest)

    def changed(self, event_type: str, manifest: Manifest) -> None:
        """The cache took or dropped this object: enqueue whom it concerns."""
        if manifest["kind"] in _PARENTS:
            uid = manifest["metadata"]["uid"]
            if event_type == "DELETED":
                self._keys_by_uid.pop(uid, None)
                self._on_parent_gone(manifest)
            else:
                self._keys_by_uid[uid] = Key.of(manifest)
        elif manifest["kind"] == NODE.kind and self._on_node_changed is not None:
            self._on_node_changed(manifest["metadata"]["name"])
        for key in concerned(manifest, self._cache):
            self._enqueue(key)

    def services_changed(self) -> None:
        """Something changed that concerns every LLMService (which accelerators there are)."""
        for service in self._cache.list(LLM_SERVICE.kind):
            self._enqueue(Key.of(service))

    def parent_changed(self, uid: str) -> None:
        """Something outside the cluster's objects (the queue) changed about the custom resource of this uid."""
        key = self._keys_by_uid.get(uid)
        if key is not None:
            self._enqueue(key)

    def all_parents_changed(self) -> None:
        """Something changed that concerns every custom resource (the connection to the queue)."""
        for key in self._keys_by_uid.values():
            self._enqueue(key)


def concerned(manifest: Manifest, cache: ObjectCache) -> Iterable[Key]:
    """The keys that a change of this object concerns."""
    metadata = manifest["metadata"]
    namespace = metadata.get("namespace") or ""
    kind = manifest["kind"]
    if kind == NODE.kind:
        return tuple(Key.of(service) for service in cache.list(LLM_SERVICE.kind))
    if kind == LLM_SERVICE.kind:
        jobs = cache.list(INFERENCE_JOB.kind, namespace)
        return (Key.of(manifest), *(Key.of(job) for job in jobs if _service_name(job) == metadata["name"]))
    if kind == INFERENCE_JOB.kind:
        service = Key(LLM_SERVICE.kind, namespace, _service_name(manifest))
        return (Key.of(manifest), service) if cache.get(service) is not None else (Key.of(manifest),)
    labels = metadata.get("labels") or {}
    owner_kind, owner_name = labels.get(OWNER_KIND_LABEL), labels.get(OWNER_NAME_LABEL)
    if owner_kind in _PARENTS and owner_name:
        return (Key(owner_kind, namespace, owner_name),)
    return ()


def slim_node(node: Manifest) -> Manifest:
    """What is worth keeping of a node: its list of images alone can be 50 KB."""
    metadata, spec, status = node["metadata"], node.get("spec") or {}, node.get("status") or {}
    return {
        "apiVersion": node["apiVersion"],
        "kind": node["kind"],
        "metadata": {
            key: metadata[key]
            for key in ("name", "uid", "resourceVersion", "creationTimestamp", "deletionTimestamp", "labels")
            if key in metadata
        },
        "spec": {key: spec[key] for key in ("unschedulable", "taints") if key in spec},
        "status": {
            "allocatable": status.get("allocatable") or {},
            "capacity": status.get("capacity") or {},
            "conditions": [
                {key: condition.get(key) for key in ("type", "status", "reason")}
                for condition in status.get("conditions") or ()
                if condition.get("type") == "Ready"
            ],
        },
    }


def node_facts(node: Manifest) -> Manifest:
    """What of a node concerns services: labels, allocatable, schedulable, taints, Ready. Not its heartbeats."""
    slim = slim_node(node)
    return {
        "labels": slim["metadata"].get("labels") or {},
        "spec": slim["spec"],
        "status": slim["status"],
        "deleting": "deletionTimestamp" in slim["metadata"],
    }


def _service_name(job: Manifest) -> str:
    return str(((job.get("spec") or {}).get("serviceRef") or {}).get("name") or "")
