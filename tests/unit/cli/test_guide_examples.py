"""The commands of the user page print what the page shows."""

from __future__ import annotations

import os
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.unit.cli.commands import Commands

REPOSITORY = Path(__file__).parents[3]
PAGE = REPOSITORY / "docs" / "guide" / "how-many-gpus.md"
CONFIGS = Path(os.environ.get("BENCH_MODEL_CONFIGS") or REPOSITORY.parent / "shared" / "model-configs")
"""A folder of real config.json files, if this machine has one: not part of the repository."""
PLACEHOLDER = "model-configs"
"""The page's name of it."""
COMMAND = "$ kubectl-llm "
_BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Example:
    """A command of the page, without the program's name, and what the page shows below it."""

    arguments: tuple[str, ...]
    output: str


def examples(page: str) -> list[Example]:
    """Every ``kubectl-llm`` command of the console blocks; a line that ends in a backslash goes on in the next one."""
    found = []
    for block in _BLOCK.findall(page):
        for step in re.split(r"^(?=\$ )", block, flags=re.MULTILINE):
            command, _, output = step.replace("\\\n", " ").partition("\n")
            if command.startswith(COMMAND):
                found.append(Example(tuple(shlex.split(command.removeprefix(COMMAND))), output.strip("\n")))
    return found


def of_the_page() -> list[Example]:
    """Those that need no cluster; none while there is no page."""
    if not PAGE.is_file():
        return []
    return [example for example in examples(PAGE.read_text()) if "-f" not in example.arguments]


@pytest.mark.skipif(not CONFIGS.is_dir(), reason="no folder of real configurations")
@pytest.mark.parametrize("example", of_the_page(), ids=lambda example: shlex.join(example.arguments)[:100])
def test_the_page_shows_what_is_printed(
    llm: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, example: Example
) -> None:
    (tmp_path / PLACEHOLDER).symlink_to(CONFIGS)
    monkeypatch.chdir(tmp_path)
    answer = llm(*example.arguments)
    assert answer.status in (0, 3), answer.err
    assert [line.rstrip() for line in answer.out.rstrip("\n").splitlines()] == example.output.splitlines()


def test_how_examples_are_found() -> None:
    page = """
```console
$ kubectl-llm plan --model-config model-configs/a.json \\
    --max-length 8192
Plan          tensor=1

KV cache      1
$ kubectl get nodes
none
$ kubectl-llm plan kv
GPU KV cache
```
```sh
$ kubectl-llm other
```
"""
    first, second = examples(page)
    assert first.arguments == ("plan", "--model-config", "model-configs/a.json", "--max-length", "8192")
    assert first.output == "Plan          tensor=1\n\nKV cache      1"
    assert second == Example(("plan", "kv"), "GPU KV cache")
