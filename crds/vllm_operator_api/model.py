"""What the planner knows of a model: shapes, what its layers keep per request, and the bytes of its weights.

Plain dataclasses, so that the planner is quick to import and to call. Their bounds are checked where untrusted bytes
become facts (a termination message, ``spec.model.facts``): pydantic reads the same annotations. Beyond the bounds a
number is no fact, and no arithmetic is done with it. All sizes are those of the whole model, before it is cut.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Final, Literal

from vllm_operator_api.bounds import Between, Sized

MAX_LAYERS: Final = 1024
"""Layers of a model at most; the largest known has 126 (Llama-3.1-405B)."""
MAX_LAYER_SHAPES: Final = 26
"""One letter each in ``ModelFacts.layer_pattern``."""

Dimension = Annotated[int, Between(1, 2**31)]
Bytes = Annotated[int, Between(0, 10**15)]
Tokens = Annotated[int, Between(1, 2**40)]
Name = Annotated[str, Sized(128)]


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionCache:
    """Keys and values of every token, or of the last ones."""

    kind: Literal["full", "sliding", "chunked"]
    kv_heads: Dimension
    head_dim: Dimension
    value_dim: Dimension
    """Mostly ``head_dim``."""
    window_tokens: Tokens | None = None
    """Sliding window or chunk; None for ``full``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentCache:
    """One latent per token (multi-head latent attention): tensor parallelism does not divide it."""

    kind: Literal["latent"] = "latent"
    rank: Dimension
    """``kv_lora_rank``."""
    rope_dim: Annotated[int, Between(0, 2**31)] = 0
    """``qk_rope_head_dim``, kept beside the latent."""
    sparse: bool = False
    """Read through an index (DeepSeek sparse attention)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexCache:
    """The index of sparse attention: one key per token, the same on every GPU."""

    kind: Literal["index"] = "index"
    head_dim: Dimension


@dataclass(frozen=True, slots=True, kw_only=True)
class StateCache:
    """A state of constant size per request (state-space and linear attention), cut by heads."""

    kind: Literal["mamba1", "mamba2", "gdn", "kda", "lightning", "short_conv"]
    heads: Dimension
    """Heads of the state (GDN, KDA: value heads)."""
    head_dim: Dimension
    """Width of one of them (GDN, KDA: of a value head)."""
    state_size: Dimension
    """Second width of the recurrent state (Mamba's ``ssm_state_size``; GDN, KDA: width of a key head)."""
    key_heads: Dimension = 1
    """GDN, KDA: key heads. Mamba2: ``n_groups``."""
    conv_kernel: Annotated[int, Between(0, 1024)] = 0
    """Width of the convolution before it; 0: none."""


Cache = AttentionCache | LatentCache | IndexCache | StateCache


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerShape:
    """One kind of layer: what it keeps. Empty for one that keeps nothing (a plain MLP, a layer that shares KV)."""

    caches: Annotated[tuple[Cache, ...], Sized(8)] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpertFacts:
    """The mixture of experts of a model that has one."""

    experts: Dimension
    """Routed experts per layer."""
    experts_per_token: Dimension
    intermediate_size: Dimension
    """Of one routed expert."""
    input_size: Dimension | None = None
    """What an expert takes per token, where that is a latent and not as wide as the hidden state."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizationFacts:
    """How the checkpoint's weights are quantised, as its configuration says."""

    method: Name
    """vLLM's name: fp8, awq, gptq, compressed-tensors, modelopt, modelopt_fp4, mxfp4 …"""
    weight_bits: Annotated[int, Between(1, 32)]
    activation_bits: Annotated[int, Between(1, 32)] | None = None
    """None: activations are not quantised (weight-only)."""
    group_size: Dimension | None = None
    """Weights that share a scale, along the input dimension; None: per channel or per tensor."""
    block: Annotated[tuple[Dimension, Dimension], Sized(2, least=2)] | None = None
    """Output and input edge of a block that shares a scale (fp8: 128 x 128)."""
    kv_cache_dtype: Name | None = None
    """Data type of the KV cache that the checkpoint asks for (``kv_cache_scheme``, ``kv_cache_quant_algo``)."""
    ignores_attention: bool = False
    """The projections of attention are left unquantised."""
    ignores_shared_experts: bool = False


class WeightsSource(StrEnum):
    """Where the bytes of the weights come from, the surest first."""

    GIVEN = "given"
    HEADERS = "headers"
    """Sum over the tensors of the safetensors headers that vLLM loads."""
    FILES = "files"
    """Sizes of the safetensors files that vLLM reads."""
    INDEX = "index"
    """``metadata.total_size`` of the index."""
    COMPUTED = "computed"
    """From the shapes and the quantisation of the configuration: an estimate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightFacts:
    """Bytes that vLLM loads, over all GPUs of one replica that is cut without copies. Layers for multi-token
    prediction are not among them: vLLM skips them unless it speculates.
    """

    total_bytes: Annotated[int, Between(1, 10**15)]
    source: WeightsSource
    embedding_bytes: Bytes = 0
    """Input embedding: on the first pipeline stage."""
    head_bytes: Bytes = 0
    """Output projection: on the last stage; 0 when it is the embedding (tied)."""
    expert_bytes: Bytes = 0
    """Routed experts."""
    replicated_bytes: Bytes = 0
    """What every GPU of a tensor-parallel group holds whole (norms, routers, latent projections)."""
    encoder_bytes: Bytes = 0
    """Vision or audio encoder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """Everything the planner needs to know of a model. Numbers are as in the model's own configuration."""

    source: Annotated[str, Sized(1024)]
    """Where it was read, for the user."""
    revision: Name | None = None
    """Commit of a hub repository."""
    architecture: Name
    model_type: Name | None = None
    hidden_size: Dimension
    vocab_size: Dimension
    attention_heads: Dimension
    layer_shapes: Annotated[tuple[LayerShape, ...], Sized(MAX_LAYER_SHAPES, least=1)]
    layer_pattern: Annotated[str, Sized(MAX_LAYERS, least=1)]
    """One letter per layer, in order: ``a`` is ``layer_shapes[0]``."""
    intermediate_sizes: Annotated[tuple[Dimension, ...], Sized(64)] = ()
    """Distinct widths of the dense feed-forward blocks that tensor parallelism cuts: dense layers, shared experts."""
    experts: ExpertFacts | None = None
    max_position_embeddings: Tokens | None = None
    dtype: Name | None = None
    quantization: QuantizationFacts | None = None
    weights: WeightFacts
    multimodal: bool = False
    guesses: Annotated[tuple[Annotated[str, Sized(200)], ...], Sized(8)] = ()
    """What had to be guessed, for the user; any makes the plan's confidence low."""

    @property
    def layers(self) -> int:
        """Number of layers."""
        return len(self.layer_pattern)

    def shape_of(self, layer: int) -> LayerShape:
        """Shape of the layer at this position, from 0."""
        return self.layer_shapes[ord(self.layer_pattern[layer]) - ord("a")]

    def shapes_by_letter(self) -> tuple[tuple[str, LayerShape], ...]:
        """Each kind of layer with its letter in ``layer_pattern``."""
        return tuple((chr(ord("a") + index), shape) for index, shape in enumerate(self.layer_shapes))
