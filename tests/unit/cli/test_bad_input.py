"""What is typed or given wrong: one line on stderr that has the value, and status 2."""

from __future__ import annotations

import json
import os
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from tests.unit.cli.commands import Answer, Commands
from tests.unit.cli.model_files import DENSE, MISTRAL, write

MIB = 1 << 20


def refused(answer: Answer, *says: str) -> None:
    assert (answer.status, answer.out) == (2, "")
    assert answer.err.endswith("\n")
    assert answer.err.count("\n") == 1
    assert [text for text in says if text not in answer.err] == []


@pytest.mark.parametrize(
    ("accelerator", "says"),
    [
        ("warp-drive:8", "the product 'warp-drive' is not known"),
        ("a100:8", "stands for several products: NVIDIA-A100-SXM4-40GB (39.4 GiB)"),
        ("NVIDIA-L4", "it must be PRODUCT[=USABLE_GIB]:PER_NODE[xNODES]"),
        ("", "it must be PRODUCT"),
        (":8", "it must be PRODUCT"),
        ("NVIDIA-L4:8:8", "it must be PRODUCT"),
        ("NVIDIA-L4\n:8", "it must be PRODUCT"),
        ("NVIDIA-L4:0", "'0' accelerators per node"),
        ("NVIDIA-L4:-1", "'-1' accelerators per node"),
        ("NVIDIA-L4:many", "'many' accelerators per node"),
        ("NVIDIA-L4:100000", "'100000' accelerators per node"),
        ("NVIDIA-L4:٨", "'٨' accelerators per node"),
        ("NVIDIA-L4:8x0", "'0' nodes"),
        ("NVIDIA-L4:8x", "'' nodes"),
        ("NVIDIA-L4:8x9999999999999999999999", "nodes is not a whole number"),
        ("gpu=0:8", "'0' is not a memory"),
        ("gpu=-80:8", "'-80' is not a memory"),
        ("gpu=inf:8", "'inf' is not a memory"),
        ("gpu=nan:8", "'nan' is not a memory"),
        ("gpu=1e9:8", "'1e9' is not a memory"),
        ("gpu=:8", "'' is not a memory"),
        ("NVIDIA-A100-SXM4-40GB-MIG-tiny:7", "has no size such as 1g.10gb"),
    ],
)
def test_accelerators(llm: Commands, tmp_path: Path, accelerator: str, says: str) -> None:
    config = write(tmp_path, DENSE)
    answer = llm("plan", "--model-config", config, "--max-length", 8192, "--accelerator", accelerator)
    refused(answer, says)


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("--max-length", "0", "'0' is not a whole number from 1 to 16777216"),
        ("--max-length", "1e6", "'1e6' is not a whole number"),
        ("--max-length", "99999999999999999999", "is not a whole number"),
        ("--concurrency", "0", "'0'"),
        ("--tensor", "0", "'0' is not a whole number from 1"),
        ("--tensor", "-2", "'-2'"),
        ("--tensor", "two", "'two'"),
        ("--pipeline", "1.5", "'1.5'"),
        ("--data", "0", "'0'"),
        ("--max-num-seqs", "0", "'0'"),
        ("--max-num-batched-tokens", "0", "'0'"),
        ("--gpu-memory-utilization", "0", "'0' is not a share"),
        ("--gpu-memory-utilization", "1.01", "'1.01' is not a share"),
        ("--gpu-memory-utilization", "nan", "'nan' is not a share"),
        ("--weights-gib", "0", "'0' is not a number of GiB"),
        ("--weights-gib", "-3", "'-3' is not a number of GiB"),
        ("--weights-gib", "inf", "'inf' is not a number of GiB"),
        ("--quantization", "magic", "'magic' is none of"),
        ("--dtype", "int3", "'int3' is none of auto, bfloat16"),
        ("--kv-cache-dtype", "fp7", "'fp7' is none of auto"),
        ("-o", "yaml", "'yaml' is not one of"),
        ("--context", "there", "--context and --namespace are for -f"),
        ("--unheard-of", "1", "No such option: --unheard-of"),
    ],
)
def test_options(llm: Commands, tmp_path: Path, option: str, value: str, says: str) -> None:
    config = write(tmp_path, DENSE)
    good = ["plan", "--model-config", config, "--max-length", 8192, "--accelerator", "NVIDIA-L4:8"]
    refused(llm(*good, option, value), says)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "Missing command"),
        (["plane"], "No such command 'plane'"),
        (["plan"], "plan needs --model-config, --max-length and --accelerator, or -f"),
        (["plan", "extra"], "No such command 'extra'"),
        (["plan", "--tensor"], "requires an argument"),
        (["plan", "--tensor", "2", "kv"], "--tensor belongs after 'kv'"),
        (["plan", "-f", "service.yaml", "--tensor", "2"], "--tensor cannot be used with -f"),
        (["plan", "-f", "absent.yaml"], "-f absent.yaml: there is no such file"),
        (["plan", "kv", "--tensor", "1"], "plan kv needs --model-config and --available-gib and --max-length"),
        (["plan", "kv", "--device", "tpu"], "'tpu' is neither cuda nor cpu"),
        (["plan", "kv", "--available-gib", "nan"], "'nan' is not a number of GiB"),
        (["plan", "kv", "--block-size", "0"], "'0' is not a whole number"),
    ],
)
def test_usage(llm: Commands, arguments: list[str], says: str) -> None:
    refused(llm(*arguments), says)


