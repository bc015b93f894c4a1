"""``kubectl-llm``, which kubectl runs as ``kubectl llm``: what users ask of the operator from their own machine."""

from __future__ import annotations

import os
import sys

import typer

from vllm_operator.cli.errors import CommandError, one_line
from vllm_operator.cli.kv_command import plan_kv
from vllm_operator.cli.plan_command import plan

BAD_USAGE = 2

app = typer.Typer(
    name="kubectl-llm",
    help="Plan how language models are cut over GPUs, without starting anything.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.callback()
def _options() -> None:
    """Plan how language models are cut over GPUs, without starting anything."""


_plan = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)
_plan.callback(invoke_without_command=True)(plan)
_plan.command("kv")(plan_kv)
app.add_typer(_plan, name="plan")


def run(arguments: list[str]) -> int:
    """Run one command; returns its exit status. Bad usage is one line on stderr, whichever layer finds it."""
    try:
        status = app(arguments, prog_name="kubectl-llm", standalone_mode=False)
        sys.stdout.flush()
    except CommandError as error:
        return _fail(str(error))
    except typer.TyperException as error:
        return _fail(error.format_message())
    except typer.Abort:
        return _fail("interrupted")
    except BrokenPipeError:  # the reader has enough, as in "| head"
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return status if isinstance(status, int) else 0


def _fail(message: str) -> int:
    sys.stderr.write(f"error: {one_line(message)}\n")
    return BAD_USAGE


def main() -> None:
    """Entry point of the console script."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
