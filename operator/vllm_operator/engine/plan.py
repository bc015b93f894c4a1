"""What a pure ``plan`` function returns: the writes to make, and when to look again."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from vllm_operator.kube.kinds import Manifest, ObjectRef


@dataclass(frozen=True, slots=True, kw_only=True)
class MergePatch:
    """A JSON merge patch of one object (labels and annotations of a pod, for instance)."""

    ref: ObjectRef
    body: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Deletion:
    """Delete this very object (``uid``), not a later one of the same name."""

    ref: ObjectRef
    uid: str
    grace_period_seconds: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Writes in the order: delete, create, apply, patch. Empty when everything is as it should be.

    ``apply`` holds the full intent for every child that should exist; the executor skips those that are already so.
    ``create`` holds objects that must not exist yet and are never changed.
    """

    apply: tuple[Manifest, ...] = ()
    create: tuple[Manifest, ...] = ()
    patch: tuple[MergePatch, ...] = ()
    delete: tuple[Deletion, ...] = ()
    requeue_after_seconds: float | None = field(default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A write that the API server refused for good, or a name that belongs to somebody else."""

    ref: ObjectRef
    message: str
    conflict: bool = False
    """The object exists and its controller is not ours: nothing was written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What the executor did: number of writes, and what was refused."""

    writes: int = 0
    failures: tuple[Failure, ...] = ()
