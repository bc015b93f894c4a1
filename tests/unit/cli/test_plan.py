"""``kubectl-llm plan`` for given accelerators: its verdicts, its JSON and its exit status."""

from __future__ import annotations

import json
import os
import re
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.unit.cli.commands import Commands
from tests.unit.cli.model_files import DENSE, LARGE, MISTRAL, write

H100 = "NVIDIA-H100-80GB-HBM3:8"
KEYS = {
    "feasible", "reason", "message", "tensor", "pipeline", "data", "gpus", "nodes", "product", "confidence",
    "legalTensor", "predicted", "candidates",
}  # fmt: skip
"""Of the interface that other tools rely on."""
PREDICTED_KEYS = {
    "weightsGiB", "overheadGiB", "kvCacheGiB", "kvCacheTokens", "maxConcurrency", "maxLengthThatFits",
}  # fmt: skip
CANDIDATE_KEYS = {"tensor", "pipeline", "data", "product", "fits", "reason"}


def arguments(config: Path, *more: object, length: int = 8192, accelerator: str = H100) -> list[object]:
    return ["plan", "--model-config", config, "--max-length", length, "--accelerator", accelerator, *more, "-o", "json"]


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def test_a_model_that_fits_one_gpu(llm: Commands, tmp_path: Path) -> None:
    answer = llm(*arguments(write(tmp_path, DENSE)))
    found = answer.document
    assert (answer.status, answer.err) == (0, "")
    assert found.keys() >= KEYS
    assert (found["feasible"], found["reason"]) == (True, "Planned")
    assert (found["tensor"], found["pipeline"], found["data"], found["gpus"], found["nodes"]) == (1, 1, 1, 1, 1)
    assert (found["product"], found["confidence"]) == ("NVIDIA-H100-80GB-HBM3", "Medium")
    assert found["legalTensor"] == [1, 2, 4, 8]
    assert found["message"].startswith("tensor=1 is enough")


def test_predicted_numbers_are_numbers_and_add_up(llm: Commands, tmp_path: Path) -> None:
    predicted = llm(*arguments(write(tmp_path, DENSE), accelerator="any=79.18:1")).document["predicted"]
    assert predicted.keys() == PREDICTED_KEYS
    assert all(is_number(value) for value in predicted.values())
    assert predicted["weightsGiB"] == pytest.approx(14.96, rel=0.01)
    total = predicted["weightsGiB"] + predicted["overheadGiB"] + predicted["kvCacheGiB"]
    assert total == pytest.approx(79.18 * 0.92, abs=0.01)
    assert predicted["maxConcurrency"] == pytest.approx(predicted["kvCacheTokens"] / 8192, abs=0.01)
    assert predicted["maxLengthThatFits"] == 131072  # memory would hold more: the model does not allow it


def test_the_weights_are_said_to_be_computed_unless_they_are_given(llm: Commands, tmp_path: Path) -> None:
    config = write(tmp_path, DENSE)
    computed = llm(*arguments(config)).document
    given = llm(*arguments(config, "--weights-gib", "30.5")).document
    assert (computed["weightsSource"], given["weightsSource"]) == ("computed", "given")
    assert "weights computed from the configuration" in computed["factsFrom"]
    assert given["predicted"]["weightsGiB"] == pytest.approx(30.5, rel=0.01)


def test_candidates_are_bounded_and_complete(llm: Commands, tmp_path: Path) -> None:
    found = llm(*arguments(write(tmp_path, LARGE))).document
    candidates = found["candidates"]
    assert 1 < len(candidates) <= 10
    assert all(candidate.keys() == CANDIDATE_KEYS for candidate in candidates)
    chosen = candidates[0]
    assert chosen["fits"]
    assert (chosen["tensor"], chosen["pipeline"]) == (found["tensor"], found["pipeline"])
    assert any(not candidate["fits"] and "short of" in candidate["reason"] for candidate in candidates)


def test_a_model_that_fits_nowhere(llm: Commands, tmp_path: Path) -> None:
    answer = llm(*arguments(write(tmp_path, LARGE), accelerator="NVIDIA-L4:2"))
    found = answer.document
    assert (answer.status, answer.err) == (3, "")
    assert (found["feasible"], found["reason"]) == (False, "InsufficientGPUMemory")
    assert [found[key] for key in ("tensor", "pipeline", "data", "gpus", "nodes", "product")] == [None] * 6
    assert found["predicted"]["weightsGiB"] > 20  # of what comes closest
    assert re.search(r"short of \d+\.\d GiB per GPU", found["message"])


