"""The command's answers as JSON and as text. Pure."""

from __future__ import annotations

import io
import json
import math
import textwrap
from typing import Any, Final

from vllm_operator.cli.kv_report import KvReport
from vllm_operator.cli.planning import PlanReport, Prediction
from vllm_operator.llmservice.plan_status import facts_from
from vllm_operator.planner.choice.words import degrees, gib, requests
from vllm_operator.planner.problem import Considered
from vllm_operator_api.quantities import BYTES_PER_GIB

_WIDTH: Final = 110
"""Columns of text, whatever the terminal: an answer looks the same everywhere."""
_LABEL_WIDTH: Final = 14
_DECIMALS: Final = 3


def plan_document(report: PlanReport) -> dict[str, Any]:
    """The plan with JSON's own types. Degrees are null where nothing fits, ``predicted`` where nothing was legal."""
    layout, prediction = report.layout, report.prediction
    return {
        "feasible": report.feasible,
        "reason": report.reason.value,
        "message": report.message,
        "tensor": layout.tensor if layout else None,
        "pipeline": layout.pipeline if layout else None,
        "data": layout.data if layout else None,
        "gpus": layout.gpus if layout else None,
        "nodes": layout.nodes if layout else None,
        "product": report.products[0] if report.products else None,
        "products": list(report.products),
        "confidence": prediction.confidence.value if prediction else None,
        "legalTensor": list(report.legal_tensor),
        "maxLength": prediction.settings.max_length_tokens if prediction else None,
        "maxNumSeqs": prediction.settings.max_requests if prediction else None,
        "maxNumBatchedTokens": prediction.settings.batched_tokens if prediction else None,
        "weightsSource": report.facts.weights.source.value if report.facts else None,
        "factsFrom": facts_from(report.facts) if report.facts else None,
        "predicted": _predicted(prediction) if prediction else None,
        "candidates": [_candidate(entry) for entry in report.considered],
    }


def _predicted(prediction: Prediction) -> dict[str, float | int | None]:
    """Per GPU of the fullest rank. Without a KV cache (models that only pool) its numbers are null."""
    use = prediction.use
    keeps_cache = use.demand is not None
    return {
        "weightsGiB": _gib(use.weights_bytes),
        "overheadGiB": _gib(use.overhead_bytes),
        "kvCacheGiB": _gib(max(0, use.kv_available_bytes)) if keeps_cache else None,
        "kvCacheTokens": use.kv_tokens if keeps_cache else None,
        "maxConcurrency": _down(use.max_concurrency) if keeps_cache else None,
        "maxLengthThatFits": prediction.longest_tokens if keeps_cache else None,
    }


def _candidate(entry: Considered) -> dict[str, Any]:
    return {
        "tensor": entry.layout.tensor,
        "pipeline": entry.layout.pipeline,
        "data": entry.layout.data,
        "product": entry.product,
        "fits": entry.fits,
        "reason": entry.reason,
    }


def _gib(size_bytes: int) -> float:
    return round(size_bytes / BYTES_PER_GIB, _DECIMALS)


def _down(number: float) -> float:
    """Rounded down, so that it never promises more than there is."""
    return math.floor(number * 100) / 100


def kv_document(report: KvReport) -> dict[str, Any]:
    """The engine's own numbers."""
    return {
        "blocks": report.blocks,
        "blocksPerRequest": report.blocks_per_request,
        "bytesPerBlock": report.bytes_per_block,
        "tokens": report.tokens,
        "concurrency": round(report.concurrency, 2),
        "fits": report.fits,
        "exact": report.exact,
    }


def as_json(document: dict[str, Any]) -> str:
    """The text of a document."""
    return json.dumps(document, indent=2, allow_nan=False, ensure_ascii=False)


