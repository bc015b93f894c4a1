"""Starts real vLLM engines on CPU, one after the other, and writes what each of them said of its KV cache.

    python engine_starts.py QUESTIONS ANSWERS      # both are files of JSON lines

A question is ``{"id", "model": directory, "arguments": {fields of vLLM's EngineArgs}}``. An answer has the start-up
line's numbers, the labels of ``vllm:cache_config_info``, or ``error``. Engines run in this process, without a server.
"""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import os
import re
import sys
from pathlib import Path
from typing import Any

os.environ.update(
    HF_HUB_OFFLINE="1", VLLM_NO_USAGE_STATS="1", DO_NOT_TRACK="1", VLLM_ENABLE_V1_MULTIPROCESSING="0",
    VLLM_CPU_OMP_THREADS_BIND="nobind", OMP_NUM_THREADS="1", VLLM_LOGGING_COLOR="0",
)  # fmt: skip

from prometheus_client import REGISTRY
from vllm import LLM, logger
from vllm.distributed import cleanup_dist_env_and_memory
from vllm.model_executor.models import registry

# A model class is inspected in this process: a subprocess for each costs 10 s and guards a device that is not there.
registry._run_in_subprocess = lambda function: function()
START_UP_LINE = re.compile(
    r"CPU KV cache size: ([\d,]+) tokens, Maximum concurrency for ([\d,]+) tokens .*?: ([\d.]+)x"
)
LABELS = ("num_gpu_blocks", "block_size", "kv_cache_size_tokens", "kv_cache_max_concurrency")


def start(model: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Start one engine, read what it says, and stop it."""
    logger._print_info_once.cache_clear()
    spoken: list[str] = []
    records = logging.getLogRecordFactory()

    def listen(*args: Any, **kwargs: Any) -> logging.LogRecord:
        # Not a handler: vLLM configures logging anew while it starts, which drops the handlers of others.
        record = records(*args, **kwargs)
        spoken.append(record.getMessage())
        return record

    logging.setLogRecordFactory(listen)
    llm = None
    try:
        llm = LLM(
            model=model, load_format="dummy", skip_tokenizer_init=True, enforce_eager=True, disable_log_stats=False,
            distributed_executor_backend="uni", **arguments,
        )  # fmt: skip
        line = START_UP_LINE.search("\n".join(spoken))
        if line is None:
            return {"error": "no start-up line"}
        info = next(
            sample.labels
            for family in REGISTRY.collect()
            for sample in family.samples
            if sample.name == "vllm:cache_config_info"
        )
        tokens, length, concurrency = (part.replace(",", "") for part in line.groups())
        return {
            "line": {"tokens": int(tokens), "length": int(length), "concurrency": concurrency},
            "metric": {label: info[label] for label in LABELS},
        }
    finally:
        logging.setLogRecordFactory(records)
        if llm is not None:
            with contextlib.suppress(Exception):
                llm.llm_engine.engine_core.shutdown()
        for collector in {id(c): c for c in REGISTRY._collector_to_names}.values():
            if any(name.startswith("vllm:") for name in REGISTRY._collector_to_names[collector]):
                REGISTRY.unregister(collector)
        del llm
        gc.collect()
        cleanup_dist_env_and_memory()


def main() -> None:
    """Command line: the file of questions and the file of answers."""
    with Path(sys.argv[2]).open("w") as out:
        for line in Path(sys.argv[1]).read_text().splitlines():
            question = json.loads(line)
            try:
                said = start(question["model"], question["arguments"])
            except Exception as problem:  # noqa: BLE001  a refusal is an answer
                said = {"error": f"{type(problem).__name__}: {problem}"[:500]}
            out.write(json.dumps({"id": question["id"], **said}) + "\n")
            out.flush()


if __name__ == "__main__":
    main()
