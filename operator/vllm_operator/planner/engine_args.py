"""Which vLLM arguments and environment variables a user may add.

Arguments are checked against the options that this vLLM knows, so that a misspelt or removed one is a condition and not
a crash loop, and against those that run code, open a route, reach another tenant or belong to the operator. vLLM itself
accepts unique abbreviations, underscores for hyphens and short flags; none of them is accepted here, because each is a
way around a list of names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Final

from vllm_operator.planner.engine_options import EngineOption, EngineOptions
from vllm_operator.planner.problem import PlanProblem
from vllm_operator_api.conditions import Reason

_OPERATOR_SETS: Final = {
    "--model": "spec.model.id",
    "--served-model-name": "spec.model.servedNames",
    "--revision": "spec.model.revision",
    "--dtype": "spec.model.dtype",
    "--quantization": "spec.model.quantization",
    "--kv-cache-dtype": "spec.engine.kvCacheDtype",
    "--max-model-len": "spec.model.maxLength",
    "--tensor-parallel-size": "spec.parallelism.tensor",
    "--pipeline-parallel-size": "spec.parallelism.pipeline",
    "--data-parallel-size": "spec.parallelism.data",
    "--enable-expert-parallel": "spec.parallelism.expert",
    "--max-num-seqs": "spec.concurrency.target",
    "--gpu-memory-utilization": "spec.engine.gpuMemoryUtilization",
    "--kv-cache-memory-bytes": "spec.engine.kvCacheMemory",
    "--enforce-eager": "spec.engine.enforceEager",
    "--shutdown-timeout": "spec.queue.shutdownGraceSeconds",
}
"""Options that have a field of their own."""

_NOT_ALLOWED: Final[tuple[tuple[str, str], ...]] = (
    ("--help", "it ends the engine"),
    ("--middleware", "it runs code in the engine; the operator's own middleware is set there"),
    ("--*-plugin", "it loads code into the engine"),
    ("--logits-processors", "it loads code into the engine"),
    ("--worker-cls", "it loads code into the engine"),
    ("--worker-extension-cls", "it loads code into the engine"),
    ("--scheduler-cls", "it loads code into the engine"),
    ("--model-class-overrides", "it loads code into the engine"),
    ("--distributed-executor-backend", "it can load code into the engine"),
    ("--compilation-config", "it can name code to load"),
    ("--profiler-config", "it writes files and opens routes"),
    ("--config", "options in a file cannot be checked"),
    ("--log-config-file", "a logging configuration can run code"),
    ("--logging-config", "a logging configuration can run code"),
    ("--tool-server", "it makes the engine call other servers"),
    ("--*-transfer-config", "it opens connections to other engines"),
    ("--kv-events-config", "it opens connections to other engines"),
    ("--grpc*", "it opens a second, unchecked server"),
    ("--host", "the operator sets the address that probes and routing use"),
    ("--port", "the operator sets the address that probes and routing use"),
    ("--uds", "the operator sets the address that probes and routing use"),
    ("--root-path", "it changes the routes that probes and routing use"),
    ("--ssl-*", "probes and the queue agent speak plain HTTP inside the pod's network"),
    ("--enable-ssl-refresh", "probes and the queue agent speak plain HTTP inside the pod's network"),
    ("--headless", "the operator needs the engine's HTTP server"),
    ("--api-key", "a key in an argument is readable by everybody who may see the pod"),
    ("--hf-token", "a token in an argument is readable by everybody who may see the pod"),
    ("--enable-scale-out", "it opens administrative routes"),
    ("--enable-elastic-ep", "it opens administrative routes"),
    ("--elastic-ep-*", "it opens administrative routes"),
    ("--enable-fault-tolerance", "it opens administrative routes"),
    ("--fault-tolerance-config", "it opens administrative routes"),
    ("--enable-prompt-embeds", "tensors from requests are unpickled"),
    ("--enable-mm-embeds", "tensors from requests are unpickled"),
    ("--enable-log-outputs", "it writes users' texts into the log"),
    ("--enable-tokenizer-info-endpoint", "it opens a route that shows the model's files"),
    ("--trust-*", "code from the model's repository would run in the engine"),
    ("--code-revision", "code from the model's repository would run in the engine"),
    ("--allowed-*", "it opens the engine to other origins or to local files"),
    ("--allow-credentials", "it opens the engine to other origins"),
    ("--download-dir", "the operator sets the writable directories"),
    ("--otlp-traces-endpoint", "it sends request data to another server"),
    ("--disable-log-stats", "the metrics of the engine would be gone"),
    ("--api-server-count", "with more than one API server the requests in flight cannot be counted nor drained"),
    ("--data-parallel-*", "the operator starts the copies; use spec.parallelism.data"),
    ("--nnodes", "the operator starts the pods of a replica; use spec.parallelism.allowMultiNode"),
    ("--node-rank", "the operator starts the pods of a replica; use spec.parallelism.allowMultiNode"),
    ("--master-*", "the operator starts the pods of a replica; use spec.parallelism.allowMultiNode"),
    ("--dp-*", "the operator starts the copies; use spec.parallelism.data"),
    ("--decode-context-parallel-size", "the planner's memory model does not have it"),
    ("--prefill-context-parallel-size", "the planner's memory model does not have it"),
    ("--device-ids", "the device plugin chooses the GPUs"),
)
"""Names (shell patterns, over the long positive spelling) that nobody may give, and why. First match counts."""

_SAFE_LOAD_FORMATS: Final = frozenset(
    {"safetensors", "fastsafetensors", "instanttensor", "runai_streamer", "mistral", "dummy"}
)
"""Values of --load-format that never unpickle weights (``auto`` falls back to pickles)."""

_ENV_EXACT: Final = frozenset(
    {
        "VLLM_ALL2ALL_BACKEND",
        "VLLM_AUDIO_FETCH_TIMEOUT",
        "VLLM_DISABLE_COMPILE_CACHE",
        "VLLM_DISABLE_PYNCCL",
        "VLLM_ENABLE_STARTUP_PLAN",
        "VLLM_ENABLE_V1_MULTIPROCESSING",
        "VLLM_ENGINE_ITERATION_TIMEOUT_S",
        "VLLM_ENGINE_READY_TIMEOUT_S",
        "VLLM_IMAGE_FETCH_TIMEOUT",
        "VLLM_LOGGING_LEVEL",
        "VLLM_LOG_STATS_INTERVAL",
        "VLLM_MAX_AUDIO_CLIP_FILESIZE_MB",
        "VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS",
        "VLLM_SKIP_P2P_CHECK",
        "VLLM_TRITON_JIT_WARMUP_NUM_THREADS",
        "VLLM_USE_AOT_COMPILE",
        "VLLM_USE_MEGA_AOT_ARTIFACT",
        "VLLM_USE_NCCL_SYMM_MEM",
        "VLLM_USE_V2_MODEL_RUNNER",
        "VLLM_V1_OUTPUT_PROC_CHUNK_SIZE",
        "VLLM_VIDEO_FETCH_TIMEOUT",
        "VLLM_WORKER_MULTIPROC_METHOD",
        "VLLM_XGRAMMAR_CACHE_MB",
    }
)
_ENV_FAMILIES: Final = (
    "VLLM_ALLREDUCE_",
    "VLLM_CPU_",
    "VLLM_DEEP_GEMM_",
    "VLLM_FLASHINFER_",
    "VLLM_FUSED_MOE_",
    "VLLM_MARLIN_",
    "VLLM_MOE_",
    "VLLM_MXFP4_",
    "VLLM_NVFP4_",
    "VLLM_ROCM_",
    "VLLM_USE_DEEP_GEMM",
    "VLLM_USE_FLASHINFER",
    "VLLM_USE_TRITON_",
)
_ENV_PLACE: Final = re.compile(r"_(DIR|PATH|URL|URI|ADDR|ADDRESS|HOST|IP|PORT|FILE|ROOT)$")
"""Endings of variables that name a place: never allowed, whatever the family."""


def check_engine_args(args: Iterable[str], options: EngineOptions) -> PlanProblem | None:
    """The first fault in the user's arguments (each one ``--name`` or ``--name=value``), None when there is none."""
    seen: set[str] = set()
    for arg in args:
        problem = _check_arg(arg, options)
        if problem is not None:
            return problem
        name = options.by_flag[arg.partition("=")[0]].name
        if name in seen:
            return PlanProblem(
                Reason.INVALID_SPEC, f"spec.engine.args: {name} is given more than once; keep one of them"
            )
        seen.add(name)
    return None


