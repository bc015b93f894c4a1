"""The choice: which layout, on which pools, and in which words."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.models import facts_of, pool

from vllm_operator.planner.choice.choose import choose
from vllm_operator.planner.choice.plan import Choice, Confidence
from vllm_operator.planner.choice.request import GivenLayout, PlanRequest
from vllm_operator.planner.engine_settings import EngineSettings
from vllm_operator.planner.inventory.pool import GpuPool
from vllm_operator.planner.layout import Layout
from vllm_operator.planner.problem import PlanProblem
from vllm_operator_api.conditions import Reason
from vllm_operator_api.model import ModelFacts
from vllm_operator_api.quantities import BYTES_PER_GIB

H200 = "NVIDIA-H200"
L4 = "NVIDIA-L4"
H100 = "NVIDIA-H100-80GB-HBM3"


def request(length: int = 8192, **changes: Any) -> PlanRequest:
    names = {"max_requests", "gpu_memory_utilization", "kv_cache_bytes", "kv_cache_dtype", "dtype", "keeps_kv_cache"}
    settings = EngineSettings(max_length_tokens=length, **{k: changes.pop(k) for k in list(changes) if k in names})
    return PlanRequest(resource_name="nvidia.com/gpu", settings=settings, vllm_version="0.32.0", **changes)


def given(**degrees: int) -> GivenLayout:
    return GivenLayout(**degrees)


def chosen(facts: ModelFacts, asked: PlanRequest, *pools: GpuPool) -> Choice:
    choice = choose(facts, asked, pools or (pool(),))
    assert isinstance(choice, Choice), choice
    return choice


def refused(facts: ModelFacts, asked: PlanRequest, *pools: GpuPool) -> PlanProblem:
    problem = choose(facts, asked, pools or (pool(),))
    assert isinstance(problem, PlanProblem), problem
    return problem


def test_one_gpu_is_enough() -> None:
    choice = chosen(facts_of("llama-8b"), request())
    assert choice.layout == Layout()
    assert choice.legal_tensor == (1, 2, 4, 8)
    assert choice.confidence is Confidence.MEDIUM
    assert choice.considered[0].reason == "chosen"
    assert "tensor=1 is enough: per NVIDIA-H100-80GB-HBM3" in choice.reason


def test_fewest_gpus_for_length_and_the_reason_against_fewer() -> None:
    choice = chosen(facts_of("llama-70b"), request(65536))
    assert choice.layout == Layout(tensor=4)
    assert "tensor=2 is short of" in choice.reason
    assert {entry.layout.gpus for entry in choice.considered if not entry.fits} >= {1, 2}


def test_more_requests_at_once_need_more_gpus() -> None:
    few = chosen(facts_of("llama-70b"), request(32768), pool(H200))
    many = chosen(facts_of("llama-70b"), request(32768, min_concurrency=16), pool(H200))
    assert few.layout.gpus < many.layout.gpus
    assert many.use.max_concurrency >= 16


def test_latent_attention_is_copied_where_cutting_does_not_help() -> None:
    """DeepSeek-V3 on eight H200: every GPU of TP8 holds the same latents; DP8 holds eight times as many."""
    one = chosen(facts_of("deepseek-v3"), request(163840), pool(H200))
    assert one.layout == Layout(tensor=8)
    most = int(one.use.max_concurrency)
    many = chosen(facts_of("deepseek-v3"), request(163840, min_concurrency=most + 2), pool(H200))
    assert many.layout.data > 1
    assert many.layout.expert_parallel


def test_a_model_without_power_of_two_beyond_two() -> None:
    """phi-4 has 10 KV heads and a vocabulary that 5 does not divide: only 1 and 2 are legal; beyond, stages."""
    choice = chosen(facts_of("phi-4"), request(16384), pool(L4))
    assert choice.legal_tensor == (1, 2)
    assert choice.layout.pipeline > 1 or choice.layout.tensor == 2
    assert any("KV heads" in entry.reason for entry in choice.considered)


def test_on_pcie_stages_come_before_wide_tensor_parallelism() -> None:
    wide = chosen(facts_of("llama-70b"), request(4096), pool(L4))
    assert wide.layout == Layout(tensor=2, pipeline=4)
    assert chosen(facts_of("llama-70b"), request(32768), pool(H100)).layout == Layout(tensor=4)


def test_products_on_which_the_same_layout_fits_are_alternatives() -> None:
    choice = chosen(facts_of("llama-8b"), request(), pool(H100), pool(L4), pool(H200))
    assert [each.product for each in choice.pools] == [L4, H100, H200]
    assert choice.planned_for.product == L4
    longer = chosen(facts_of("llama-8b"), request(131072), pool(H100), pool(L4))
    assert [each.product for each in longer.pools] == [H100]


def test_the_users_order_of_products_comes_first() -> None:
    asked = request(products=(H200, L4))
    choice = chosen(facts_of("llama-8b"), asked, pool(H100), pool(L4), pool(H200))
    assert choice.pools[0].product == H200
    assert {each.product for each in choice.pools} == {H200, L4}


def test_the_cheaper_of_two_pools_with_prices() -> None:
    cheap, dear = pool(H200, price=2.0), pool(H100, price=3.0)
    assert chosen(facts_of("llama-8b"), request(), dear, cheap).pools[0].product == H200


def test_slices_and_shared_gpus_are_one_per_replica() -> None:
    problem = refused(facts_of("llama-8b"), request(given=given(tensor=2)), pool(single=True))
    assert problem.reason is Reason.INVALID_PARALLELISM
    assert "more than any node offers to one pod (1)" in problem.message


def test_given_degrees_are_kept_to() -> None:
    choice = chosen(facts_of("llama-8b"), request(given=given(tensor=2, pipeline=2)))
    assert choice.layout == Layout(tensor=2, pipeline=2)
    assert "is given and legal" in choice.reason


@pytest.mark.parametrize(("tensor", "rule"), [(3, "attention heads"), (16, "more than any node offers")])
def test_given_degrees_that_cannot_be(tensor: int, rule: str) -> None:
    problem = refused(facts_of("llama-8b"), request(given=given(tensor=tensor)))
    assert problem.reason is Reason.INVALID_PARALLELISM
    assert rule in problem.message
    assert "1, 2, 4, 8" in problem.message


def test_several_nodes_only_when_allowed() -> None:
    """671 B parameters in fp8 do not fit one node of eight H100."""
    nodes = pool(H100, nodes=4)
    assert refused(facts_of("deepseek-v3"), request(), nodes).reason is Reason.INSUFFICIENT_GPU_MEMORY
    choice = chosen(facts_of("deepseek-v3"), request(allow_multi_node=True), nodes)
    assert choice.layout == Layout(tensor=8, pipeline=2, nodes=2)
    assert choice.layout.gpus_per_node == 8


def test_too_small_names_shortfall_length_and_what_would_do() -> None:
    problem = refused(facts_of("llama-8b"), request(131072), pool(L4, gpus=1))
    assert problem.reason is Reason.INSUFFICIENT_GPU_MEMORY
    assert "is short of" in problem.message
    assert "set spec.model.maxLength to at most" in problem.message
    assert "NVIDIA-L40S" in problem.message
    assert problem.considered
    assert problem.legal_tensor == (1,)


def test_the_named_length_is_the_longest_that_fits() -> None:
    problem = refused(facts_of("llama-8b"), request(131072), pool(L4, gpus=1))
    longest = int(problem.message.partition("spec.model.maxLength to at most ")[2].split(",")[0].split(";")[0])
    assert chosen(facts_of("llama-8b"), request(longest), pool(L4, gpus=1)).use.fits
    refused(facts_of("llama-8b"), request(longest + 512), pool(L4, gpus=1))


def test_concurrency_that_is_not_met_names_replicas() -> None:
    problem = refused(facts_of("llama-8b"), request(131072, min_concurrency=200))
    assert problem.reason is Reason.CONCURRENCY_UNMET
    assert "concurrency.min=200" in problem.message
    assert "scaling.minReplicas=" in problem.message


def test_an_accelerator_that_cannot_run_the_model() -> None:
    problem = refused(facts_of("gpt-oss-120b"), request(), pool("Tesla-T4"))
    assert problem.reason is Reason.UNSUPPORTED_ON_ACCELERATOR
    assert "7.5" in problem.message


def test_a_product_that_is_not_there() -> None:
    problem = refused(facts_of("llama-8b"), request(products=("NVIDIA-B200",)))
    assert problem.reason is Reason.NO_ACCELERATOR_NODES
    assert "NVIDIA-B200" in problem.message
    assert H100 in problem.message


def test_a_given_cache_is_taken_as_it_is() -> None:
    size = 10 * BYTES_PER_GIB
    choice = chosen(facts_of("llama-8b"), request(kv_cache_bytes=size))
    assert choice.use.kv_available_bytes == size
    assert choice.use.kv_tokens == size // (128 * 1024) // 16 * 16
    assert choice.confidence is Confidence.HIGH


def test_a_given_cache_beyond_the_gpu_is_refused() -> None:
    problem = refused(facts_of("llama-8b"), request(kv_cache_bytes=70 * BYTES_PER_GIB), pool(gpus=1))
    assert "set engine.kvCacheMemory to at most" in problem.message


def test_a_given_cache_below_one_request_is_refused() -> None:
    problem = refused(facts_of("llama-8b"), request(131072, kv_cache_bytes=BYTES_PER_GIB), pool(gpus=1))
    assert "set engine.kvCacheMemory to at least" in problem.message


def test_a_low_share_of_memory_is_named() -> None:
    problem = refused(facts_of("llama-8b"), request(gpu_memory_utilization=0.2), pool(gpus=1))
    assert "raise engine.gpuMemoryUtilization=0.2" in problem.message


def test_marginal_only_when_there_is_nothing_else() -> None:
    """A GPU on which the model fits with less than the margin is taken alone, and passed over beside a larger one."""
    facts, asked = facts_of("llama-8b"), request()
    room = next(
        memory * BYTES_PER_GIB // 4
        for memory in range(60, 160)
        if isinstance(choose(facts, asked, (pool(gpus=1, usable_bytes=memory * BYTES_PER_GIB // 4),)), Choice)
    )
    tight = pool("NVIDIA-TIGHT", gpus=1, usable_bytes=room)
    alone = chosen(facts, asked, tight)
    assert alone.use.marginal
    assert "less than the margin" in alone.reason
    beside = chosen(facts, asked, tight, pool())
    assert [each.product for each in beside.pools] == [H100]


def test_encoders_have_no_kv_cache() -> None:
    choice = chosen(facts_of("llama-8b"), request(keeps_kv_cache=False))
    assert choice.use.demand is None
    assert "KV cache" not in choice.reason


def test_an_unknown_engine_lowers_confidence() -> None:
    asked = PlanRequest(
        resource_name="nvidia.com/gpu", settings=EngineSettings(max_length_tokens=8192), vllm_version="0.99.0"
    )
    assert chosen(facts_of("llama-8b"), asked).confidence is Confidence.LOW


def test_what_an_engine_was_seen_to_use_counts() -> None:
    facts, asked = facts_of("llama-8b"), request()
    first = chosen(facts, asked)
    from vllm_operator.planner.choice.calibration import overhead_key

    key = overhead_key(facts, first.layout, first.settings, H100, "0.32.0")
    again = chosen(facts, request(observed_overheads={key: 3 * BYTES_PER_GIB}))
    assert again.use.overhead_bytes == 3 * BYTES_PER_GIB
    assert again.confidence is Confidence.HIGH
