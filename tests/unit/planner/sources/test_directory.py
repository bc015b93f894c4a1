"""The model-facts reader on directories of a volume."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.support.model_configs import LLAMA, llama, safetensors

from vllm_operator.planner.sources.reader import read_and_report
from vllm_operator_api.model import ModelFacts, WeightsSource
from vllm_operator_api.runtime import MAX_TERMINATION_MESSAGE_BYTES, ModelFactsConfig, ModelFactsResult

INDEX = "model.safetensors.index.json"


@dataclass
class Volume:
    """A mounted volume with one model directory."""

    root: Path
    report: Path
    path: str = "models/llama"

    @property
    def model(self) -> Path:
        return self.root / self.path

    def write(self, name: str, content: bytes | dict[str, Any]) -> None:
        file = self.model / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())

    def read(self) -> tuple[int, ModelFactsResult]:
        code = read_and_report(ModelFactsConfig(path=str(self.model)), root=self.root, report=self.report)
        message = self.report.read_bytes()
        assert len(message) <= MAX_TERMINATION_MESSAGE_BYTES
        return code, ModelFactsResult.model_validate_json(message)

    def facts(self) -> ModelFacts:
        code, result = self.read()
        assert code == 0
        assert result.facts is not None, result.error
        return result.facts

    def error(self) -> tuple[str, str]:
        code, result = self.read()
        assert code == 0
        assert result.error is not None
        return result.error.reason, result.error.message


@pytest.fixture
def volume(tmp_path: Path) -> Volume:
    (tmp_path / "volume").mkdir()
    return Volume(tmp_path / "volume", tmp_path / "termination-log")


def test_sums_the_tensors_of_the_files_that_the_index_names(volume: Volume) -> None:
    volume.write("config.json", llama(num_nextn_predict_layers=1))
    volume.write("1.safetensors", safetensors({"model.embed_tokens.weight": 60, "model.layers.0.x": 40}))
    volume.write("2.safetensors", safetensors({"model.layers.31.x": 50, "model.layers.32.x": 999}))
    volume.write("consolidated.safetensors", safetensors({"layers.0.x": 1000}))
    volume.write("original/model.safetensors", safetensors({"a": 1000}))
    volume.write(INDEX, {"weight_map": {"a": "1.safetensors", "b": "2.safetensors"}})
    facts = volume.facts()
    assert facts.source == "models/llama"
    assert (facts.weights.total_bytes, facts.weights.source) == (150, WeightsSource.HEADERS)
    assert facts.weights.embedding_bytes == 60


def test_single_file_in_the_layout_of_the_hubs_cache(volume: Volume) -> None:
    blob = volume.root / "blobs" / "abc"
    blob.parent.mkdir()
    blob.write_bytes(safetensors({"a": 70}))
    volume.write("config.json", LLAMA)
    (volume.model / "model.safetensors").symlink_to(os.path.relpath(blob, volume.model))
    assert volume.facts().weights.total_bytes == 70


def test_a_file_with_too_many_tensors_for_its_header_counts_whole(volume: Volume) -> None:
    volume.write("config.json", LLAMA)
    content = safetensors({f"model.layers.0.experts.{number}": 1 for number in range(90_000)})
    volume.write("model.safetensors", content)
    weights = volume.facts().weights
    assert (weights.total_bytes, weights.source) == (len(content), WeightsSource.FILES)


def test_mistrals_own_format(volume: Volume) -> None:
    volume.write(
        "params.json",
        {"dim": 4096, "n_layers": 2, "n_heads": 32, "n_kv_heads": 8, "head_dim": 128, "hidden_dim": 14336,
         "vocab_size": 32768},
    )  # fmt: skip
    volume.write("consolidated.safetensors", safetensors({"tok_embeddings.weight": 30, "layers.0.x": 20}))
    facts = volume.facts()
    assert (facts.architecture, facts.layers, facts.weights.total_bytes) == ("MistralForCausalLM", 2, 50)


def test_quantisation_in_a_file_of_its_own(volume: Volume) -> None:
    volume.write("config.json", LLAMA)
    volume.write("hf_quant_config.json", {"quantization": {"quant_algo": "NVFP4", "exclude_modules": ["lm_head"]}})
    volume.write("model.safetensors", safetensors({"a": 70}))
    quantization = volume.facts().quantization
    assert quantization is not None
    assert quantization.method == "modelopt_fp4"


def test_directory_that_does_not_exist(volume: Volume) -> None:
    assert volume.error() == (
        "ModelNotFound",
        "the directory models/llama does not exist on the volume; correct spec.model.id",
    )


def test_directory_without_a_configuration(volume: Volume) -> None:
    volume.write("readme.md", b"")
    reason, message = volume.error()
    assert reason == "ModelNotFound"
    assert "models/llama has no config.json" in message


def test_unreadable_configuration(volume: Volume) -> None:
    volume.write("config.json", b"{'single': 'quotes'}")
    volume.write("model.safetensors", safetensors({"a": 1}))
    reason, message = volume.error()
    assert reason == "ModelConfigInvalid"
    assert "config.json is not JSON" in message


def test_huge_configuration(volume: Volume) -> None:
    volume.write("config.json", b" " * (50 * 1024 * 1024))
    volume.write("model.safetensors", safetensors({"a": 1}))
    assert "config.json has 4194305 bytes; at most 4194304 are read" in volume.error()[1]


def test_missing_shard(volume: Volume) -> None:
    volume.write("config.json", LLAMA)
    volume.write("1.safetensors", safetensors({"a": 1}))
    volume.write(INDEX, {"weight_map": {"a": "1.safetensors", "b": "2.safetensors"}})
    reason, message = volume.error()
    assert reason == "ModelConfigInvalid"
    assert message == "the file models/llama/2.safetensors is missing; copy the model again, whole"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "has only 0 bytes"),
        ((2**62).to_bytes(8, "little") + b"{}", "says that its header has 4611686018427387904 bytes"),
        ((100).to_bytes(8, "little") + b"{}", "ends within its header"),
        (safetensors({"a": 100})[:-10], "the tensor 'a' has the place [0, 100], which is not in the file"),
        ((2).to_bytes(8, "little") + b"xx", "is not JSON"),
    ],
)
def test_damaged_weights(volume: Volume, content: bytes, says: str) -> None:
    volume.write("config.json", LLAMA)
    volume.write("model.safetensors", content)
    reason, message = volume.error()
    assert reason == "ModelConfigInvalid"
    assert says in message


def test_pickles_only(volume: Volume) -> None:
    volume.write("config.json", LLAMA)
    volume.write("pytorch_model.bin", b"x")
    reason, message = volume.error()
    assert reason == "UnsafeWeights"
    assert "pytorch_model.bin" in message
    assert "convert them to safetensors" in message


def test_no_weights(volume: Volume) -> None:
    volume.write("config.json", LLAMA)
    assert volume.error()[0] == "ModelConfigInvalid"


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", INDEX, "hf_quant_config.json"])
def test_links_that_leave_the_volume(volume: Volume, name: str) -> None:
    outside = volume.root.parent / "outside"
    outside.write_bytes(json.dumps(LLAMA).encode())
    volume.write("config.json", LLAMA)
    volume.write("model.safetensors", safetensors({"a": 1}))
    (volume.model / name).unlink(missing_ok=True)
    (volume.model / name).symlink_to(outside)
    reason, message = volume.error()
    assert reason == "ModelConfigInvalid"
    assert "leads out of the volume" in message


def test_model_directory_that_is_a_link_out_of_the_volume(volume: Volume) -> None:
    outside = volume.root.parent / "outside"
    outside.mkdir()
    volume.model.parent.mkdir()
    volume.model.symlink_to(outside)
    assert "leads out of the volume" in volume.error()[1]


def test_pipe_instead_of_a_file(volume: Volume) -> None:
    volume.write("config.json", LLAMA)
    os.mkfifo(volume.model / "model.safetensors")
    assert "is not a regular file" in volume.error()[1]


def test_facts_that_are_too_long_for_the_message_are_an_error(volume: Volume) -> None:
    volume.path = "/".join(["d" * 250] * 4)
    groups = [group for group in range(1, 2520) if 2520 % group == 0][:26]
    blocks = [{"attention": {"n_heads_in_group": group}, "ffn": {"ffn_mult": 1}} for group in groups] * 39
    volume.write("config.json", llama(block_configs=blocks, num_attention_heads=2520))
    volume.write("model.safetensors", safetensors({"a": 1}))
    reason, message = volume.error()
    assert reason == "ModelConfigInvalid"
    assert "at most 4096 can be reported" in message