def test_more_requests_at_once_than_fit(llm: Commands, tmp_path: Path) -> None:
    answer = llm(*arguments(write(tmp_path, DENSE), "--concurrency", 4000, accelerator="NVIDIA-L4:1"))
    assert (answer.status, answer.document["reason"]) == (3, "ConcurrencyUnmet")


def test_concurrency_asks_for_more_gpus(llm: Commands, tmp_path: Path) -> None:
    config = write(tmp_path, DENSE)
    one = llm(*arguments(config, length=32768)).document
    many = llm(*arguments(config, "--concurrency", 40, length=32768)).document
    assert one["gpus"] < many["gpus"]
    assert many["predicted"]["maxConcurrency"] >= 40


def test_a_tensor_degree_that_vllm_refuses(llm: Commands, tmp_path: Path) -> None:
    answer = llm(*arguments(write(tmp_path, DENSE), "--tensor", 3))
    found = answer.document
    assert (answer.status, found["feasible"], found["reason"]) == (3, False, "InvalidParallelism")
    assert found["legalTensor"] == [1, 2, 4, 8]
    assert "32 attention heads" in found["message"]
    assert found["predicted"] is None


def test_given_degrees_are_kept(llm: Commands, tmp_path: Path) -> None:
    found = llm(*arguments(write(tmp_path, DENSE), "--tensor", 2, "--pipeline", 2)).document
    assert (found["tensor"], found["pipeline"], found["gpus"]) == (2, 2, 4)


def test_several_nodes_are_for_models_that_one_does_not_hold(llm: Commands, tmp_path: Path) -> None:
    config = write(tmp_path, LARGE)
    two_nodes = llm(*arguments(config, accelerator="NVIDIA-L4:4x2")).document
    forbidden = llm(*arguments(config, "--no-allow-multi-node", accelerator="NVIDIA-L4:4x2"))
    assert (two_nodes["feasible"], two_nodes["nodes"], two_nodes["gpus"]) == (True, 2, 8)
    assert forbidden.status == 3


def test_a_replica_does_not_span_nodes_that_are_not_there(llm: Commands, tmp_path: Path) -> None:
    assert llm(*arguments(write(tmp_path, DENSE), "--tensor", 16)).document["reason"] == "InvalidParallelism"


def test_the_cheaper_of_several_accelerators(llm: Commands, tmp_path: Path) -> None:
    found = llm(*arguments(write(tmp_path, DENSE), "--accelerator", "NVIDIA-L40S:8")).document
    assert found["product"] == "NVIDIA-L40S"
    assert set(found["products"]) == {"NVIDIA-L40S", "NVIDIA-H100-80GB-HBM3"}


def test_engine_settings_reach_the_prediction(llm: Commands, tmp_path: Path) -> None:
    config = write(tmp_path, DENSE)

    def tokens(*more: object) -> int:
        number: int = llm(*arguments(config, *more)).document["predicted"]["kvCacheTokens"]
        return number

    usual = tokens()
    assert tokens("--kv-cache-dtype", "fp8") > 1.9 * usual
    assert tokens("--gpu-memory-utilization", "0.5") < 0.6 * usual
    assert tokens("--quantization", "fp8") > usual
    assert tokens("--max-num-batched-tokens", 2048) > usual
    assert tokens("--enforce-eager") > usual
    assert tokens("--max-num-seqs", 2048) < usual


def test_a_length_that_the_model_does_not_allow(llm: Commands, tmp_path: Path) -> None:
    answer = llm(*arguments(write(tmp_path, DENSE), length=131_073))
    assert (answer.status, answer.document["reason"]) == (3, "ModelConfigInvalid")
    assert "131072" in answer.document["message"]


def test_an_architecture_that_vllm_lacks_is_planned_with_low_confidence(llm: Commands, tmp_path: Path) -> None:
    answer = llm(*arguments(write(tmp_path, DENSE, architectures=["LlamoForCausalLM"])))
    assert (answer.status, answer.document["confidence"]) == (0, "Low")
    assert "has no architecture LlamoForCausalLM" in answer.document["factsFrom"]


def test_mistral_files_and_directories(llm: Commands, tmp_path: Path) -> None:
    params = write(tmp_path, MISTRAL, name="params.json")
    from_file, from_directory = llm(*arguments(params)).document, llm(*arguments(tmp_path)).document
    assert from_file["legalTensor"] == [1, 2, 4, 8]
    assert from_directory["predicted"] == from_file["predicted"]