def _check_arg(arg: str, options: EngineOptions) -> PlanProblem | None:
    flag, separator, value = arg.partition("=")
    if not flag.startswith("--") or flag == "--":
        return _malformed(arg, flag, options)
    option = options.by_flag.get(flag)
    if option is None:
        return _unknown(flag, options)
    spec_field = _OPERATOR_SETS.get(option.name)
    if spec_field is not None:
        return PlanProblem(
            Reason.ENGINE_ARG_NOT_ALLOWED, f"spec.engine.args: {flag} is set by the operator; use {spec_field} instead"
        )
    reason = _why_not_allowed(option.name)
    if reason is not None:
        return PlanProblem(
            Reason.ENGINE_ARG_NOT_ALLOWED, f"spec.engine.args: {flag} is not allowed: {reason}; remove it"
        )
    return _check_value(flag, separator, value, option)


def _check_value(flag: str, separator: str, value: str, option: EngineOption) -> PlanProblem | None:
    if option.takes_value and not separator:
        return PlanProblem(
            Reason.INVALID_SPEC, f"spec.engine.args: {flag} needs a value; write {flag}=<value> as one entry"
        )
    if not option.takes_value and separator:
        return PlanProblem(
            Reason.INVALID_SPEC, f"spec.engine.args: {flag} takes no value, but {value!r} is given; write {flag} alone"
        )
    if option.name == "--load-format" and value not in _SAFE_LOAD_FORMATS:
        return PlanProblem(
            Reason.ENGINE_ARG_NOT_ALLOWED,
            f"spec.engine.args: --load-format={value} may load pickled weights, which can run code; "
            f"allowed are {', '.join(sorted(_SAFE_LOAD_FORMATS))}",
        )
    if option.choices is not None and value not in option.choices and option.takes_value:
        return PlanProblem(
            Reason.INVALID_SPEC,
            f"spec.engine.args: {flag}={value} is not one of vLLM's values: {', '.join(option.choices)}"[:1000],
        )
    return None


