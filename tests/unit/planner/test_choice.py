"""The choice of the tensor-parallel degree: legal sets, arithmetic against vLLM's own numbers, messages, properties."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.builders import make_facts

from vllm_operator.planner.choice import Choice, PlanRequest, plan_parallelism
from vllm_operator.planner.constraints import broken_rule, legal_degrees
from vllm_operator.planner.inventory import GpuPool, Inventory
from vllm_operator.planner.memory import EngineSettings, kv_bytes_per_token, memory_use
from vllm_operator.planner.problem import PlanProblem
from vllm_operator_api.conditions import Reason
from vllm_operator_api.quantities import BYTES_PER_GIB
from vllm_operator_api.runtime import ModelFacts

LLAMA_70B = make_facts(
    hidden_size=8192, layers=80, attention_heads=64, intermediate_size=28672, weights_bytes=141_107_412_992
)
PHI_4 = make_facts(
    hidden_size=5120, layers=40, attention_heads=40, kv_heads=10, intermediate_size=17920, vocab_size=100352
)
QWEN_7B = make_facts(
    hidden_size=3584, layers=28, attention_heads=28, kv_heads=4, intermediate_size=18944, vocab_size=152064
)
DEEPSEEK = make_facts(
    hidden_size=7168, layers=61, attention_heads=128, kv_heads=128, head_dim=56, latent_dim=576,
    intermediate_size=18432, moe_intermediate_size=2048, experts_per_token=8, vocab_size=129280, quantization="fp8",
    weights_bytes=688_586_727_753,
)  # fmt: skip


def settings(length: int = 8192, **changes: Any) -> EngineSettings:
    base: dict[str, Any] = {
        "max_length_tokens": length,
        "max_requests": 64,
        "gpu_memory_utilization": 0.92,
        "kv_cache_bytes": None,
        "enforce_eager": False,
        "dtype": "auto",
    }
    return EngineSettings(**{**base, **changes})


def request(tensor: int | None = None, length: int = 8192, **changes: Any) -> PlanRequest:
    return PlanRequest(resource_name="nvidia.com/gpu", tensor=tensor, settings=settings(length, **changes))


def pool(product: str = "NVIDIA-H100-80GB-HBM3", memory_mib: int = 81559, gpus: int = 8, **changes: Any) -> GpuPool:
    return GpuPool(
        resource_name="nvidia.com/gpu", product=product, memory_mib=memory_mib, gpus_per_node=gpus, nodes=1, **changes
    )


def plan(facts: ModelFacts, asked: PlanRequest, *pools: GpuPool) -> Choice | PlanProblem:
    return plan_parallelism(facts, asked, Inventory(pools or (pool(),)))


def chosen(facts: ModelFacts, asked: PlanRequest, *pools: GpuPool) -> Choice:
    choice = plan(facts, asked, *pools)
    assert isinstance(choice, Choice), choice
    return choice


def refused(facts: ModelFacts, asked: PlanRequest, *pools: GpuPool) -> PlanProblem:
    problem = plan(facts, asked, *pools)
    assert isinstance(problem, PlanProblem), problem
    return problem


@pytest.mark.parametrize(
    ("facts", "want"),
    [
        (make_facts(), (1, 2, 4, 8)),
        (PHI_4, (1, 2)),
        (QWEN_7B, (1, 2, 4)),
        (DEEPSEEK, (1, 2, 4, 8, 16)),
    ],
)
def test_legal_degrees(facts: ModelFacts, want: tuple[int, ...]) -> None:
    assert legal_degrees(facts, 16)[: len(want)] == want
    assert not [degree for degree in legal_degrees(facts, 8) if degree not in want]


@pytest.mark.parametrize(
    ("facts", "tensor", "kib"),
    [(make_facts(), 1, 128.0), (make_facts(), 8, 16.0), (LLAMA_70B, 1, 320.0), (make_facts(), 16, 16.0)],
)
def test_kv_bytes_per_token_are_vllms(facts: ModelFacts, tensor: int, kib: float) -> None:
    assert kv_bytes_per_token(facts, tensor, settings()) == kib * 1024


def test_latent_attention_is_not_divided() -> None:
    assert kv_bytes_per_token(DEEPSEEK, 8, settings()) == 61 * 1152


def test_kv_tokens_for_a_known_cache() -> None:
    """Measured: Llama-3.1-8B with 19.92 GiB of KV cache holds 163,168 tokens (rounded figures)."""
    use = memory_use(make_facts(), 1, settings(kv_cache_bytes=int(19.92 * BYTES_PER_GIB)), 81559, 8192)
    assert use.kv_tokens == pytest.approx(163_168, rel=1e-3)


def test_smallest_degree_that_fits() -> None:
    assert chosen(make_facts(), request()).tensor == 1
    choice = chosen(LLAMA_70B, request(length=65536))
    assert choice.tensor == 4
    assert choice.legal == (1, 2, 4, 8)
    assert "tensor=4 is the smallest legal degree" in choice.reason
    assert "tensor=2 is short of" in choice.reason


def test_large_model_with_latent_attention_fits_eight_h200() -> None:
    assert chosen(DEEPSEEK, request(length=163840), pool("NVIDIA-H200", 143771)).tensor == 8


def test_encoders_have_no_kv_cache() -> None:
    choice = chosen(make_facts(), request(keeps_kv_cache=False))
    assert choice.use.request == 0
    assert "KV cache" not in choice.reason


def test_given_degree() -> None:
    choice = chosen(make_facts(), request(tensor=4))
    assert choice.tensor == 4
    assert "is given and legal" in choice.reason


def test_all_products_on_which_it_fits() -> None:
    small, large = pool("NVIDIA-L4", 23034), pool()
    assert chosen(make_facts(), request(), large, small).products == ("NVIDIA-H100-80GB-HBM3", "NVIDIA-L4")
    assert chosen(make_facts(), request(length=131072), large, small).products == ("NVIDIA-H100-80GB-HBM3",)


def test_shared_gpus_are_one_per_replica() -> None:
    problem = refused(make_facts(), request(tensor=2), pool(shared=True))
    assert "more GPUs than any node offers to one pod (1)" in problem.message


@pytest.mark.parametrize(
    ("facts", "tensor", "rule"),
    [
        (make_facts(), 3, "the 32 attention heads must be divisible"),
        (PHI_4, 4, "the 10 KV heads must be divisible"),
        (PHI_4, 5, "the vocabulary of 100352, padded to 100352"),
        (make_facts(attention_heads=24, kv_heads=8), 12, "above the 8 KV heads must be a multiple"),
        (make_facts(intermediate_size=14337), 2, "the intermediate size 14337"),
        (make_facts(moe_intermediate_size=769), 2, "the experts' intermediate size 769"),
    ],
)
def test_illegal_degree(facts: ModelFacts, tensor: int, rule: str) -> None:
    problem = refused(facts, request(tensor=tensor), pool(gpus=16))
    assert problem.reason is Reason.INVALID_PARALLELISM
    assert problem.message.startswith(f"parallelism.tensor={tensor} is illegal for this model: ")
    assert rule in problem.message
    assert "legal here: 1" in problem.message


def test_more_gpus_than_any_node() -> None:
    problem = refused(make_facts(), request(tensor=8), pool(gpus=4))
    assert problem.reason is Reason.INVALID_PARALLELISM
    assert (
        "parallelism.tensor=8 is more GPUs than any node offers to one pod (4); legal here: 1, 2, 4" in problem.message
    )


def test_too_long_a_context_names_the_longest_that_fits() -> None:
    problem = refused(make_facts(), request(length=131072), pool("NVIDIA-L4", 23034, gpus=1))
    assert problem.reason is Reason.INSUFFICIENT_GPU_MEMORY
    assert "model.maxLength=131072 does not fit" in problem.message
    longest = int(problem.message.partition("set spec.model.maxLength to at most ")[2].partition(",")[0])
    assert chosen(make_facts(), request(length=longest), pool("NVIDIA-L4", 23034, gpus=1)).tensor == 1


def test_weights_that_do_not_fit() -> None:
    problem = refused(LLAMA_70B, request(), pool("NVIDIA-L4", 23034, gpus=2))
    assert problem.reason is Reason.INSUFFICIENT_GPU_MEMORY
    assert "tensor=2 on NVIDIA-L4" in problem.message
    assert "use nodes with more or larger GPUs, or a quantized model" in problem.message


def test_given_kv_cache_that_is_too_small() -> None:
    problem = refused(make_facts(), request(kv_cache_bytes=BYTES_PER_GIB // 64))
    assert "set engine.kvCacheMemory to at least 0.2 GiB" in problem.message
    assert "larger GPUs" not in problem.message


def test_given_kv_cache_that_no_gpu_has() -> None:
    problem = refused(make_facts(), request(kv_cache_bytes=900 * BYTES_PER_GIB))
    assert problem.reason is Reason.INSUFFICIENT_GPU_MEMORY
    assert "set engine.kvCacheMemory to at most" in problem.message


def test_a_share_of_memory_that_is_too_small() -> None:
    problem = refused(make_facts(), request(gpu_memory_utilization=0.01))
    assert problem.message.endswith("raise engine.gpuMemoryUtilization=0.01")


@pytest.mark.parametrize(
    ("inventory", "reason", "says"),
    [
        (Inventory(), Reason.NO_ACCELERATOR_NODES, "no node offers nvidia.com/gpu"),
        (Inventory(unusable_nodes=("n1",)), Reason.NO_ACCELERATOR_NODES, "offer it but are not: n1"),
        (Inventory(unlabelled_nodes=("n1",)), Reason.ACCELERATOR_LABELS_MISSING, "nvidia.com/gpu.memory (MiB)"),
    ],
)
def test_no_gpus(inventory: Inventory, reason: Reason, says: str) -> None:
    problem = plan_parallelism(make_facts(), request(), inventory)
    assert isinstance(problem, PlanProblem)
    assert problem.reason is reason
    assert says in problem.message


HEADS = st.sampled_from([8, 12, 16, 24, 28, 32, 40, 64])


@st.composite
def models(draw: st.DrawFn) -> ModelFacts:
    heads = draw(HEADS)
    return make_facts(
        hidden_size=heads * 128,
        layers=draw(st.integers(1, 126)),
        attention_heads=heads,
        kv_heads=draw(st.sampled_from([d for d in range(1, heads + 1) if heads % d == 0])),
        intermediate_size=draw(st.integers(1, 240)) * 256,
        moe_intermediate_size=draw(st.sampled_from([None, 768, 1536, 1408])),
        weights_bytes=draw(st.integers(10**9, 10**12)),
    )


MEMORIES = st.integers(8_000, 300_000)


@given(models(), MEMORIES, st.integers(16, 131072), st.integers(1, 16))
def test_the_result_is_legal_and_fits(facts: ModelFacts, memory_mib: int, length: int, gpus: int) -> None:
    choice = plan(facts, request(length=length), pool(memory_mib=memory_mib, gpus=gpus))
    if isinstance(choice, Choice):
        assert broken_rule(facts, choice.tensor) is None
        assert choice.tensor <= gpus
        assert choice.use.fits
        assert choice.use.kv_tokens >= length
    assert len(choice.reason if isinstance(choice, Choice) else choice.message) <= 1024


@given(models(), MEMORIES, st.integers(0, 200_000), st.integers(16, 131072))
def test_more_memory_never_needs_more_gpus(facts: ModelFacts, memory_mib: int, more_mib: int, length: int) -> None:
    before = plan(facts, request(length=length), pool(memory_mib=memory_mib, gpus=16))
    after = plan(facts, request(length=length), pool(memory_mib=memory_mib + more_mib, gpus=16))
    if isinstance(before, Choice):
        assert isinstance(after, Choice)
        assert after.tensor <= before.tensor


@given(models(), MEMORIES, st.integers(16, 65536), st.integers(0, 65536))
def test_a_longer_context_never_needs_fewer_gpus(facts: ModelFacts, memory_mib: int, length: int, more: int) -> None:
    before = plan(facts, request(length=length), pool(memory_mib=memory_mib, gpus=16))
    after = plan(facts, request(length=length + more), pool(memory_mib=memory_mib, gpus=16))
    if isinstance(after, Choice):
        assert isinstance(before, Choice)
        assert before.tensor <= after.tensor
