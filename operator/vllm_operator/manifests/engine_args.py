"""What the engine is told: the plan and the spec as vLLM options and environment."""

from __future__ import annotations

from vllm_operator.manifests.model_facts import HUB_TOKEN_PATH
from vllm_operator.planner.layout import Layout
from vllm_operator.planner.sources.location import ModelLocation
from vllm_operator_api.quantities import parse_bytes
from vllm_operator_api.v1alpha1.llmservice import LLMServiceSpec, SecretKey

BATCHED_TOKENS_FLAG = "--max-num-batched-tokens"
LOAD_FORMAT_FLAG = "--load-format"


def served_names(spec: LLMServiceSpec, service_name: str) -> list[str]:
    """Names by which requests ask for the model, the one in answers first."""
    return list(spec.model.served_names or [service_name])


def engine_args(
    spec: LLMServiceSpec, service_name: str, location: ModelLocation, layout: Layout, batched_tokens: int
) -> list[str]:
    """VLLM's options, those of the user last.

    The supervisor adds address, middleware, shutdown timeout and, where an engine spans nodes, the pod's rank.
    Sizes are bytes: vLLM refuses Kubernetes' quantities.
    """
    given = {arg.partition("=")[0] for arg in spec.engine.args}
    args = [
        f"--model={location.engine_model}",
        "--served-model-name",
        *served_names(spec, service_name),
        *layout_args(layout),
        f"--max-num-seqs={spec.concurrency.target}",
        f"--gpu-memory-utilization={spec.engine.gpu_memory_utilization:g}",
    ]
    if spec.model.dtype != "auto":  # vLLM's default, and the runtime image may have a better one
        args.append(f"--dtype={spec.model.dtype}")
    if location.revision is not None:
        args.append(f"--revision={location.revision}")
    if spec.model.max_length is not None:
        args.append(f"--max-model-len={spec.model.max_length}")
    if BATCHED_TOKENS_FLAG not in given:
        args.append(f"{BATCHED_TOKENS_FLAG}={batched_tokens}")
    if LOAD_FORMAT_FLAG not in given:
        args.append(f"{LOAD_FORMAT_FLAG}=safetensors")
    if spec.engine.kv_cache_memory is not None:
        args.append(f"--kv-cache-memory-bytes={parse_bytes(spec.engine.kv_cache_memory)}")
    if spec.engine.kv_cache_dtype != "auto":
        args.append(f"--kv-cache-dtype={spec.engine.kv_cache_dtype}")
    if spec.model.quantization is not None:
        args.append(f"--quantization={spec.model.quantization}")
    if spec.engine.enforce_eager:
        args.append("--enforce-eager")
    return [*args, *spec.engine.args]


def layout_args(layout: Layout) -> list[str]:
    """How the model is cut, without what vLLM takes anyway."""
    args = [f"--tensor-parallel-size={layout.tensor}"]
    if layout.pipeline > 1:
        args.append(f"--pipeline-parallel-size={layout.pipeline}")
    if layout.data > 1:
        args.append(f"--data-parallel-size={layout.data}")
    if layout.expert_parallel:
        args.append("--enable-expert-parallel")
    return args


def mounted_token(spec: LLMServiceSpec, location: ModelLocation) -> SecretKey | None:
    """The hub token that the engine gets as a file; None for a model that comes from no hub, or needs none."""
    return spec.model.token_secret_ref if location.repository is not None else None


def engine_env(spec: LLMServiceSpec, location: ModelLocation, hub_endpoint: str) -> dict[str, str]:
    """The engine's own environment variables: the user's, then ours, which win."""
    env = {variable.name: variable.value for variable in spec.engine.env}
    if location.claim is not None:
        env["HF_HUB_OFFLINE"] = "1"
    elif hub_endpoint:
        env["HF_ENDPOINT"] = hub_endpoint
    if mounted_token(spec, location) is not None:
        env["HF_TOKEN_PATH"] = HUB_TOKEN_PATH
    return env
