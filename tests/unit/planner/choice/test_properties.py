"""What holds for every model, length and cluster."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.models import CONFIGS, facts_of, pool

from vllm_operator.planner.choice.choose import choose
from vllm_operator.planner.choice.explain import MAX_CONSIDERED
from vllm_operator.planner.choice.plan import Choice
from vllm_operator.planner.choice.request import GivenLayout, PlanRequest
from vllm_operator.planner.constraints.check import violations
from vllm_operator.planner.engine_settings import EngineSettings
from vllm_operator.planner.inventory.pool import GpuPool
from vllm_operator.planner.problem import PlanProblem
from vllm_operator_api.model import ModelFacts
from vllm_operator_api.quantities import BYTES_PER_GIB

LENGTHS = st.integers(256, 131_072)
PRODUCTS = ("Tesla-T4", "NVIDIA-L4", "NVIDIA-A100-SXM4-40GB", "NVIDIA-L40S", "NVIDIA-H100-80GB-HBM3", "NVIDIA-H200")


@st.composite
def models(draw: st.DrawFn) -> ModelFacts:
    """Well-known models, and dense and sparse ones of any shape."""
    if draw(st.booleans()):
        return facts_of(draw(st.sampled_from(sorted(CONFIGS))))
    kv_heads = draw(st.sampled_from((1, 2, 3, 4, 8, 10)))
    heads = kv_heads * draw(st.integers(1, 8))
    layers = draw(st.integers(2, 96))
    config: dict[str, Any] = {
        "hidden_size": heads * 128,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": 128,
        "intermediate_size": draw(st.sampled_from((4096, 11008, 14336, 18944))),
        "vocab_size": draw(st.sampled_from((32000, 100352, 128256, 151936))),
    }
    if draw(st.booleans()):
        kinds = ["full_attention"] + ["sliding_attention"] * draw(st.integers(1, 5))
        config["layer_types"] = (kinds * layers)[:layers]
        config["sliding_window"] = draw(st.sampled_from((128, 1024, 4096)))
        return facts_of("gpt-oss-120b", **config, quantization_config=None)
    return facts_of("llama-8b", **config)


@st.composite
def requests(draw: st.DrawFn) -> PlanRequest:
    return PlanRequest(
        resource_name="nvidia.com/gpu",
        settings=EngineSettings(
            max_length_tokens=draw(LENGTHS),
            max_requests=draw(st.sampled_from((8, 64, 256))),
            gpu_memory_utilization=draw(st.sampled_from((0.5, 0.9, 0.92))),
            enforce_eager=draw(st.booleans()),
            kv_cache_dtype=draw(st.sampled_from(("auto", "fp8"))),
        ),
        min_concurrency=draw(st.sampled_from((1, 1, 4, 16))),
        allow_multi_node=draw(st.booleans()),
        vllm_version="0.32.0",
    )


def any_pool(product: str, gpus: int) -> GpuPool:
    return pool(product, gpus=gpus, nodes=4)


POOLS = st.builds(any_pool, st.sampled_from(PRODUCTS), st.sampled_from((1, 2, 4, 8)))
CLUSTERS = st.lists(POOLS, min_size=1, max_size=4)


@given(models(), requests(), CLUSTERS)
@settings(max_examples=150, deadline=None)
def test_a_choice_is_legal_fits_and_is_bounded(facts: ModelFacts, asked: PlanRequest, pools: list[GpuPool]) -> None:
    choice = choose(facts, asked, pools)
    if isinstance(choice, PlanProblem):
        assert choice.message
        assert len(choice.message) <= 1024
        assert len(choice.considered) <= MAX_CONSIDERED
        return
    assert choice.use.fits
    assert choice.use.demand is None or choice.use.max_concurrency >= asked.min_concurrency
    assert len(choice.considered) <= MAX_CONSIDERED
    assert len(choice.reason) <= 1024
    for each in choice.pools:
        assert violations(facts, choice.layout, choice.settings, each.device) == ()
        assert choice.layout.gpus_per_node <= each.largest_replica
    if choice.layout.pipeline == choice.layout.data == 1:
        assert choice.layout.tensor in choice.legal_tensor


@given(models(), requests(), POOLS, st.integers(0, 64 * BYTES_PER_GIB))
@settings(max_examples=150, deadline=None)
def test_more_memory_never_needs_more_gpus(facts: ModelFacts, asked: PlanRequest, small: GpuPool, more: int) -> None:
    before = choose(facts, asked, [small])
    after = choose(facts, asked, [replace(small, usable_bytes=small.usable_bytes + more)])
    if isinstance(before, Choice):
        assert isinstance(after, Choice)
        assert after.layout.gpus <= before.layout.gpus


@given(models(), requests(), CLUSTERS, LENGTHS)
@settings(max_examples=150, deadline=None)
def test_a_longer_context_never_needs_fewer_gpus(
    facts: ModelFacts, asked: PlanRequest, pools: list[GpuPool], other: int
) -> None:
    shorter, longer = sorted((asked.settings.max_length_tokens, other))
    short = choose(facts, with_length(asked, shorter), pools[:1])
    long = choose(facts, with_length(asked, longer), pools[:1])
    if isinstance(long, Choice):
        assert isinstance(short, Choice)
        assert short.layout.gpus <= long.layout.gpus


@given(models(), requests(), CLUSTERS)
@settings(max_examples=100, deadline=None)
def test_a_choice_given_back_by_hand_is_accepted(facts: ModelFacts, asked: PlanRequest, pools: list[GpuPool]) -> None:
    """The same rules check a manual choice: what the planner takes, a user may set."""
    choice = choose(facts, asked, pools)
    if not isinstance(choice, Choice):
        return
    layout = choice.layout
    by_hand = GivenLayout(
        tensor=layout.tensor,
        pipeline=layout.pipeline,
        data=layout.data,
        expert_parallel=layout.expert_parallel,
    )
    again = choose(facts, replace(asked, given=by_hand), pools)
    assert isinstance(again, Choice), again
    assert (again.layout.tensor, again.layout.pipeline, again.layout.data) == (
        layout.tensor,
        layout.pipeline,
        layout.data,
    )


@given(models(), requests(), CLUSTERS, st.randoms())
@settings(max_examples=100, deadline=None)
def test_a_choice_is_a_function_of_its_inputs(
    facts: ModelFacts, asked: PlanRequest, pools: list[GpuPool], random: Any
) -> None:
    """The same bytes come out, whatever the order in which the pools are told."""
    shuffled = list(pools)
    random.shuffle(shuffled)
    assert repr(choose(facts, asked, pools)) == repr(choose(facts, asked, pools))
    first, second = choose(facts, asked, pools), choose(facts, asked, shuffled)
    assert type(first) is type(second)
    if isinstance(first, Choice) and isinstance(second, Choice):
        assert (first.layout, first.pools, first.reason) == (second.layout, second.pools, second.reason)


@given(models(), requests(), CLUSTERS)
@settings(max_examples=60, deadline=None)
def test_a_wider_cluster_never_refuses_what_a_narrower_one_takes(
    facts: ModelFacts, asked: PlanRequest, pools: list[GpuPool]
) -> None:
    if isinstance(choose(facts, asked, pools[:1]), Choice):
        assert isinstance(choose(facts, asked, pools), Choice)


def with_length(asked: PlanRequest, length: int) -> PlanRequest:
    return replace(asked, settings=replace(asked.settings, max_length_tokens=length))
