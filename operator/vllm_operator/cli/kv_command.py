"""``kubectl-llm plan kv``: what the engine's start-up line will say of its KV cache."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from vllm_operator.cli import options
from vllm_operator.cli.errors import CommandError
from vllm_operator.cli.kv_report import kv_report
from vllm_operator.cli.model_config import read_model
from vllm_operator.cli.option_values import gib_as_bytes, shown, whole_number
from vllm_operator.cli.plan_output import as_json, kv_document, kv_text
from vllm_operator.planner.device import Device
from vllm_operator.planner.engine_options import default_engine_options
from vllm_operator.planner.engine_settings import EngineSettings
from vllm_operator.planner.inventory.products import products_named
from vllm_operator.planner.layout import Layout

NOT_ENOUGH: Final = 3
_MAX_AVAILABLE_GIB: Final = 100_000
_MAX_BLOCK_TOKENS: Final = 65_536
_DEFAULT_BATCHED_TOKENS: Final = 8192
_DEVICES: Final = {"cuda": Device(compute_capability=(9, 0)), "cpu": Device(vendor="cpu")}
"""``cuda`` stands for Hopper. Others differ for latent attention only, in the size of a block."""


def _device(text: str) -> Device:
    if text in _DEVICES:
        return _DEVICES[text]
    found = products_named(text)
    if not found:
        raise typer.BadParameter(f"{shown(text)} is neither cuda nor cpu, nor a known product such as NVIDIA-B200")
    return Device(vendor=found[0].vendor, compute_capability=found[0].compute_capability)


def plan_kv(
    model_config: options.ModelConfig = None,
    available_gib: Annotated[
        int | None,
        typer.Option(
            "--available-gib",
            parser=gib_as_bytes(_MAX_AVAILABLE_GIB),
            metavar="GIB",
            help="Memory for the KV cache on each GPU: 'Available KV cache memory' in the engine's log.",
        ),
    ] = None,
    max_length: options.MaxLength = None,
    tensor: options.Tensor = None,
    pipeline: options.Pipeline = None,
    data: options.Data = None,
    block_size: Annotated[
        int | None,
        typer.Option(
            parser=whole_number(1, _MAX_BLOCK_TOKENS),
            metavar="TOKENS",
            help="vLLM's --block-size. Default: vLLM's choice for the model.",
        ),
    ] = None,
    kv_cache_dtype: options.KvCacheDtype = "auto",
    dtype: options.Dtype = "auto",
    max_num_batched_tokens: options.BatchedTokens = None,
    device: Annotated[
        Device | None,
        typer.Option(
            parser=_device,
            metavar="DEVICE",
            help="What the engine runs on: cpu, or a product such as NVIDIA-B200. Default: cuda, which is Hopper.",
        ),
    ] = None,
    output: options.OutputForm = options.Output.TABLE,
) -> None:
    """Tell what the engine will say of its KV cache when it starts: blocks, tokens and concurrency.

    Ends with status 3 where the engine would not start because one request of full length does not fit.
    """
    needed = {
        "--model-config": model_config,
        "--available-gib": available_gib,
        "--max-length": max_length,
        "--tensor": tensor,
    }
    missing = [flag for flag, value in needed.items() if value is None]
    if model_config is None or available_gib is None or max_length is None or tensor is None:
        raise CommandError(f"plan kv needs {' and '.join(missing)}")
    facts = read_model(model_config)
    copies = data or 1
    report = kv_report(
        facts,
        Layout(tensor=tensor, pipeline=pipeline or 1, data=copies, expert_parallel=copies > 1),
        EngineSettings(
            max_length_tokens=max_length,
            batched_tokens=max_num_batched_tokens or _DEFAULT_BATCHED_TOKENS,
            kv_cache_bytes=available_gib,
            kv_cache_dtype=kv_cache_dtype,
            block_tokens=block_size,
            dtype=dtype,
            keeps_kv_cache=facts.architecture not in default_engine_options().pooling_architectures,
        ),
        device or _DEVICES["cuda"],
        available_gib,
    )
    typer.echo(as_json(kv_document(report)) if output is options.Output.JSON else kv_text(report))
    if not report.fits:
        raise typer.Exit(NOT_ENOUGH)
