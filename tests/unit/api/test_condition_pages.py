"""The pages in docs/conditions: one for each reason of the planner, found from docs/conditions.md."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from vllm_operator_api.conditions import Reason

DOCS = Path(__file__).parents[3] / "docs"
INDEX = DOCS / "conditions.md"
PAGES = {path.stem: path for path in sorted((DOCS / "conditions").glob("*.md"))}
MAX_LINE = 140


def reasons_of(group: str) -> set[str]:
    """Reasons below the comment that names a group in the enumeration's source."""
    current, found = "", set()
    for line in map(str.strip, inspect.getsource(Reason).splitlines()):
        if line.startswith("# "):
            current = line.removeprefix("# ")
        elif current == group and (member := re.match(r'[A-Z_]+ = "(\w+)"$', line)) is not None:
            found.add(member[1])
    return found


def anchors(page: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_reason_of_the_planner_has_a_page_and_no_other_reason_has() -> None:
    assert "InsufficientGPUMemory" in reasons_of("Planned")
    assert set(PAGES) == reasons_of("Planned")


def test_the_index_links_to_every_page() -> None:
    linked = re.findall(r"\[`(\w+)`\]\(conditions/(\w+)\.md\)", INDEX.read_text())
    assert [link for link in linked if link[0] != link[1]] == []
    assert sorted(name for name, _ in linked) == sorted(PAGES)


@pytest.mark.parametrize("name", PAGES)
def test_a_page_says_what_is_told_and_what_goes_on_meanwhile(name: str) -> None:
    lines = PAGES[name].read_text().splitlines()
    assert lines[0] == f"# {name}"
    assert {"## Message", "## Meanwhile"} <= set(lines)
    assert [line for line in lines if len(line) > MAX_LINE] == []


@pytest.mark.parametrize("page", [INDEX, *PAGES.values()], ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]*(?:#[\w-]+)?)\)", page.read_text()):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.is_file(), target
        assert not anchor or anchor in anchors(linked), target
