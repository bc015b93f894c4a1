"""What the engine is told: the plan and the spec as vLLM options and environment."""

from __future__ import annotations

from vllm_operator.planner.model_source import ModelLocation
from vllm_operator.planner.record import PlanRecord
from vllm_operator_api.quantities import parse_bytes
from vllm_operator_api.v1alpha1.llmservice import LLMServiceSpec

BATCHED_TOKENS_FLAG = "--max-num-batched-tokens"
LOAD_FORMAT_FLAG = "--load-format"


def served_names(spec: LLMServiceSpec, service_name: str) -> list[str]:
    """Names by which requests ask for the model, the one in answers first."""
    return list(spec.model.served_names or [service_name])


def engine_args(spec: LLMServiceSpec, service_name: str, location: ModelLocation, plan: PlanRecord) -> list[str]:
    """VLLM's options, those of the user last. The supervisor adds address, middleware and shutdown timeout.

    Sizes are bytes: vLLM refuses Kubernetes' quantities.
    """
    given = {arg.partition("=")[0] for arg in spec.engine.args}
    args = [
        f"--model={location.engine_model}",
        "--served-model-name",
        *served_names(spec, service_name),
        f"--tensor-parallel-size={plan.tensor}",
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
        args.append(f"{BATCHED_TOKENS_FLAG}={plan.batched_tokens}")
    if LOAD_FORMAT_FLAG not in given:
        args.append(f"{LOAD_FORMAT_FLAG}=safetensors")
    if spec.engine.kv_cache_memory is not None:
        args.append(f"--kv-cache-memory-bytes={parse_bytes(spec.engine.kv_cache_memory)}")
    if spec.engine.enforce_eager:
        args.append("--enforce-eager")
    return [*args, *spec.engine.args]


def engine_env(spec: LLMServiceSpec, location: ModelLocation, hub_endpoint: str) -> dict[str, str]:
    """The engine's own environment variables: the user's, then ours, which win."""
    env = {variable.name: variable.value for variable in spec.engine.env}
    if location.claim is not None:
        env["HF_HUB_OFFLINE"] = "1"
    elif hub_endpoint:
        env["HF_ENDPOINT"] = hub_endpoint
    return env
