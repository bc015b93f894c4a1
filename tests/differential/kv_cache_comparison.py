"""The planner's prediction of the KV cache beside what vLLM's own functions say, for one question."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from vllm_operator.planner.device import Device
from vllm_operator.planner.engine_settings import EngineSettings
from vllm_operator.planner.facts.config import model_facts
from vllm_operator.planner.kv_cache.capacity import kv_capacity, longest_that_fits
from vllm_operator.planner.kv_cache.demand import kv_demand
from vllm_operator.planner.layout import Layout

AVAILABLE_BYTES = 200 * 2**30
SCARCE_SHARE = 7
"""The length that fits is asked for with this part of the bytes, where it mostly is shorter than the model's."""


@dataclass
class Comparison:
    """Counts over many questions, and what differed."""

    equal: int = 0
    refused: dict[str, str] = field(default_factory=dict)
    """Question to vLLM's own reason."""
    different: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Question to the values that differ: the planner's, then vLLM's."""


def question(
    name: str, config: dict[str, Any], device: str, *, tensor: int = 1, pipeline: int = 1, **settings: Any
) -> dict[str, Any]:
    """One question for ``engine_answers``; ``settings`` are fields of vLLM's EngineArgs."""
    text = config.get("text_config") or config.get("llm_config") or config
    longest = text.get("max_position_embeddings") or config.get("max_position_embeddings") or 8192
    varied = "".join(f" {key}={value}" for key, value in settings.items())
    return {
        "id": f"{name} on {device} tensor={tensor} pipeline={pipeline}{varied}",
        "config": config,
        "device": device,
        "tensor": tensor,
        "pipeline": pipeline,
        "available_bytes": AVAILABLE_BYTES,
        "settings": {
            "max_model_len": min(32768, longest), "max_num_batched_tokens": 8192, "max_num_seqs": 64, **settings,
        },
    }  # fmt: skip


def predicted(asked: dict[str, Any]) -> dict[str, Any]:
    """What the planner says to the same question, under vLLM's names."""
    facts = model_facts(asked["config"], source="config.json")
    layout = Layout(tensor=asked["tensor"], pipeline=asked["pipeline"])
    settings = engine_settings(asked["settings"])
    device = Device(vendor="cpu")
    if asked["device"] != "cpu":
        major, minor = asked["device"].split(".")
        device = Device(vendor="nvidia", compute_capability=(int(major), int(minor)))
    demand = kv_demand(facts, layout, settings, device)
    assert demand is not None
    capacity = kv_capacity(demand, asked["available_bytes"], settings.max_length_tokens)
    return {
        "bytes_per_block": demand.bytes_per_block,
        "blocks_per_request": demand.blocks_per_request,
        "block_tokens": demand.block_tokens,
        "blocks": capacity.blocks,
        "tokens": capacity.tokens,
        "concurrency": capacity.concurrency,
        "longest": longest_that_fits(facts, layout, settings, device, asked["available_bytes"] // SCARCE_SHARE),
    }


def engine_settings(arguments: dict[str, Any]) -> EngineSettings:
    """The planner's settings for these fields of vLLM's EngineArgs."""
    return EngineSettings(
        max_length_tokens=arguments["max_model_len"],
        batched_tokens=arguments["max_num_batched_tokens"],
        max_requests=arguments["max_num_seqs"],
        kv_cache_dtype=arguments.get("kv_cache_dtype", "auto"),
        block_tokens=arguments.get("block_size"),
        dtype=arguments.get("dtype", "auto"),
        prefix_caching=arguments.get("enable_prefix_caching", True),
    )


def compare(questions: Iterable[dict[str, Any]], answers: dict[str, dict[str, Any]]) -> Comparison:
    """Hold every prediction against vLLM's answer."""
    result = Comparison()
    for asked in questions:
        answer = answers[asked["id"]]
        if "error" in answer:
            result.refused[asked["id"]] = answer["error"]
            continue
        ours = predicted(asked)
        different = {key: [value, answer[key]] for key, value in ours.items() if value != answer[key]}
        if different:
            result.different[asked["id"]] = {**different, "groups": answer["groups"], "backends": answer["backends"]}
        else:
            result.equal += 1
    return result
