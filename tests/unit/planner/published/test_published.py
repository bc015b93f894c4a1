"""The planner against published counts of GPUs; ``README.md`` says how they were collected and what agreement is."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import pytest

from vllm_operator.planner.choice.candidate import Evaluator
from vllm_operator.planner.choice.layouts import layouts, power_of_two
from vllm_operator.planner.choice.legality import Legality
from vllm_operator.planner.choice.request import BATCHED_TOKENS_CANDIDATES, PlanRequest
from vllm_operator.planner.constraints.check import can_run_on, violations
from vllm_operator.planner.device import Device
from vllm_operator.planner.engine_settings import EngineSettings
from vllm_operator.planner.facts.config import model_facts
from vllm_operator.planner.inventory.pool import GpuPool
from vllm_operator.planner.inventory.products import product_named
from vllm_operator.planner.inventory.usable import product_usable_bytes
from vllm_operator.planner.layout import Layout
from vllm_operator_api.model import ModelFacts
from vllm_operator_api.quantities import BYTES_PER_GIB

Entry = Mapping[str, Any]

CLASSES: Final = ("minimum", "recommended", "too_small")
ENGINES: Final = ("vllm", "any", "sglang", "tensorrt-llm")
MAX_QUOTE_WORDS: Final = 25
MAX_REQUESTS: Final = 64
"""Requests at once where none were published: the planner's own."""
MAX_NODES: Final = 4
"""Of a published count."""
WANTED_AGREEMENT: Final = 0.95
WEIGHTS_SHARE: Final = 0.06
"""By which computed weights may differ from a published size: a checkpoint also has layers that are not loaded."""
CONFIGS: Final = Path(os.environ.get("BENCH_MODEL_CONFIGS") or Path(__file__).parents[5] / "shared" / "model-configs")
"""Real config.json files, where this machine has them: not part of the repository."""
ENTRIES: Final[tuple[Entry, ...]] = tuple(json.loads((Path(__file__).parent / "gpu_counts.json").read_text()))

DISAGREEMENTS: Final[Mapping[str, Mapping[str, str | None]]] = json.loads(
    (Path(__file__).parent / "disagreements.json").read_text()
)
"""By the id of the entry: why the planner says otherwise, and what else that was published says so too, if anything."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the planner says about the model, the GPU and the conditions of an entry."""

    fits: bool
    """The published layout is legal and fits; without published degrees, any layout of that many GPUs."""
    smallest: int | None
    """The smallest power of two of GPUs that fits, up to the published count's; None: none does."""


def plan_of(entry: Entry) -> Answer:
    """Ask the planner. A prediction that fits without the margin counts as a fit: so do published ones."""
    facts, pool, request = facts_of(entry), pool_of(entry), request_of(entry)
    if can_run_on(facts, request.settings, pool.device) is not None:
        return Answer(fits=False, smallest=None)
    evaluator = Evaluator(facts, request)

    def works(layout: Layout) -> bool:
        legal = not violations(facts, layout, request.settings, pool.device)
        return legal and evaluator.candidate(pool, layout).use.fits

    published = published_layout(entry)
    fits = any(map(works, layouts_of_count(entry) if published is None else [published]))
    fewer = (
        layout
        for layout in layouts(facts, request, pool, Legality(facts, request.settings))
        if layout.gpus < entry["gpus"]
    )
    smaller = (layout.gpus for layout in fewer if power_of_two(layout.gpus) and works(layout))
    return Answer(fits=fits, smallest=min(smaller, default=entry["gpus"] if fits else None))


def agrees(entry: Entry, answer: Answer) -> bool:
    """As defined in ``README.md``."""
    if entry["class"] == "too_small":
        return not answer.fits
    if entry["class"] == "minimum":
        return answer.fits and answer.smallest == entry["gpus"]
    return answer.fits


def facts_of(entry: Entry) -> ModelFacts:
    """The facts of the model, with the quantisation of the checkpoint that the entry is about."""
    name = entry.get("configFile")
    config = json.loads((CONFIGS / name).read_text()) if name else dict(entry["config"])
    for key, value in entry.get("configOverride", {}).items():
        if value is None:
            config.pop(key, None)
        else:
            config[key] = value
    return model_facts(config, source=entry["model"])


