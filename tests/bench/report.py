"""What a benchmark prints: a small table, and lines that compare it with its targets."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class Report:
    """Collects one benchmark's rows and prints them together."""

    title: str
    columns: Sequence[str]
    rows: list[Sequence[str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def row(self, *cells: str) -> None:
        """One line of the table, printed at the end."""
        self.rows.append(cells)

    def target(self, what: str, measured: str, target: str, *, met: bool) -> None:
        """One line under the table. A missed target is shown and is no error: machines differ."""
        self.notes.append(f"{'met   ' if met else 'MISSED'}  {what}: {measured} (target {target})")

    def note(self, text: str) -> None:
        """One line under the table."""
        self.notes.append(f"        {text}")

    def show(self) -> None:
        """Print everything."""
        widths = [max(len(line[index]) for line in (self.columns, *self.rows)) for index in range(len(self.columns))]
        print(f"\n{self.title}")
        for line in (self.columns, tuple("-" * width for width in widths), *self.rows):
            cells = [
                cell.rjust(width) if index else cell.ljust(width)
                for index, (cell, width) in enumerate(zip(line, widths, strict=True))
            ]
            print("  " + "  ".join(cells).rstrip())
        for note in self.notes:
            print(f"  {note}")


def spread(values: Sequence[float], unit: str, digits: int = 0) -> str:
    """Median and range of repeated measurements."""
    middle = statistics.median(values)
    return f"{middle:,.{digits}f} {unit} ({min(values):,.{digits}f}-{max(values):,.{digits}f})"


class SkippedError(Exception):
    """This benchmark needs something that is not on this machine; the text says what."""
