"""Which layers look at a window of the last tokens only, as vLLM's models decide it.

The rule of most (``models/llama.py`` and others): ``layer_types`` names each layer, and ``sliding_window`` is the
window of those that slide. Without ``layer_types`` the window is every layer's (``engine/arg_utils.py``: only then
``CacheConfig.sliding_window`` is set). Configurations that leave ``layer_types`` out have it from a default of their
model type in transformers.
"""

from __future__ import annotations

from typing import Final, Literal

from vllm_operator.planner.facts.fields import Fields

SLIDING: Final = frozenset({"sliding_attention", "local_attention", "sliding"})
CHUNKED: Final = frozenset({"chunked_attention", "chunked"})
FULL: Final = frozenset(
    {"full_attention", "global_attention", "attention", "dense", "indexed_attention", "hybrid", "sparse_attention"}
)
"""Names in ``layer_types`` that vLLM's models know."""

Kind = Literal["full", "sliding", "chunked"]
Window = tuple[Kind, int | None]
_WINDOW_AND_ITSELF: Final = frozenset({"cohere2", "cohere2_moe"})
"""Their window does not count the token itself (``models/commandr.py``: ``sliding_window + 1``)."""
_SWITCHED: Final = frozenset({"qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "qwen2_vl", "qwen2_5_vl", "smollm3", "mimo"})
"""``sliding_window`` counts only with ``use_sliding_window`` (transformers drops it)."""
_WITHOUT_WINDOW: Final = frozenset({"muse_glimmer", "minimax_m2", "qwen3_vl_moe_text", "qwen3_vl_text"})


def windows(text: Fields, layers: int) -> tuple[list[Window], list[str]]:
    """Kind and window of every layer, and what had to be guessed."""
    model_type = text.name("model_type") or ""
    window = _window(text, model_type)
    kinds = text.names("layer_types")
    if kinds is None:
        kinds = _default_kinds(text, model_type, layers)
    if kinds is None:
        if window is None:
            return [("full", None)] * layers, []
        return [("sliding", window)] * layers, []
    if len(kinds) < layers:
        kinds = kinds + ["full_attention"] * (layers - len(kinds))
    guesses: list[str] = []
    found: list[Window] = []
    chunk = text.number("attention_chunk_size") or window
    for kind in kinds[:layers]:
        if kind in SLIDING and window is not None:
            found.append(("sliding", window))
        elif kind in CHUNKED and chunk is not None:
            found.append(("chunked", chunk))
        else:
            if kind not in SLIDING | CHUNKED | FULL:
                guesses.append(f"layers of the unknown kind {kind[:40]} are taken as full attention")
            found.append(("full", None))
    return found, sorted(set(guesses))


def _window(text: Fields, model_type: str) -> int | None:
    if model_type in _WITHOUT_WINDOW or (model_type in _SWITCHED and not text.flag("use_sliding_window")):
        return None
    given = text.count("sliding_window")
    if given == 0:  # some checkpoints say 0 for none (config/model.py)
        return None
    return given + 1 if model_type in _WINDOW_AND_ITSELF else given


def _default_kinds(text: Fields, model_type: str, layers: int) -> list[str] | None:
    if model_type.startswith("llama4"):
        return _llama4_kinds(text, layers)
    if model_type in _SWITCHED:
        first = text.count("max_window_layers")
        return ["sliding_attention" if layer >= first else "full_attention" for layer in range(layers)]
    pattern = text.raw("sliding_window_pattern")
    if isinstance(pattern, str) and pattern:  # EXAONE 4: "LLLG"
        shown = pattern[:layers]
        return [
            "full_attention" if shown[layer % len(shown)] == "G" else "sliding_attention" for layer in range(layers)
        ]
    every = text.count("sliding_window_pattern", "global_attn_every_n_layers")
    if every == 0:
        return None
    return ["sliding_attention" if (layer + 1) % every else "full_attention" for layer in range(layers)]


def _llama4_kinds(text: Fields, layers: int) -> list[str] | None:
    """Layers with RoPE look at a chunk, those without at everything (``models/llama4.py``)."""
    if text.number("attention_chunk_size") is None:
        return ["full_attention"] * layers
    with_rope = text.numbers("no_rope_layers")  # 1: with, 0: without, whatever the name says
    if not with_rope:
        interval = text.count("no_rope_layer_interval") or 4
        with_rope = [int((layer + 1) % interval != 0) for layer in range(layers)]
    return ["chunked_attention" if rope else "full_attention" for rope in with_rope]