def pool_of(entry: Entry) -> GpuPool:
    """Nodes as published, as many as the largest count needs."""
    product = product_named(entry["product"])
    assert product is not None, entry["product"]
    return GpuPool(
        resource_name="amd.com/gpu" if product.vendor == "amd" else "nvidia.com/gpu",
        product=product.name,
        device=Device(vendor=product.vendor, compute_capability=product.compute_capability),
        usable_bytes=product_usable_bytes(product),
        gpus_per_node=entry["gpusPerNode"],
        nodes=MAX_NODES,
        link=product.link,
    )


def request_of(entry: Entry) -> PlanRequest:
    """One request of the assumed length, with the settings that were published and the planner's own for the others."""
    published = entry.get("settings", {})
    batched_tokens = published.get("maxNumBatchedTokens")
    settings = EngineSettings(
        max_length_tokens=entry["assumedLength"],
        max_requests=published.get("maxNumSeqs", MAX_REQUESTS),
        gpu_memory_utilization=published.get("gpuMemoryUtilization", 0.92),
        kv_cache_dtype=entry["precision"]["kvCacheDtype"] or "auto",
        dtype=entry["precision"]["dtype"] or "auto",
        enforce_eager=published.get("enforceEager", False),
    )
    return PlanRequest(
        resource_name=pool_of(entry).resource_name,
        settings=settings,
        batched_tokens_candidates=(batched_tokens,) if batched_tokens else BATCHED_TOKENS_CANDIDATES,
        allow_multi_node=True,
    )


def published_layout(entry: Entry) -> Layout | None:
    """The published degrees; None: only a count was published."""
    if entry["tensor"] is None:
        return None
    return Layout(
        tensor=entry["tensor"],
        pipeline=entry["pipeline"] or 1,
        data=entry["data"] or 1,
        expert_parallel=bool(entry["expert"]),
        nodes=entry["nodes"],
    )


def layouts_of_count(entry: Entry) -> list[Layout]:
    """Every cut of the published count into tensor parallelism inside a node and pipeline stages."""
    gpus, nodes = entry["gpus"], entry["nodes"]
    return [
        Layout(tensor=tensor, pipeline=gpus // tensor, nodes=nodes)
        for tensor in range(1, gpus // nodes + 1)
        if gpus % tensor == 0
    ]


@cache
def disagreements() -> tuple[str, ...]:
    """Ids of the entries that the planner does not agree with."""
    return tuple(entry["id"] for entry in ENTRIES if not agrees(entry, plan_of(entry)))


@pytest.fixture
def configs() -> Path:
    if not CONFIGS.is_dir():
        pytest.skip("BENCH_MODEL_CONFIGS names no folder of config.json files")
    return CONFIGS


@pytest.mark.parametrize("entry", ENTRIES, ids=[entry["id"] for entry in ENTRIES])
def test_an_entry_is_well_formed_and_has_a_source(entry: Entry) -> None:
    assert entry["class"] in CLASSES
    assert entry["engine"] in ENGINES
    assert ("config" in entry) != ("configFile" in entry)
    assert product_named(entry["product"]) is not None
    assert entry["source"]["url"].startswith("https://")
    assert 0 < len(entry["source"]["quote"].split()) <= MAX_QUOTE_WORDS
    assert entry["maxLength"] in (None, entry["assumedLength"])
    assert entry["gpus"] <= entry["gpusPerNode"] * entry["nodes"]
    assert entry["nodes"] <= MAX_NODES
    layout = published_layout(entry)
    assert layout is None or layout.gpus == entry["gpus"]


def test_entries_are_many_and_of_every_class() -> None:
    assert len({entry["id"] for entry in ENTRIES}) == len(ENTRIES) >= 40
    assert {entry["class"] for entry in ENTRIES} == set(CLASSES)


def test_computed_weights_are_the_published_ones(configs: Path) -> None:
    for entry in ENTRIES:
        if entry["weightsGiB"] is not None:
            computed = facts_of(entry).weights.total_bytes / BYTES_PER_GIB
            assert computed == pytest.approx(entry["weightsGiB"], rel=WEIGHTS_SHARE), entry["id"]


def test_the_planner_agrees_with_what_was_published(configs: Path) -> None:
    refuted = {name for name, cause in DISAGREEMENTS.items() if cause["refutedBy"]}
    standing = [entry for entry in ENTRIES if entry["id"] not in refuted]
    missed = set(disagreements()) - refuted

    assert 1 - len(missed) / len(standing) >= WANTED_AGREEMENT, missed


def test_every_disagreement_is_explained_and_no_other(configs: Path) -> None:
    assert set(disagreements()) == set(DISAGREEMENTS)
    assert all(cause["why"] for cause in DISAGREEMENTS.values())
