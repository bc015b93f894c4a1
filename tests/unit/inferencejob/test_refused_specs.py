"""Specs that the API server takes and the operator does not."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.job_world import CM_OUT, INLINE, PVC, PVC_OUT, World

EMBED = "/v1/embeddings"


def _on_data(path: str) -> Any:
    return {"persistentVolumeClaim": {"claimName": "data", "path": path}}


@pytest.mark.parametrize(
    ("source", "destination", "spec", "want"),
    [
        pytest.param(
            {**PVC, **INLINE},
            PVC_OUT,
            {},
            "exactly one of inline, configMap and persistentVolumeClaim; got 2",
            id="two sources",
        ),
        pytest.param(
            {}, PVC_OUT, {}, "exactly one of inline, configMap and persistentVolumeClaim; got 0", id="no source"
        ),
        pytest.param(PVC, {**PVC_OUT, **CM_OUT}, {}, "spec.output: exactly one of", id="two destinations"),
        pytest.param(PVC, {}, {}, "spec.output: exactly one of", id="no destination"),
        pytest.param(PVC, _on_data("in.jsonl"), {}, "'in.jsonl' is the input", id="output is the input"),
        pytest.param(PVC, _on_data("a/../b"), {}, "must name a file below", id="dots"),
        pytest.param(PVC, _on_data("dir/"), {}, "must name a file below", id="a directory"),
        pytest.param(
            {**PVC, "messageKey": "results"},
            PVC_OUT,
            {},
            "would take the place of spec.input.messageKey",
            id="keys collide",
        ),
        pytest.param(
            {**PVC, "systemPrompt": "x"},
            PVC_OUT,
            {"endpoint": EMBED},
            "spec.input.systemPrompt: /v1/embeddings takes none",
            id="system prompt",
        ),
        pytest.param(
            PVC,
            PVC_OUT,
            {"endpoint": EMBED, "sampling": {"topP": 0.5}},
            "spec.sampling.topP: /v1/embeddings does not sample",
            id="sampling",
        ),
        pytest.param(
            {"inline": {"rows": [{"prompt": "x" * 300_000}]}},
            PVC_OUT,
            {},
            "bytes; at most 262144",
            id="inline too large",
        ),
    ],
)
async def test_specs_that_are_refused(world: World, source: Any, destination: Any, spec: Any, want: str) -> None:
    world.add_service()
    world.add_job(source, destination, **spec)
    await world.reconcile()
    assert world.condition("Accepted")[:2] == ("False", "InvalidSpec")
    assert want in world.condition("Accepted")[2]
    assert world.condition("Failed")[:2] == ("True", "InvalidSpec")
    assert world.status["phase"] == "Failed"
    assert world.kube.of_kind("Job") == []


async def test_a_spec_of_a_newer_version_is_not_judged_for_good(world: World) -> None:
    world.add_service()
    world.add_job(endpoint="/v1/rerank")
    await world.reconcile()
    assert world.condition("Accepted")[1] == "InvalidSpec"
    assert "spec.endpoint" in world.condition("Accepted")[2]
    assert world.status["phase"] == "Pending"
