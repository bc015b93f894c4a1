"""What holds of the constraints for any model within the bounds of its facts."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from vllm_operator.planner.constraints.check import RULES, can_run_on, legal_tensor, violations
from vllm_operator.planner.device import Device
from vllm_operator.planner.engine_settings import EngineSettings
from vllm_operator.planner.layout import Layout
from vllm_operator_api.model import (
    AttentionCache,
    ExpertFacts,
    IndexCache,
    LatentCache,
    LayerShape,
    ModelFacts,
    QuantizationFacts,
    StateCache,
    WeightFacts,
    WeightsSource,
)

# Numbers that models have, and any within the bounds.
dimensions = st.sampled_from([1, 2, 3, 4, 8, 10, 16, 24, 32, 40, 64, 128, 1856, 4096, 14336]) | st.integers(1, 2**31)
methods = st.sampled_from([
    "fp8", "awq", "gptq", "compressed-tensors", "modelopt", "modelopt_fp4", "mxfp4", "mxfp8", "quark", "nobody's",
])  # fmt: skip
attention = st.builds(
    AttentionCache,
    kind=st.sampled_from(["full", "sliding", "chunked"]),
    kv_heads=dimensions,
    head_dim=dimensions,
    value_dim=dimensions,
)
latent = st.builds(LatentCache, rank=dimensions, rope_dim=st.just(64), sparse=st.booleans())
index = st.builds(IndexCache, head_dim=dimensions)
state = st.builds(
    StateCache,
    kind=st.sampled_from(["mamba1", "mamba2", "gdn", "kda", "lightning", "short_conv"]),
    heads=dimensions,
    head_dim=dimensions,
    state_size=dimensions,
    key_heads=dimensions,
)
shapes = st.builds(LayerShape, caches=st.lists(attention | latent | index | state, max_size=3).map(tuple))
quantizations = st.builds(
    QuantizationFacts,
    method=methods,
    weight_bits=st.integers(1, 32),
    activation_bits=st.none() | st.integers(1, 32),
    group_size=st.none() | dimensions,
    block=st.none() | st.tuples(dimensions, dimensions),
    kv_cache_dtype=st.sampled_from([None, "fp8", "auto"]),
    ignores_attention=st.booleans(),
    ignores_shared_experts=st.booleans(),
)
experts = st.builds(ExpertFacts, experts=dimensions, experts_per_token=dimensions, intermediate_size=dimensions)


@st.composite
def models(draw: st.DrawFn) -> ModelFacts:
    kinds = draw(st.lists(shapes, min_size=1, max_size=3))
    return ModelFacts(
        source="any",
        architecture=draw(st.sampled_from(["LlamaForCausalLM", "WhisperForConditionalGeneration", "Nobody's"])),
        hidden_size=draw(dimensions),
        vocab_size=draw(dimensions),
        attention_heads=draw(dimensions),
        layer_shapes=tuple(kinds),
        layer_pattern="".join(chr(ord("a") + position) for position in range(len(kinds))),
        intermediate_sizes=tuple(draw(st.lists(dimensions, max_size=3))),
        experts=draw(st.none() | experts),
        quantization=draw(st.none() | quantizations),
        weights=WeightFacts(total_bytes=1, source=WeightsSource.GIVEN),
    )


layouts = st.builds(
    Layout,
    tensor=st.integers(1, 64),
    pipeline=st.integers(1, 8),
    data=st.integers(1, 8),
    expert_parallel=st.booleans(),
    nodes=st.integers(1, 4),
)
wild_layouts = st.builds(
    Layout,
    **{name: st.integers(-3, 10**9) for name in ("tensor", "pipeline", "data", "nodes")},
    expert_parallel=st.booleans(),
)
devices = st.builds(
    Device,
    vendor=st.sampled_from(["nvidia", "amd", "intel", "habana", "cpu"]),
    compute_capability=st.none() | st.tuples(st.integers(0, 20), st.integers(0, 9)),
)
engine_settings = st.builds(
    EngineSettings,
    max_length_tokens=st.just(8192),
    kv_cache_dtype=st.sampled_from(["auto", "fp8", "bfloat16"]),
    dtype=st.sampled_from(["auto", "half", "bfloat16", "float32"]),
    quantization=st.sampled_from([None, "fp8", "mxfp8", "nobody's"]),
)
cases: dict[str, Any] = {"facts": models(), "settings_": engine_settings, "device": devices}


@settings(max_examples=300)
@given(layout=layouts | wild_layouts, **cases)
def test_rules_never_raise_and_say_something(
    facts: ModelFacts, layout: Layout, settings_: EngineSettings, device: Device
) -> None:
    broken = violations(facts, layout, settings_, device)
    numbers = iter([number for number, _ in RULES])
    assert all(violation.rule in numbers for violation in broken)  # in the order of the rules
    assert all(violation.message for violation in broken)


@settings(max_examples=200)
@given(largest=st.integers(-1, 100), **cases)
def test_a_legal_degree_is_legal_under_every_rule(
    facts: ModelFacts, largest: int, settings_: EngineSettings, device: Device
) -> None:
    legal = legal_tensor(facts, settings_, largest, device)
    assert list(legal) == sorted(set(legal))
    runs = can_run_on(facts, settings_, device)
    for tensor in range(1, min(largest, 64) + 1):
        broken = [v for v in violations(facts, Layout(tensor=tensor), settings_, device) if v.rule != "C16"]
        assert (tensor in legal) == (not broken)
        if runs is None and tensor in legal:
            assert violations(facts, Layout(tensor=tensor), settings_, device) == ()


@settings(max_examples=200)
@given(**cases)
def test_an_unknown_capability_refuses_no_more_than_a_known_one(
    facts: ModelFacts, settings_: EngineSettings, device: Device
) -> None:
    unknown = Device(vendor=device.vendor)
    assert can_run_on(facts, settings_, unknown) is None or can_run_on(facts, settings_, device) is not None
    assert set(legal_tensor(facts, settings_, 16, device)) <= set(legal_tensor(facts, settings_, 16, unknown))


@settings(max_examples=200)
@given(**cases)
def test_whole_experts_allow_every_degree_that_cut_ones_do(
    facts: ModelFacts, settings_: EngineSettings, device: Device
) -> None:
    cut = legal_tensor(facts, settings_, 64, device)
    assert set(cut) <= set(legal_tensor(facts, settings_, 64, device, expert_parallel=True))
