"""``vllm-operator``: the operator and the helpers that run from the same image. Each command imports what it needs."""

from __future__ import annotations

import importlib
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    name="vllm-operator",
    help="Serve open-weight language models with vLLM on Kubernetes.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.command()
def run() -> None:
    """Run the operator. Settings come from the environment: VLLM_OPERATOR_* (docs/guide/install.md)."""
    sys.exit(importlib.import_module("vllm_operator.app").run())


@app.command("job-driver")
def job_driver() -> None:
    """Run the driver of one InferenceJob (in its pod)."""
    sys.exit(importlib.import_module("vllm_operator.driver.main").run())


@app.command("model-facts")
def model_facts() -> None:
    """Read the facts of a model (in a pod beside its files) and write them to the termination message."""
    sys.exit(importlib.import_module("vllm_operator.planner.sources.reader").run())


@app.command("queue-config")
def queue_config(
    credentials: Annotated[
        Path, typer.Option(help="Directory with one directory per user: operator, agent, driver.", exists=True)
    ],
    output: Annotated[Path, typer.Option(help="File to write.")],
) -> None:
    """Write the configuration of nats-server with the public keys of the three users."""
    from vllm_operator.queue.server_config import read_public_keys, server_config

    output.write_text(server_config(read_public_keys(credentials)))


@app.command("version")
def print_version() -> None:
    """Print the version."""
    try:
        typer.echo(version("vllm-operator"))
    except PackageNotFoundError:
        typer.echo("unknown (not installed)")


def main() -> None:
    """Entry point of the console script."""
    app()