def plan(llm: Commands, path: Path) -> Answer:
    return llm("plan", "--model-config", path, "--max-length", 8192, "--accelerator", "NVIDIA-L4:8")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"num_hidden_layers": None}, "has no num_hidden_layers"),
        ({"num_hidden_layers": -4}, "num_hidden_layers=-4"),
        ({"num_hidden_layers": 10**12}, "num_hidden_layers=1000000000000"),
        ({"num_hidden_layers": 10**6}, "layers"),
        ({"hidden_size": None}, "has no hidden_size"),
        ({"hidden_size": float("nan")}, "hidden_size=nan"),
        ({"hidden_size": float("inf")}, "hidden_size=inf"),
        ({"num_attention_heads": 0}, "num_attention_heads=0"),
        ({"num_attention_heads": "many"}, "num_attention_heads=many"),
        ({"num_key_value_heads": 64}, "num_key_value_heads=64"),
        ({"vocab_size": 10**400}, "vocab_size=a number of 1329 bits"),
        ({"vocab_size": None}, "has no vocab_size"),
        ({"architectures": None}, "names no architecture"),
        ({"quantization_config": {"quant_method": "magic"}}, "quant_method=magic"),
    ],
)
def test_values_of_a_configuration(llm: Commands, tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    path = write(tmp_path, DENSE, **changes)
    refused(plan(llm, path), str(path), says)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (json.dumps(DENSE)[:99], "is not JSON"),
        ("", "is not JSON"),
        ("[1, 2]", "is not a JSON object"),
        ("\x00\xff", "is not JSON"),
        ('{"a": 1, "a": 2}', "names the key 'a' twice"),
        ('{"a": ' + "[" * 100_000 + "]" * 100_000 + "}", "is nested too deep"),
        ('{"a": [' + "[]," * 1_000_000 + "[]]}", "values, more than any model's"),
    ],
)
def test_files_that_are_no_configuration(llm: Commands, tmp_path: Path, content: str, says: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(content)
    refused(plan(llm, path), says)


def test_what_is_no_file(llm: Commands, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    circle = tmp_path / "circle"
    circle.symlink_to(circle)
    empty = tmp_path / "empty"
    empty.mkdir()
    refused(plan(llm, tmp_path / "absent.json"), "absent.json: No such file or directory")
    refused(plan(llm, pipe), "it is no regular file")
    refused(plan(llm, Path("/dev/zero")), "/dev/zero: it is no regular file")
    refused(plan(llm, circle), "symbolic links")
    refused(plan(llm, empty), "it has no config.json, no params.json and no *.gguf file")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(llm: Commands, tmp_path: Path) -> None:
    path = write(tmp_path, DENSE)
    path.chmod(0)
    refused(plan(llm, path), "Permission denied")


def test_a_header_that_claims_exabytes(llm: Commands, tmp_path: Path) -> None:
    write(tmp_path, DENSE)
    (tmp_path / "model.safetensors").write_bytes((1 << 62).to_bytes(8, "little") + b"{}")
    refused(plan(llm, tmp_path), "4611686018427387904")
    gguf = tmp_path / "model.gguf"
    gguf.write_bytes(b"GGUF" + (3).to_bytes(4, "little") + b"\xff" * 64)
    refused(plan(llm, gguf), "18446744073709551615 tensors")


def test_pickles_are_refused(llm: Commands, tmp_path: Path) -> None:
    write(tmp_path, DENSE)
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    refused(plan(llm, tmp_path), "pickles")


def test_a_params_file_with_an_unknown_quantisation(llm: Commands, tmp_path: Path) -> None:
    refused(plan(llm, write(tmp_path, MISTRAL, name="params.json", quantization={"qformat_weight": "b3"})), "b3")


@pytest.mark.parametrize("size_bytes", [50_000_000, 200_000_000])
def test_large_files_are_not_read(llm: Commands, tmp_path: Path, size_bytes: int) -> None:
    path = tmp_path / "config.json"
    path.touch()
    os.truncate(path, size_bytes)
    plan(llm, tmp_path / "absent.json")  # everything is imported
    tracemalloc.start()
    answer = plan(llm, path)
    _, most_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    refused(answer, f"it has {size_bytes} bytes; at most")
    assert most_bytes < MIB