def test_a_directory_with_weights_tells_their_size(llm: Commands, tmp_path: Path) -> None:
    write(tmp_path, DENSE)
    header = json.dumps({"model.norm.weight": {"dtype": "BF16", "shape": [2**32], "data_offsets": [0, 2**33]}}).encode()
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(len(header).to_bytes(8, "little") + header)
    os.truncate(weights, 8 + len(header) + 2**33)
    found = llm(*arguments(tmp_path)).document
    assert (found["weightsSource"], found["predicted"]["weightsGiB"]) == ("headers", pytest.approx(8, rel=0.01))
    assert llm(*arguments(tmp_path, "--weights-gib", 9)).document["weightsSource"] == "given"


def gguf(directory: Path, name: str) -> Path:
    """A file whose header says all that is needed, with one tensor of 1 GiB."""
    numbers = {
        "llama.embedding_length": 4096,
        "llama.block_count": 32,
        "llama.attention.head_count": 32,
        "llama.attention.head_count_kv": 8,
        "llama.feed_forward_length": 14336,
        "llama.context_length": 131072,
        "llama.vocab_size": 128256,
    }

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value)) + value.encode()

    pairs = text("general.architecture") + struct.pack("<I", 8) + text("llama")
    pairs += b"".join(text(key) + struct.pack("<II", 4, number) for key, number in numbers.items())
    tensor = text("w") + struct.pack("<IQIQ", 1, 2**29, 1, 0)
    path = directory / name
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 1, len(numbers) + 1) + pairs + tensor)
    return path


def test_gguf_files(llm: Commands, tmp_path: Path) -> None:
    whole = gguf(tmp_path, "model.gguf")
    found = llm(*arguments(whole)).document
    assert (found["legalTensor"], found["weightsSource"], found["confidence"]) == ([1, 2, 4, 8], "headers", "Low")
    assert found["predicted"]["weightsGiB"] == pytest.approx(1, rel=0.01)
    given = llm(*arguments(whole, "--weights-gib", 5)).document
    assert given["predicted"]["weightsGiB"] == pytest.approx(5, rel=0.01)


def test_a_gguf_model_in_parts_is_as_large_as_all_of_them(llm: Commands, tmp_path: Path) -> None:
    first = gguf(tmp_path, "model-00001-of-00002.gguf")
    second = tmp_path / "model-00002-of-00002.gguf"
    missing = llm(*arguments(first))
    second.touch()
    os.truncate(second, 7 << 30)
    found = llm(*arguments(first)).document
    assert (missing.status, "No such file" in missing.err) == (2, True)
    assert found["predicted"]["weightsGiB"] == pytest.approx(7, rel=0.01)


def test_a_model_without_a_kv_cache(llm: Commands, tmp_path: Path) -> None:
    config = write(tmp_path, DENSE, architectures=["BertModel"], model_type="bert", max_position_embeddings=512)
    predicted = llm(*arguments(config, length=512)).document["predicted"]
    assert predicted["weightsGiB"] > 0
    assert [predicted[key] for key in ("kvCacheGiB", "kvCacheTokens", "maxConcurrency", "maxLengthThatFits")] == [
        None
    ] * 4
    assert "KV cache" not in llm(*arguments(config, length=512)[:-2]).out


def test_the_same_question_has_the_same_answer_to_the_byte(llm: Commands, tmp_path: Path) -> None:
    question = arguments(write(tmp_path, LARGE), "--concurrency", 3)
    assert llm(*question).out == llm(*question).out


def test_text_says_what_json_says(llm: Commands, tmp_path: Path) -> None:
    question = arguments(write(tmp_path, LARGE))
    found, text = llm(*question).document, llm(*question[:-2], "--explain").out
    assert f"tensor={found['tensor']}: {found['gpus']} GPUs, NVIDIA-H100-80GB-HBM3" in text
    assert found["message"] in " ".join(text.split())
    rows = [line.split() for line in text.splitlines() if " NVIDIA-H100-80GB-HBM3 " in line and line[:1] == " "]
    assert [str(found["tensor"]), "1", "1", "1", "NVIDIA-H100-80GB-HBM3", "yes", "chosen"] in rows
    assert max(map(len, text.splitlines())) <= 110


def test_the_module_is_a_command(tmp_path: Path) -> None:
    config = write(tmp_path, DENSE)
    command = [sys.executable, "-m", "vllm_operator.cli.llm", *map(str, arguments(config, "--tensor", 3))]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stderr) == (3, "")
    assert '"reason": "InvalidParallelism"' in done.stdout
