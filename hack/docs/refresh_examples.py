"""Rewrites the outputs of ``$ kubectl-llm …`` in the ``console`` blocks of the user guide by running the commands.

A block holds one command; a line that ends in a backslash goes on in the next one.
The commands name models as ``model-configs/NAME.json``. The folder of these files is not part of the repository:
``--models``, the variable BENCH_MODEL_CONFIGS, or ``shared/model-configs`` beside the checkout.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
PAGES = (REPOSITORY / "docs/guide/how-many-gpus.md",)
MODELS = Path(os.environ.get("BENCH_MODEL_CONFIGS") or REPOSITORY.parent / "shared" / "model-configs")
BLOCK = re.compile(
    r"^```console\n\$ kubectl-llm (?P<arguments>(?:[^\n]*\\\n)*[^\n]+)\n.*?^```$", re.MULTILINE | re.DOTALL
)


def refreshed(page: str, directory: Path) -> str:
    """The page with the outputs as the commands, run in ``directory``, give them today."""

    def block(found: re.Match[str]) -> str:
        arguments = found["arguments"]
        printed = output(shlex.split(arguments.replace("\\\n", " ")), directory)
        return f"```console\n$ kubectl-llm {arguments}\n{printed}```"

    return BLOCK.sub(block, page)


def output(arguments: list[str], directory: Path) -> str:
    """What the command prints. A plan that does not fit is an answer, too.

    Raises:
        SystemExit: the command is wrong or failed.
    """
    command = [sys.executable, "-m", "vllm_operator.cli.llm", *arguments]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 3):
        sys.exit(f"kubectl-llm {shlex.join(arguments)}\n{done.stderr}")
    return done.stdout


def main() -> int:
    """Refresh or check all pages; 1 when a check finds a difference."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=Path, default=MODELS, help="folder of the config.json files")
    parser.add_argument("--check", action="store_true", help="write nothing; end with 1 where a page is not up to date")
    options = parser.parse_args()
    if not options.models.is_dir():
        parser.error(f"{options.models} is no folder; name the one with the config.json files in --models")
    outdated = []
    with tempfile.TemporaryDirectory() as directory:
        (Path(directory) / "model-configs").symlink_to(options.models.resolve())
        for path in PAGES:
            before = path.read_text(encoding="utf-8")
            after = refreshed(before, Path(directory))
            if after != before:
                outdated.append(path)
                if not options.check:
                    path.write_text(after, encoding="utf-8")
    for path in outdated:
        print(f"{path.relative_to(REPOSITORY)} {'is not up to date' if options.check else 'is written'}")
    return 1 if options.check and outdated else 0


if __name__ == "__main__":
    sys.exit(main())
