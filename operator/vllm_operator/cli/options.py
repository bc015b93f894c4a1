"""Options that several commands share, each with its parser and its help."""

from __future__ import annotations

from collections.abc import Collection
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import typer

from vllm_operator.cli.option_values import gib_as_bytes, one_of, whole_number
from vllm_operator.planner.engine_options import default_engine_options

MAX_LENGTH_TOKENS: Final = 16_777_216
"""As in the CRD (spec.model.maxLength)."""
MAX_BATCHED_TOKENS: Final = (1 << 24) - 1
MAX_DEGREE: Final = 1024
_MAX_GIB: Final = 100_000


class Output(StrEnum):
    """Forms of an answer."""

    TABLE = "table"
    JSON = "json"


def engine_choices(flag: str) -> Collection[str]:
    """Values that vLLM's option takes."""
    option = default_engine_options().by_flag.get(flag)
    return option.choices or () if option is not None else ()


def _dtypes() -> Collection[str]:
    return engine_choices("--dtype")


def _kv_cache_dtypes() -> Collection[str]:
    return engine_choices("--kv-cache-dtype")


def _quantization_methods() -> Collection[str]:
    return sorted(default_engine_options().quantization_methods)


ModelConfig = Annotated[
    Path | None,
    typer.Option(
        "--model-config",
        metavar="FILE",
        help="The model: its config.json, Mistral's params.json, a .gguf file, or a directory with one of them.",
    ),
]
MaxLength = Annotated[
    int | None,
    typer.Option(
        parser=whole_number(1, MAX_LENGTH_TOKENS), metavar="TOKENS", help="Longest request, prompt and answer together."
    ),
]
Dtype = Annotated[str, typer.Option(parser=one_of(_dtypes), metavar="DTYPE", help="vLLM's --dtype.")]
KvCacheDtype = Annotated[
    str, typer.Option(parser=one_of(_kv_cache_dtypes), metavar="DTYPE", help="vLLM's --kv-cache-dtype.")
]
Quantization = Annotated[
    str | None,
    typer.Option(
        parser=one_of(_quantization_methods),
        metavar="METHOD",
        help="vLLM's --quantization, for a checkpoint that is not quantised. Default: as the checkpoint says.",
    ),
]
BatchedTokens = Annotated[
    int | None,
    typer.Option(
        "--max-num-batched-tokens",
        parser=whole_number(1, MAX_BATCHED_TOKENS),
        metavar="N",
        help="vLLM's option of this name. Default: 8192, or 2048 where only that fits.",
    ),
]
Tensor = Annotated[
    int | None, typer.Option(parser=whole_number(1, MAX_DEGREE), metavar="N", help="Tensor-parallel degree.")
]
Pipeline = Annotated[int | None, typer.Option(parser=whole_number(1, MAX_DEGREE), metavar="N", help="Pipeline stages.")]
Data = Annotated[
    int | None,
    typer.Option(
        parser=whole_number(1, MAX_DEGREE),
        metavar="N",
        help="Data-parallel copies of attention, for mixtures of experts.",
    ),
]
WeightsGib = Annotated[
    int | None,
    typer.Option(
        "--weights-gib",
        parser=gib_as_bytes(_MAX_GIB),
        metavar="GIB",
        help="Size of the weights that vLLM loads. Default: from the files of a directory, else computed from the "
        "configuration.",
    ),
]
OutputForm = Annotated[Output, typer.Option("--output", "-o", help="Form of the answer.")]
