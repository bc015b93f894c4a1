"""What vLLM itself says of the KV cache of a model: a program that runs inside the engine's environment.

    python engine_answers.py QUESTIONS ANSWERS      # both are files of JSON lines

Every question is ``{"config": {...} or a path, "device": "cpu" or "9.0", "tensor": 1, "pipeline": 1, "settings":
{...}, "available_bytes": N}``; all of one file are of one device. Every answer repeats the question's ``id`` and holds
either ``error``, vLLM's own reason to refuse, or the numbers that its engine would log.
"""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import Any

SECONDS_PER_QUESTION = 120


def _out_of_time(*_: Any) -> None:
    raise TimeoutError(f"no answer in {SECONDS_PER_QUESTION} seconds")


def _reason(problem: BaseException) -> str:
    """First meaningful line of an error."""
    text = str(problem)
    if "Value error, " in text:
        text = text.split("Value error, ", 1)[1].split(" [type=", 1)[0]
    return f"{type(problem).__name__}: {text.strip().splitlines()[0] if text.strip() else ''}"[:300]


def _describe(group: Any) -> list[Any]:
    """One group of layers: kind, layers, tokens per block, bytes of a page."""
    from vllm.v1.kv_cache_interface import iter_layer_specs

    specs = list(iter_layer_specs(group.kv_cache_spec))
    kinds = sorted({type(spec).__name__ for spec in specs})
    pages = sorted({spec.page_size_bytes for spec in specs})
    return ["+".join(kinds), len(group.layer_names), group.kv_cache_spec.block_size, pages]


def answer(question: dict[str, Any]) -> dict[str, Any]:
    """Build every pipeline stage, and ask vLLM's own functions as its engine core does."""
    from engine_models import build
    from vllm.config import set_current_vllm_config
    from vllm.distributed.kv_transfer.kv_connector.utils import get_current_attn_backends
    from vllm.v1.attention.backends.utils import get_supported_kv_cache_layouts, resolve_kv_cache_layout
    from vllm.v1.core import kv_cache_utils
    from vllm.v1.engine.core import register_all_kvcache_specs

    config = question["config"]
    stages = [
        build(
            Path(config) if isinstance(config, str) else config,
            tensor=question["tensor"],
            pipeline=question["pipeline"],
            stage=stage,
            keep_quantization=False,
            **question["settings"],
        )
        for stage in range(question["pipeline"])
    ]
    vllm_config = stages[0].vllm_config
    register_all_kvcache_specs(vllm_config)
    specs = [stage.kv_cache_specs for stage in stages]
    if not any(specs):
        return {"bytes_per_block": 0}
    with set_current_vllm_config(vllm_config):
        backends = [backend for stage in stages for backend in get_current_attn_backends(stage.vllm_config)]
        layouts = [layout.name for layout in get_supported_kv_cache_layouts(backends)]
        layout = resolve_kv_cache_layout(vllm_config, [layouts], [s for stage in specs for s in stage.values()])
        available = [question["available_bytes"]] * len(stages)
        caches = kv_cache_utils.get_kv_cache_configs(vllm_config, specs, available)
        per_block = [kv_cache_utils._pool_bytes_per_block(vllm_config, cache.kv_cache_groups) for cache in caches]
        needed = [kv_cache_utils._max_memory_usage_bytes_from_groups(vllm_config, c.kv_cache_groups) for c in caches]
        tokens, concurrency = kv_cache_utils.get_kv_cache_capacity(vllm_config, caches[0])
        longest = min(
            kv_cache_utils._estimate_max_model_len_from_groups(
                vllm_config, cache.kv_cache_groups, question["available_bytes"] // 7 - bytes_of_null
            )
            for cache, bytes_of_null in zip(caches, per_block, strict=True)
        )
    worst = max(range(len(stages)), key=lambda i: per_block[i])
    return {
        "bytes_per_block": per_block[worst],
        "blocks_per_request": needed[worst] // per_block[worst],
        # As v1/engine/core.py sets it, for the metric's label.
        "block_tokens": min(group.kv_cache_spec.block_size for group in caches[worst].kv_cache_groups),
        "blocks": caches[0].num_blocks,
        "tokens": tokens,
        "concurrency": concurrency,
        "longest": longest,
        "kv_cache_dtype": vllm_config.cache_config.cache_dtype,
        "layout": layout.name,
        "backends": sorted({backend.get_name() for backend in backends}),
        "groups": [_describe(group) for group in caches[worst].kv_cache_groups],
    }


def main() -> None:
    """Command line: the file of questions and the file of answers."""
    signal.signal(signal.SIGALRM, _out_of_time)
    questions = [json.loads(line) for line in Path(sys.argv[1]).read_text().splitlines()]
    device = questions[0]["device"]
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    if device != "cpu":
        from pretended_gpu import pretend

        pretend(*(int(part) for part in device.split(".")))
    with Path(sys.argv[2]).open("w") as out:
        for question in questions:
            signal.alarm(SECONDS_PER_QUESTION)
            try:
                said = answer(question)
            except Exception as problem:  # noqa: BLE001  a refusal is an answer
                said = {"error": _reason(problem)}
            signal.alarm(0)
            out.write(json.dumps({"id": question["id"], **said}) + "\n")
            out.flush()


if __name__ == "__main__":
    main()
