"""Time of one plan over real model configurations and ten pools, weight of the import, and 1,000 services at once."""

from __future__ import annotations

import asyncio
import gc
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.bench.report import Report, SkippedError
from tests.support.models import pool

from vllm_operator.llmservice.planning import Planned, PlanningInputs, check_spec, make_plan
from vllm_operator.planner.engine_options import default_engine_options
from vllm_operator.planner.facts.config import model_facts
from vllm_operator.planner.facts.document import parse_json
from vllm_operator.planner.inventory.pool import Inventory
from vllm_operator.planner.problem import PlanProblem
from vllm_operator.planner.sources.location import ModelLocation
from vllm_operator_api.model import ModelFacts
from vllm_operator_api.v1alpha1.llmservice import LLMServiceSpec

REPOSITORY = Path(__file__).parents[2]
CONFIGS = Path(os.environ.get("BENCH_MODEL_CONFIGS") or REPOSITORY.parent / "shared" / "model-configs")
"""A folder of real config.json files, if this machine has one: not part of the repository."""
REPEATS = 7
SERVICES = 1000
LENGTH_TOKENS = 32768
PRODUCTS = (
    "Tesla-T4",
    "NVIDIA-L4",
    "NVIDIA-A10G",
    "NVIDIA-A100-SXM4-40GB",
    "NVIDIA-L40S",
    "NVIDIA-A100-SXM4-80GB",
    "NVIDIA-H100-80GB-HBM3",
    "NVIDIA-H200",
    "NVIDIA-B200",
    "NVIDIA-B300-SXM6-AC",
)
TARGET_PLAN_MS = 5.0
TARGET_IMPORT_MS = 50.0
TARGET_HOLD_MS = 20.0
STANDARD = "import dataclasses, enum, json, typing, hashlib"
"""What any program of the kind has imported."""


def run() -> None:
    """Print all of it."""
    if not CONFIGS.is_dir():
        raise SkippedError("BENCH_MODEL_CONFIGS names no folder of config.json files")
    paths = sorted(CONFIGS.glob("*.json"))
    inputs = PlanningInputs(
        inventory=Inventory(pools=tuple(pool(product, nodes=4) for product in PRODUCTS)),
        options=default_engine_options(),
    )
    reading: list[float] = []
    planning: list[float] = []
    planned = 0
    everything: list[Callable[[], object]] = []
    for path in paths:
        content = path.read_bytes()
        facts = read_facts(content, path.name)
        spec, location = spec_for(facts)
        plan = partial(make_plan, spec, location, facts, inputs)
        reading.append(median_seconds(partial(read_facts, content, path.name)))
        planned += isinstance(plan(), Planned)
        planning.append(median_seconds(plan))
        everything.append(plan)
    gc.collect()
    gc.freeze()  # as the operator does
    holds = asyncio.run(plan_services(everything))
    planner = [import_seconds(STANDARD, "vllm_operator.planner.choice.choose") for _ in range(REPEATS)]
    pydantic = [import_seconds(STANDARD, "pydantic.main") for _ in range(REPEATS)]

    title = f"planner: {len(paths)} real configurations, {len(PRODUCTS)} pools"
    report = Report(title, ("step", "median", "p99", "max"))
    report.row("config.json to facts", *milliseconds(reading))
    report.row("facts and pools to a plan", *milliseconds(planning))
    report.row(f"hold of the loop, {SERVICES} services planned anew", *milliseconds(holds))
    report.row("import of the planner", *milliseconds(planner))
    report.row("import of pydantic, to compare", *milliseconds(pydantic))
    report.note(f"{planned} of {len(paths)} got a plan, the others a reason why not")
    median_ms, hold_ms = statistics.median(planning) * 1000, max(holds) * 1000
    import_ms = statistics.median(planner) * 1000
    met = median_ms < TARGET_PLAN_MS
    report.target("median of a plan", f"{median_ms:.2f} ms", f"< {TARGET_PLAN_MS:.0f} ms", met=met)
    report.target("longest hold", f"{hold_ms:.1f} ms", f"<= {TARGET_HOLD_MS:.0f} ms", met=hold_ms <= TARGET_HOLD_MS)
    met = import_ms < TARGET_IMPORT_MS
    report.target("import, beside the standard library", f"{import_ms:.0f} ms", f"< {TARGET_IMPORT_MS:.0f} ms", met=met)
    report.show()


def read_facts(content: bytes, name: str) -> ModelFacts:
    """What the model-facts reader does with a config.json."""
    return model_facts(parse_json(content, name), source=name)


def spec_for(facts: ModelFacts) -> tuple[LLMServiceSpec, ModelLocation]:
    """A service of this model with a usual length."""
    length = min(LENGTH_TOKENS, facts.max_position_embeddings or LENGTH_TOKENS)
    spec = LLMServiceSpec.model_validate({"model": {"id": "pvc://models/any", "maxLength": length}})
    location = check_spec(spec, default_engine_options())
    assert not isinstance(location, PlanProblem), location
    return spec, location


async def plan_services(plans: list[Callable[[], object]]) -> list[float]:
    """Seconds that each of 1,000 services, the configurations in turn, holds the loop, as workers do it."""
    holds = []
    for index in range(SERVICES):
        started_at = time.perf_counter()
        plans[index % len(plans)]()
        holds.append(time.perf_counter() - started_at)
        await asyncio.sleep(0)
    return holds


def import_seconds(first: str, module: str) -> float:
    """CPU seconds of the import of a module in a fresh interpreter that has run ``first``."""
    program = f"{first}; import time; at = time.process_time(); import {module}; print(time.process_time() - at)"
    path = os.pathsep.join(str(REPOSITORY / part) for part in ("crds", "operator"))
    done = subprocess.run(
        [sys.executable, "-c", program], env={"PYTHONPATH": path}, capture_output=True, text=True, check=True
    )
    return float(done.stdout)


def median_seconds(step: Callable[[], object]) -> float:
    """Of ``REPEATS`` runs: what another process took of the CPU meanwhile is not the planner's."""
    seconds = []
    for _ in range(REPEATS):
        started_at = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - started_at)
    return statistics.median(seconds)


def milliseconds(seconds: list[float]) -> tuple[str, ...]:
    """Median, 99th percentile and maximum."""
    ranked = sorted(seconds)
    shown = (statistics.median(ranked), ranked[int((len(ranked) - 1) * 0.99)], ranked[-1])
    return tuple(f"{value * 1000:.3f} ms" for value in shown)
