"""Time of one plan, over a collection of real model configurations."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.bench.report import Report, SkippedError
from tests.support.builders import make_node

from vllm_operator.llmservice.planning import Planned, check_spec, make_plan
from vllm_operator.planner.engine_options import load_engine_options
from vllm_operator.planner.facts import model_facts, parse_json
from vllm_operator.planner.inventory import Inventory, gpu_inventory
from vllm_operator.planner.problem import PlanProblem
from vllm_operator_api.runtime import ModelFacts
from vllm_operator_api.v1alpha1.llmservice import LLMServiceSpec

CONFIGS = Path(os.environ.get("BENCH_MODEL_CONFIGS") or Path(__file__).parents[3] / "shared" / "model-configs")
"""A folder of real config.json files, if this machine has one: not part of the repository."""
REPEATS = 20
NODES_PER_PRODUCT = 25
PRODUCTS = (
    ("NVIDIA-L4", 23034, 8),
    ("NVIDIA-A100-SXM4-80GB", 81920, 8),
    ("NVIDIA-H100-80GB-HBM3", 81559, 8),
    ("NVIDIA-H200", 143771, 8),
)
TARGET_MEDIAN_MS = 1.0


def run() -> None:
    """Print the time of an inventory, of reading a configuration and of a plan."""
    if not CONFIGS.is_dir():
        raise SkippedError("BENCH_MODEL_CONFIGS names no folder of config.json files")
    paths = sorted(CONFIGS.glob("*.json"))
    nodes = [
        make_node(f"{product}-{index}").gpus(gpus).product(product, memory_mib).build()
        for product, memory_mib, gpus in PRODUCTS
        for index in range(NODES_PER_PRODUCT)
    ]
    inventory = gpu_inventory(nodes, "nvidia.com/gpu")
    options = load_engine_options()
    # A short context: what is measured is the search, not that most of these need more GPUs than one node has.
    spec = LLMServiceSpec.model_validate({"model": {"id": "pvc://models/any", "maxLength": 4096}})
    location = check_spec(spec, options)
    assert not isinstance(location, PlanProblem), location

    reading: list[float] = []
    planning: list[float] = []
    planned = 0
    for path in paths:
        content = path.read_bytes()
        facts = read_facts(content, path.name)
        reading.append(median_seconds(partial(read_facts, content, path.name)))
        planned += isinstance(make_plan(spec, location, facts, inventory, options), Planned)
        planning.append(median_seconds(partial(make_plan, spec, location, facts, inventory, options)))
    counting = median_seconds(partial(gpu_inventory, nodes, "nvidia.com/gpu"))

    report = Report(f"planner: {len(paths)} real configurations, {len(nodes)} nodes", ("step", "median", "p99", "max"))
    report.row("nodes to pools of GPUs", *milliseconds([counting]))
    report.row("config.json to facts", *milliseconds(reading))
    report.row("facts and pools to a plan", *milliseconds(planning))
    report.note(f"{planned} of {len(paths)} got a plan on {pools(inventory)}, the others a reason why not")
    median_ms = statistics.median(planning) * 1000
    report.target("median of a plan", f"{median_ms:.3f} ms", f"<= {TARGET_MEDIAN_MS:.0f} ms", met=median_ms <= 1)
    report.show()


def read_facts(content: bytes, name: str) -> ModelFacts:
    """What the model-facts reader does with a config.json."""
    return model_facts(parse_json(content, name), weights_bytes=60 * 10**9, source=name)


def median_seconds(step: Callable[[], object]) -> float:
    """Of ``REPEATS`` runs: what another process took of the CPU meanwhile is not the planner's."""
    seconds = []
    for _ in range(REPEATS):
        started_at = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - started_at)
    return statistics.median(seconds)


def milliseconds(seconds: list[float]) -> tuple[str, ...]:
    """Median, 99th percentile and maximum over the configurations."""
    ranked = sorted(seconds)
    shown = (statistics.median(ranked), ranked[int((len(ranked) - 1) * 0.99)], ranked[-1])
    return tuple(f"{value * 1000:.3f} ms" for value in shown)


def pools(inventory: Inventory) -> str:
    """The GPUs there are, for a reader."""
    return ", ".join(pool.product.removeprefix("NVIDIA-") for pool in inventory.pools)