def _malformed(arg: str, flag: str, options: EngineOptions) -> PlanProblem:
    option = options.by_flag.get(flag)
    if option is not None and option.name != flag:
        message = f"spec.engine.args: write {flag} in full, as {option.name}"
    else:
        message = f"spec.engine.args: {arg[:100]!r} is not an option; write each as one entry, --name=value or --name"
    return PlanProblem(Reason.ENGINE_ARG_UNKNOWN, message)


def _unknown(flag: str, options: EngineOptions) -> PlanProblem:
    shown = flag[:100]
    hyphenated = flag.replace("_", "-")
    root = flag.partition(".")[0]
    abbreviated = sorted({option.name for known, option in options.by_flag.items() if known.startswith(flag)})
    if hyphenated != flag and hyphenated in options.by_flag:
        hint = f"write it with hyphens: {hyphenated}"
    elif root != flag and root in options.by_flag:
        hint = f"write the whole value as JSON: {root}={{...}}"
    elif len(flag) > 3 and abbreviated:
        hint = f"write it in full: {' or '.join(abbreviated[:3])}"
    elif near := options.near_flags(flag):
        hint = f"did you mean {' or '.join(near)}?"
    else:
        hint = "see the options of this version in vLLM's documentation"
    return PlanProblem(
        Reason.ENGINE_ARG_UNKNOWN, f"spec.engine.args: vLLM {options.vllm_version} has no option {shown}; {hint}"
    )


def _why_not_allowed(name: str) -> str | None:
    return next((why for pattern, why in _NOT_ALLOWED if fnmatchcase(name, pattern)), None)


def check_engine_env(names: Iterable[str]) -> PlanProblem | None:
    """The first environment variable that is not on the allow-list, None when all are."""
    for name in names:
        if not engine_env_allowed(name):
            return PlanProblem(
                Reason.ENV_NOT_ALLOWED,
                f"spec.engine.env: {name[:100]} is not allowed; only vLLM's own tuning variables are, such as "
                "VLLM_LOGGING_LEVEL; tokens, paths, proxies, plugins and other programs' variables are not",
            )
    return None


def engine_env_allowed(name: str) -> bool:
    """Whether a user may set this variable for the engine."""
    if name in _ENV_EXACT:
        return True
    return name.startswith(_ENV_FAMILIES) and _ENV_PLACE.search(name) is None


def given_value(args: Iterable[str], flag: str) -> str | None:
    """Value of ``flag`` among checked arguments, None when it is not given."""
    return next((value for name, _, value in (arg.partition("=") for arg in args) if name == flag), None)
