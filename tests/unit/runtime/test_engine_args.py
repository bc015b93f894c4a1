"""Arguments against the real dump of vLLM 0.32.0's options."""

from __future__ import annotations

import json

import pytest
from tests.support.runtime_process import ENGINE_OPTIONS_FILE

from vllm_runtime.engine_args import OptionTable, engine_arguments, model_of
from vllm_runtime.errors import ConfigurationError
from vllm_runtime.group import EngineGroup


@pytest.fixture(scope="module")
def table() -> OptionTable:
    return OptionTable(json.loads(ENGINE_OPTIONS_FILE.read_text()))


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--model", "/mnt/model/x", "--tensor-parallel-size=2", "--enforce-eager"],
        ["--served-model-name", "a", "b", "--max-num-seqs", "64"],
        ["--served-model-name=a"],
        ["--max-model-len=-1"],
        ["--pipeline-parallel-size=2", "--data-parallel-size=2", "--enable-expert-parallel"],
        ["--no-enable-prefix-caching"],
        ["--dtype=float32", "--dtype", "bfloat16"],
        ["--kv-cache-memory-bytes=67108864", '--override-generation-config={"temperature": 0}'],
    ],
)
def test_legal(table: OptionTable, arguments: list[str]) -> None:
    table.check(arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--max-modellen=5"], "this vLLM has no option --max-modellen; did you mean --max-model-len?"),
        (["--max-model-le=5"], "did you mean --max-model-len?"),  # vLLM itself takes abbreviations
        (["--max_model_len=5"], "did you mean --max-model-len?"),  # and underscores
        (["--compilation-config.level=3"], "this vLLM has no option --compilation-config.level"),
        (["-cc.mode=none"], "engine argument '-cc.mode': expected an option"),
        (["-tp", "2"], "expected an option written as --name=value"),
        (["--"], "expected an option"),
        (["model"], "expected an option"),
        (["--enforce-eager", "true"], "expected an option"),
        (["--enforce-eager=true"], "--enforce-eager takes no value, got 'true'"),
        (["--max-model-len"], "--max-model-len needs a value"),
        (["--max-model-len", "--enforce-eager"], "--max-model-len needs a value"),
        (["--dtype=int3"], "--dtype: 'int3' is not one of auto, bfloat16"),
        (["--max-num-seqs", "1", "2"], "engine argument '2': expected an option"),
    ],
)
def test_illegal(table: OptionTable, arguments: list[str], message: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        table.check(arguments)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    "name",
    [
        "--middleware",
        "--tool-parser-plugin",
        "--reasoning-parser-plugin",
        "--logits-processors",
        "--worker-cls",
        "--config",
        "--worker-extension-cls",
        "--scheduler-cls",
        "--log-config-file",
        "--host",
        "--port",
        "--uds",
        "--root-path",
        "--api-key",
        "--hf-token",
        "--kv-transfer-config",
        "--profiler-config",
        "--trust-remote-code",
        "--allowed-origins",
        "--download-dir",
        "--allowed-local-media-path",
        "--shutdown-timeout",
        "--api-server-count",
        "--ssl-keyfile",
        "--no-enable-log-outputs",
        "--headless",
        "--nnodes",
        "--node-rank",
        "--master-addr",
        "--master-port",
        "--data-parallel-address",
        "--data-parallel-rank",
        "--data-parallel-external-lb",
    ],
)
def test_never_allowed(table: OptionTable, name: str) -> None:
    for arguments in ([name], [f"{name}=x"], [name, "x"]):
        with pytest.raises(ConfigurationError, match="is not allowed"):
            table.check(arguments)


@pytest.mark.parametrize("dump", [{}, {"options": [{}]}, {"options": None}])
def test_an_unreadable_dump_is_an_error(dump: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError):
        OptionTable(dump)


@pytest.mark.parametrize(
    ("arguments", "model"),
    [(["--model", "a"], "a"), (["--model=a", "--model", "b"], "b"), (["--model"], None), ([], None)],
)
def test_model_of(arguments: list[str], model: str | None) -> None:
    assert model_of(arguments) == model


def test_ours_come_last() -> None:
    arguments = engine_arguments(
        ["--dtype", "float32"],
        ["--dtype=auto"],
        host="0.0.0.0",
        port=8000,
        middleware="m.M",
        shutdown_timeout_seconds=30,
    )
    assert arguments == [
        "--dtype",
        "float32",
        "--dtype=auto",
        "--host",
        "0.0.0.0",
        "--port",
        "8000",
        "--middleware",
        "m.M",
        "--shutdown-timeout",
        "30",
    ]


def test_a_follower_serves_no_http() -> None:
    arguments = engine_arguments(
        [],
        ["--tensor-parallel-size=16"],
        host="0.0.0.0",
        port=8000,
        middleware="m.M",
        shutdown_timeout_seconds=30,
        group=EngineGroup(size=2, index=1, leader_address="leader"),
    )
    assert arguments == [
        "--tensor-parallel-size=16", "--shutdown-timeout", "30", "--nnodes", "2", "--node-rank", "1",
        "--master-addr", "leader", "--master-port", "29501", "--headless",
    ]  # fmt: skip
