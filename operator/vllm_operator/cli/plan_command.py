"""``kubectl-llm plan``: the planner without an operator, for accelerators that are given or for a cluster's own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer
from typer import Context

from vllm_operator.cli import options
from vllm_operator.cli.errors import CommandError
from vllm_operator.cli.offline_plan import Question, offline_report
from vllm_operator.cli.option_values import share, whole_number
from vllm_operator.cli.plan_output import as_json, plan_document, plan_text
from vllm_operator.planner.choice.request import GivenLayout

NOTHING_FITS: Final = 3
_MAX_REQUESTS: Final = 65_536
_DEFAULT_UTILIZATION: Final = 0.92
"""vLLM's own."""
_WITH_A_FILE: Final = frozenset(
    {"filename", "model_config", "weights_gib", "context", "namespace", "explain", "output"}
)
_FILE_ONLY: Final = frozenset({"context", "namespace"})


def plan(
    ctx: Context,
    model_config: options.ModelConfig = None,
    weights_gib: options.WeightsGib = None,
    max_length: options.MaxLength = None,
    concurrency: Annotated[
        int | None,
        typer.Option(
            parser=whole_number(1, _MAX_REQUESTS),
            metavar="N",
            help="Requests of full length that must fit at once. Default: 1.",
        ),
    ] = None,
    accelerator: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PRODUCT[=USABLE_GIB]:PER_NODE[xNODES]",
            help="Accelerators to choose from, such as NVIDIA-H100-80GB-HBM3:8x2; may be given several times. "
            "USABLE_GIB: memory that an engine sees on one, needed where the product is not known.",
        ),
    ] = None,
    dtype: options.Dtype = "auto",
    quantization: options.Quantization = None,
    kv_cache_dtype: options.KvCacheDtype = "auto",
    gpu_memory_utilization: Annotated[
        float | None,
        typer.Option(
            parser=share, metavar="SHARE", help="Share of a GPU's memory that the engine may take. Default: 0.92."
        ),
    ] = None,
    max_num_seqs: Annotated[
        int | None,
        typer.Option(
            parser=whole_number(1, _MAX_REQUESTS),
            metavar="N",
            help="vLLM's option of this name. Default: 64, or the concurrency where that is more.",
        ),
    ] = None,
    max_num_batched_tokens: options.BatchedTokens = None,
    enforce_eager: Annotated[bool, typer.Option("--enforce-eager", help="vLLM's option: no CUDA graphs.")] = False,
    tensor: options.Tensor = None,
    pipeline: options.Pipeline = None,
    data: options.Data = None,
    allow_multi_node: Annotated[
        bool,
        typer.Option(
            "--allow-multi-node/--no-allow-multi-node",
            help="Whether a replica may span the nodes of an accelerator that has several.",
        ),
    ] = True,
    filename: Annotated[
        Path | None,
        typer.Option(
            "--filename",
            "-f",
            metavar="FILE",
            help="YAML of an LLMService: plan it for the nodes of a cluster, which is only read.",
        ),
    ] = None,
    context: Annotated[
        str | None, typer.Option(metavar="NAME", help="With -f: context of the kubeconfig. Default: the current one.")
    ] = None,
    namespace: Annotated[
        str | None,
        typer.Option(
            "--namespace", "-n", metavar="NAME", help="With -f: the service's namespace. Default: the file's."
        ),
    ] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Also show what else was looked at, as a table.")] = False,
    output: options.OutputForm = options.Output.TABLE,
) -> None:
    """Plan how many GPUs a model takes, cut how, and why; nothing is started.

    Ends with status 0 when there is a plan, 3 when nothing fits, 2 when something given is wrong.
    """
    given = _given(ctx)
    if ctx.invoked_subcommand is not None:
        if given:
            raise CommandError(f"{_flag(given[0])} belongs after '{ctx.invoked_subcommand}'")
        return
    if filename is not None:
        refused = [name for name in given if name not in _WITH_A_FILE]
        if refused:
            raise CommandError(f"{_flag(refused[0])} cannot be used with -f: the file and the cluster say it")
        from vllm_operator.cli.service_plan import service_report

        report = service_report(filename, model_config, weights_gib, context=context, namespace=namespace)
    else:
        if not _FILE_ONLY.isdisjoint(given):
            raise CommandError("--context and --namespace are for -f: without it no cluster is asked")
        if model_config is None or max_length is None or not accelerator:
            raise CommandError("plan needs --model-config, --max-length and --accelerator, or -f; see plan --help")
        report = offline_report(
            Question(
                model_config=model_config,
                max_length=max_length,
                accelerators=accelerator,
                weights_bytes=weights_gib,
                concurrency=concurrency or 1,
                dtype=dtype,
                quantization=quantization,
                kv_cache_dtype=kv_cache_dtype,
                gpu_memory_utilization=gpu_memory_utilization or _DEFAULT_UTILIZATION,
                max_num_seqs=max_num_seqs,
                max_num_batched_tokens=max_num_batched_tokens,
                enforce_eager=enforce_eager,
                layout=GivenLayout(tensor=tensor, pipeline=pipeline, data=data),
                allow_multi_node=allow_multi_node,
            )
        )
    json_wanted = output is options.Output.JSON
    typer.echo(as_json(plan_document(report)) if json_wanted else plan_text(report, explain=explain))
    if not report.feasible:
        raise typer.Exit(NOTHING_FITS)


def _given(ctx: Context) -> list[str]:
    """Names of the parameters that were written on the command line."""
    sources = ((name, ctx.get_parameter_source(name)) for name in ctx.params)
    return [name for name, source in sources if source is not None and source.name == "COMMANDLINE"]


def _flag(parameter: str) -> str:
    return f"--{parameter.replace('_', '-')}"
