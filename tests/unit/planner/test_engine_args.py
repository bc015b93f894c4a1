"""Which arguments and variables a user may give, and what they are told about the others."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_operator.planner.engine_args import check_engine_args, check_engine_env, engine_env_allowed
from vllm_operator.planner.engine_options import default_engine_options
from vllm_operator_api.conditions import Reason

OPTIONS = default_engine_options()


@pytest.mark.parametrize(
    "args",
    [
        [],
        ["--enable-prefix-caching", "--block-size=32"],
        ["--no-enable-prefix-caching"],
        ["--max-num-batched-tokens=4096", "--seed=1"],
        ["--load-format=dummy"],
        ['--limit-mm-per-prompt={"image": 1}'],
        ["--optimization-level=1"],
    ],
)
def test_allowed(args: list[str]) -> None:
    assert check_engine_args(args, OPTIONS) is None


@pytest.mark.parametrize(
    ("arg", "reason", "says"),
    [
        ("--enable-prefix-cachin", Reason.ENGINE_ARG_UNKNOWN, "write it in full: --enable-prefix-caching"),
        ("--enable-prefx-caching", Reason.ENGINE_ARG_UNKNOWN, "did you mean --enable-prefix-caching"),
        ("--enable_prefix_caching", Reason.ENGINE_ARG_UNKNOWN, "write it with hyphens: --enable-prefix-caching"),
        ("--max-num-se=3", Reason.ENGINE_ARG_UNKNOWN, "write it in full: --max-num-seqs"),
        ("-q=fp8", Reason.ENGINE_ARG_UNKNOWN, "write -q in full, as --quantization"),
        ("-tp=2", Reason.ENGINE_ARG_UNKNOWN, "write -tp in full, as --tensor-parallel-size"),
        ("-cc.mode=none", Reason.ENGINE_ARG_UNKNOWN, "is not an option"),
        ("--speculative-config.method=ngram", Reason.ENGINE_ARG_UNKNOWN, "write the whole value as JSON"),
        ("--", Reason.ENGINE_ARG_UNKNOWN, "'--' is not an option"),
        ("32", Reason.ENGINE_ARG_UNKNOWN, "each as one entry"),
        ("--flibbertigibbet", Reason.ENGINE_ARG_UNKNOWN, "vLLM 0.32.0 has no option --flibbertigibbet"),
        ("--seed", Reason.INVALID_SPEC, "--seed needs a value"),
        ("--enable-prefix-caching=true", Reason.INVALID_SPEC, "takes no value, but 'true' is given"),
        ("--mamba-cache-dtype=fp17", Reason.INVALID_SPEC, "is not one of vLLM's values: auto"),
        ("--load-format=pt", Reason.ENGINE_ARG_NOT_ALLOWED, "may load pickled weights"),
        ("--load-format=auto", Reason.ENGINE_ARG_NOT_ALLOWED, "may load pickled weights"),
        ("--tensor-parallel-size=2", Reason.ENGINE_ARG_NOT_ALLOWED, "use spec.parallelism.tensor instead"),
        ("--device-memory-utilization=0.5", Reason.ENGINE_ARG_NOT_ALLOWED, "use spec.engine.gpuMemoryUtilization"),
        ("--no-enforce-eager", Reason.ENGINE_ARG_NOT_ALLOWED, "use spec.engine.enforceEager instead"),
    ],
)
def test_refused(arg: str, reason: Reason, says: str) -> None:
    problem = check_engine_args([arg], OPTIONS)
    assert problem is not None
    assert problem.reason is reason
    assert problem.message.startswith("spec.engine.args: ")
    assert says in problem.message


NEVER = [
    "--middleware=x.y", "--reasoning-parser-plugin=x", "--tool-parser-plugin=x", "--io-processor-plugin=x",
    "--logits-processors=x", "--worker-cls=x", "--worker-extension-cls=x", "--scheduler-cls=x",
    "--model-class-overrides=x", "--config=x", "--log-config-file=x", "--logging-config=x", "--tool-server=x",
    "--kv-transfer-config=x", "--ec-transfer-config=x", "--weight-transfer-config=x", "--kv-events-config=x", "--grpc",
    "--host=x", "--port=1", "--uds=x", "--root-path=x", "--api-key=x", "--hf-token=x", "--profiler-config=x",
    "--enable-scale-out", "--enable-elastic-ep", "--enable-fault-tolerance", "--enable-prompt-embeds",
    "--enable-mm-embeds", "--enable-log-outputs", "--enable-tokenizer-info-endpoint", "--trust-remote-code",
    "--trust-request-chat-template", "--trust-request-mm-kwargs", "--allowed-local-media-path=/", "--allowed-origins=x",
    "--allowed-headers=x", "--allowed-methods=x", "--allowed-media-domains=x", "--download-dir=x",
    "--otlp-traces-endpoint=x", "--disable-log-stats", "--api-server-count=2", "--distributed-executor-backend=x.Y",
]  # fmt: skip


@pytest.mark.parametrize("arg", NEVER)
def test_never_allowed(arg: str) -> None:
    flag = arg.partition("=")[0]
    assert flag in OPTIONS.by_flag, "this vLLM does not have it any more: revise the list"
    problem = check_engine_args([arg], OPTIONS)
    assert problem is not None
    assert problem.reason is Reason.ENGINE_ARG_NOT_ALLOWED
    assert f"{flag} is not allowed: " in problem.message


@pytest.mark.parametrize("args", [["--seed=1", "--seed=2"], ["--enable-prefix-caching", "--no-enable-prefix-caching"]])
def test_repeated(args: list[str]) -> None:
    problem = check_engine_args(args, OPTIONS)
    assert problem is not None
    assert "is given more than once" in problem.message


@given(st.sampled_from(NEVER), st.integers(1, 12), st.booleans())
def test_no_spelling_gets_around_the_list(arg: str, cut: int, underscores: bool) -> None:
    flag, separator, value = arg.partition("=")
    spelling = flag[: max(3, len(flag) - cut)]
    if underscores:
        spelling = "--" + spelling[2:].replace("-", "_")
    problem = check_engine_args([spelling + separator + value], OPTIONS)
    if problem is None:  # the abbreviation is an option of its own
        option = OPTIONS.by_flag[spelling]
        assert option is not OPTIONS.by_flag[flag]


@given(st.lists(st.text(max_size=40), max_size=4))
def test_anything_is_judged(args: list[str]) -> None:
    problem = check_engine_args(args, OPTIONS)
    assert problem is None or len(problem.message) <= 1024


@pytest.mark.parametrize("name", ["VLLM_LOGGING_LEVEL", "VLLM_CPU_OMP_THREADS_BIND", "VLLM_USE_FLASHINFER_SAMPLER"])
def test_environment_allowed(name: str) -> None:
    assert engine_env_allowed(name)


@pytest.mark.parametrize(
    "name",
    [
        "LD_PRELOAD", "PYTHONPATH", "PYTHONSTARTUP", "PATH", "HOME", "BASH_ENV", "HTTPS_PROXY", "https_proxy",
        "SSL_CERT_FILE", "HF_ENDPOINT", "HF_TOKEN", "SAGEMAKER_X", "CUSTOM_X", "VLLM_PLUGINS", "VLLM_SERVER_DEV_MODE",
        "VLLM_LOGGING_CONFIG_PATH", "VLLM_ALLOW_RUNTIME_LORA_UPDATING", "VLLM_ALLOW_INSECURE_SERIALIZATION",
        "VLLM_MEDIA_CONNECTOR", "VLLM_MODEL_REDIRECT_PATH", "VLLM_DEBUG_X", "NVIDIA_VISIBLE_DEVICES",
        "CUDA_VISIBLE_DEVICES", "NCCL_NET_PLUGIN", "TORCHINDUCTOR_CACHE_DIR", "VLLM_CACHE_ROOT", "VLLM_API_KEY",
        "VLLM_HTTP_TIMEOUT_KEEP_ALIVE", "VLLM_FLASHINFER_AUTOTUNE_CACHE_DIR", "VLLM_PORT", "VLLM_RUNTIME_CONFIG",
    ],
)  # fmt: skip
def test_environment_not_allowed(name: str) -> None:
    problem = check_engine_env([name])
    assert problem is not None
    assert problem.reason is Reason.ENV_NOT_ALLOWED
    assert problem.message.startswith(f"spec.engine.env: {name} is not allowed")
