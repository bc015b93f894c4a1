"""Real vLLM engines on CPU, started with a fixed budget: what they log and report is what the planner predicts.

vLLM lives in an environment of its own (``hack/engine-venv``, about 2.3 GB, made on first use).
"""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Final

import pytest
from tests.differential.engine_program import ask_engine, engine_environment, engine_python
from tests.differential.kv_cache_comparison import engine_settings
from tests.differential.tiny_models import TINY_MODELS, write_model

from vllm_operator.planner.device import Device
from vllm_operator.planner.facts.config import model_facts
from vllm_operator.planner.kv_cache.capacity import KvCapacity, kv_capacity
from vllm_operator.planner.kv_cache.demand import kv_demand
from vllm_operator.planner.layout import Layout

pytestmark = pytest.mark.timeout(1800)
CPU: Final = Device(vendor="cpu")
BUDGET: Final = {"max_model_len": 4096, "max_num_batched_tokens": 1024, "max_num_seqs": 16}
KV_CACHE_BYTES: Final = 64 * 2**20
OTHER_SETTINGS: Final[dict[str, dict[str, Any]]] = {
    "gqa": {"dtype": "float32", "block_size": 64},
    "sliding-5-to-1": {"max_num_batched_tokens": 2048, "max_model_len": 8192},
    "mamba2": {"enable_prefix_caching": False},
    "chunked": {"max_model_len": 1000},
}
"""A second start of some models."""


def prediction(name: str, arguments: dict[str, Any]) -> tuple[KvCapacity, int]:
    """Capacity and tokens per block that the planner predicts."""
    facts = model_facts(TINY_MODELS[name], source=name)
    settings = engine_settings(arguments)
    demand = kv_demand(facts, Layout(), settings, CPU)
    assert demand is not None
    return kv_capacity(demand, KV_CACHE_BYTES, settings.max_length_tokens), demand.block_tokens


def labels(capacity: KvCapacity, block_tokens: int) -> dict[str, str]:
    """The labels of ``vllm:cache_config_info`` for a prediction."""
    return {
        "num_gpu_blocks": str(capacity.blocks),
        "block_size": str(block_tokens),
        "kv_cache_size_tokens": str(capacity.tokens),
        "kv_cache_max_concurrency": str(capacity.concurrency),
    }


def test_engines_say_what_was_predicted(tmp_path: Path) -> None:
    starts = {name: (name, BUDGET) for name in TINY_MODELS}
    starts |= {f"{name} again": (name, {**BUDGET, **more}) for name, more in OTHER_SETTINGS.items()}
    questions = [
        {
            "id": start,
            "model": str(write_model(name, tmp_path)),
            "arguments": {**arguments, "kv_cache_memory_bytes": KV_CACHE_BYTES},
        }
        for start, (name, arguments) in starts.items()
    ]
    answers = ask_engine("engine_starts.py", questions, tmp_path)
    said = {start: {k: v for k, v in answer.items() if k != "id"} for start, answer in answers.items()}
    expected = {}
    for start, (name, arguments) in starts.items():
        capacity, block_tokens = prediction(name, arguments)
        line = {
            "tokens": capacity.tokens,
            "length": arguments["max_model_len"],
            "concurrency": f"{capacity.concurrency:.2f}",
        }
        expected[start] = {"line": line, "metric": labels(capacity, block_tokens)}
    assert said == expected


def test_server_reports_it_as_a_metric(tmp_path: Path) -> None:
    model = write_model("gqa", tmp_path)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        engine_python(), "-m", "vllm.entrypoints.openai.api_server", "--model", str(model), "--load-format", "dummy",
        "--skip-tokenizer-init", "--enforce-eager", "--host", "127.0.0.1", "--port", str(port),
        "--max-model-len", "4096", "--max-num-batched-tokens", "1024", "--max-num-seqs", "16",
        "--kv-cache-memory-bytes", str(KV_CACHE_BYTES), "--distributed-executor-backend", "uni",
    ]  # fmt: skip
    environment = {
        **engine_environment(), "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "OMP_NUM_THREADS": "1",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    }  # fmt: skip
    log = tmp_path / "server.log"
    with log.open("w") as out:
        server = subprocess.Popen(command, env=environment, stdout=out, stderr=subprocess.STDOUT)
    try:
        metrics = _metrics(f"http://127.0.0.1:{port}/metrics", server, log)
    finally:
        server.send_signal(signal.SIGTERM)
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
    info = re.search(r"^vllm:cache_config_info\{(.*)\}", metrics, re.MULTILINE)
    assert info is not None
    reported = dict(re.findall(r'(\w+)="([^"]*)"', info.group(1)))
    expected = labels(*prediction("gqa", BUDGET))
    assert {label: reported[label] for label in expected} == expected


def _metrics(url: str, server: subprocess.Popen[bytes], log: Path) -> str:
    """The metrics, once the server answers."""
    for _ in range(300):
        assert server.poll() is None, log.read_text()[-4000:]
        try:
            with urllib.request.urlopen(url, timeout=5) as reply:
                return str(reply.read().decode())
        except (urllib.error.URLError, OSError):
            time.sleep(1)
    raise AssertionError(log.read_text()[-4000:])
