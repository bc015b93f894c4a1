"""The cache: newest wins, children by owner, lists prune."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from vllm_operator.engine.cache import ObjectCache
from vllm_operator.kube.kinds import Manifest, ObjectRef

OWNER = "example.org/owner"


def cache() -> ObjectCache:
    return ObjectCache(watched=["Pod", "Node"], owner_uid_label=OWNER)


def pod(name: str, version: int, uid: str | None = None, owner: str | None = None, **more: Any) -> Manifest:
    metadata: dict[str, Any] = {
        "name": name,
        "namespace": "ns",
        "uid": uid or f"uid-{name}",
        "resourceVersion": str(version),
    }
    if owner:
        metadata["labels"] = {OWNER: owner}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, **more}


REF = ObjectRef("Pod", "ns", "p")


def test_newest_wins_whatever_the_order() -> None:
    held = cache()
    assert held.put(pod("p", 9, spec={"a": 1}))
    assert not held.put(pod("p", 8, spec={"a": 0}))
    assert not held.put(pod("p", 9, spec={"a": 1}))
    assert held.put(pod("p", 10, spec={"a": 2}))
    found = held.get(REF)
    assert found is not None
    assert found["spec"] == {"a": 2}


@given(st.permutations(range(1, 8)))
def test_any_order_of_arrival_ends_with_the_newest(order: list[int]) -> None:
    held = cache()
    for version in order:
        held.put(pod("p", version, owner=f"owner-{version}"))
    assert [m["metadata"]["resourceVersion"] for m in held.list("Pod")] == ["7"]
    assert held.labelled("owner-7", "Pod")
    assert not any(held.labelled(f"owner-{version}", "Pod") for version in range(1, 7))


def test_a_late_answer_does_not_bring_a_deleted_object_back() -> None:
    held = cache()
    held.put(pod("p", 1))
    held.drop(REF, "uid-p")
    assert not held.put(pod("p", 2))
    assert held.get(REF) is None
    assert held.put(pod("p", 3, uid="the next one"))


def test_the_deletion_of_an_earlier_object_does_not_drop_the_later_one() -> None:
    held = cache()
    held.put(pod("p", 5, uid="new"))
    assert held.drop(REF, "old") is None
    assert held.get(REF) is not None


def test_children_by_owner_sorted_by_name() -> None:
    held = cache()
    for name in ("b", "a", "c"):
        held.put(pod(name, 1, owner="o"))
    held.put(pod("x", 1, owner="other"))
    assert [m["metadata"]["name"] for m in held.labelled("o", "Pod")] == ["a", "b", "c"]
    held.drop(ObjectRef("Pod", "ns", "b"))
    assert [m["metadata"]["name"] for m in held.labelled("o", "Pod")] == ["a", "c"]


def test_list_prunes_what_is_gone_but_not_what_is_newer() -> None:
    held = cache()
    held.put(pod("gone", 3))
    held.put(pod("kept", 4))
    held.put(pod("made-after-the-list", 12))
    taken, gone = held.replace("Pod", [pod("kept", 4), pod("new", 9)], "10")
    assert [m["metadata"]["name"] for m in taken] == ["new"]
    assert [m["metadata"]["name"] for m in gone] == ["gone"]
    assert [m["metadata"]["name"] for m in held.list("Pod")] == ["kept", "made-after-the-list", "new"]


def test_list_sees_that_an_object_was_replaced() -> None:
    held = cache()
    held.put(pod("p", 3, uid="old"))
    taken, gone = held.replace("Pod", [pod("p", 5, uid="new")], "6")
    assert ([m["metadata"]["uid"] for m in taken], gone) == (["new"], ())


def test_list_of_one_namespace_leaves_the_others() -> None:
    held = cache()
    held.put(pod("p", 1))
    _, gone = held.replace("Pod", [], "9", namespace="elsewhere")
    assert gone == ()


def test_synced_when_every_watched_kind_was_listed() -> None:
    held = cache()
    held.mark_listed("Pod")
    assert not held.synced
    held.mark_listed("Node")
    assert held.synced


def test_managed_fields_are_not_kept_and_slimming_is_applied() -> None:
    held = ObjectCache(["Pod"], OWNER, slim={"Pod": lambda m: {k: v for k, v in m.items() if k != "status"}})
    held.put(pod("p", 1, status={"big": 1}) | {"metadata": {**pod("p", 1)["metadata"], "managedFields": [1]}})
    found = held.get(REF)
    assert found is not None
    assert "status" not in found
    assert "managedFields" not in found["metadata"]


def test_unwatched_children_go_with_their_owner() -> None:
    held = ObjectCache(["Node"], OWNER)
    held.put(pod("p", 1, owner="o"))
    held.put(pod("q", 1, owner="other"))
    held.drop_unwatched_children("o")
    assert [m["metadata"]["name"] for m in held.list("Pod")] == ["q"]