def plan_text(report: PlanReport, *, explain: bool) -> str:
    """The plan for people; ``explain`` adds what else was looked at."""
    lines = [
        _line("Plan", _headline(report)),
        _line("Why" if report.feasible else "Why not", report.message),
        *(_memory_lines(report.prediction, feasible=report.feasible) if report.prediction else ()),
        _line("Legal tensor", degrees(report.legal_tensor)),
    ]
    if report.prediction is not None:
        lines.append(_line("Confidence", report.prediction.confidence.value))
    if report.facts is not None:
        lines.append(_line("Facts from", facts_from(report.facts)))
    if explain and report.considered:
        lines += ["", candidates_table(report.considered)]
    return "\n".join(lines)


def _headline(report: PlanReport) -> str:
    layout = report.layout
    if layout is None:
        return f"none: {report.reason.value}"
    gpus = "1 GPU" if layout.gpus == 1 else f"{layout.gpus} GPUs"
    where = "" if layout.nodes == 1 else f" on {layout.nodes} nodes"
    state = "" if report.reason.value == "Planned" else f" ({report.reason.value})"
    return f"{layout}: {gpus}{where}, {' or '.join(report.products)}{state}"


def _memory_lines(prediction: Prediction, *, feasible: bool) -> list[str]:
    use, settings = prediction.use, prediction.settings
    terms = f"{gib(use.weights_bytes)} GiB of weights, {gib(use.overhead_bytes)} GiB of overhead"
    if use.demand is not None:
        terms += f", {gib(max(0, use.kv_available_bytes))} GiB of KV cache"
    which = "" if feasible else f" with {prediction.layout} on {prediction.product}, which comes closest"
    lines = [
        _line(
            "Memory",
            f"{terms} on each GPU{which}; the engine takes {settings.gpu_memory_utilization:g} of its "
            f"{gib(prediction.usable_bytes)} GiB",
        )
    ]
    if use.demand is not None:
        times = "" if prediction.at_once == 1 else f" {prediction.at_once} times"
        longest = f"; the longest that fits{times} has {prediction.longest_tokens}" if prediction.longest_tokens else ""
        lines.append(
            _line(
                "KV cache",
                f"{use.kv_tokens} tokens: {requests(use.max_concurrency)} requests of {settings.max_length_tokens} "
                f"tokens at once{longest}",
            )
        )
    lines.append(
        _line("Engine", f"--max-num-seqs {settings.max_requests} --max-num-batched-tokens {settings.batched_tokens}")
    )
    return lines


def _line(label: str, text: str) -> str:
    return textwrap.fill(
        text,
        _WIDTH,
        initial_indent=label.ljust(_LABEL_WIDTH),
        subsequent_indent=" " * _LABEL_WIDTH,
        break_long_words=False,
        break_on_hyphens=False,
    )


def candidates_table(considered: tuple[Considered, ...]) -> str:
    """What was looked at, one layout on one product a row."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, show_edge=False, header_style="")
    for heading in ("TENSOR", "PIPELINE", "DATA", "NODES"):
        table.add_column(heading, justify="right")
    table.add_column("PRODUCT", overflow="fold")
    table.add_column("FITS")
    table.add_column("WHY", overflow="fold", ratio=1)
    for entry in considered:
        layout = entry.layout
        numbers = (layout.tensor, layout.pipeline, layout.data, layout.nodes)
        fits = "yes" if entry.fits else "no"
        table.add_row(*map(str, numbers), entry.product, fits, entry.reason)
    out = io.StringIO()
    console = Console(file=out, width=_WIDTH, color_system=None, markup=False, emoji=False, highlight=False)
    console.print(table)
    return "\n".join(line.rstrip() for line in out.getvalue().rstrip("\n").splitlines())


def kv_text(report: KvReport) -> str:
    """The engine's start-up line, and what it comes from."""
    line = (
        f"{report.device} KV cache size: {report.tokens:,} tokens, "
        f"Maximum concurrency for {report.max_length:,} tokens per request: {report.concurrency:.2f}x"
    )
    blocks = (
        f"{report.blocks} blocks of {report.bytes_per_block} bytes; a full request takes {report.blocks_per_request}"
    )
    lines = [line, blocks]
    if not report.fits:
        lines.append("The engine would not start: one request of full length does not fit")
    if not report.exact:
        lines.append("An estimate: this model's KV cache is not known exactly")
    return "\n".join(lines)
