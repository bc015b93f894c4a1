#!/usr/bin/env python3
"""Copy the demo's models and rows from the image into a mounted volume.

    python3 /data/seed.py TARGET

Can be repeated: a file that is there with the same size stays, a half-written one is replaced. Each file is written
under another name and renamed, so a reader never sees a part of it.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

SOURCE = Path(__file__).resolve().parent


def seed(source: Path, target: Path) -> tuple[int, int]:
    """Copy every file below `source` but this script; return how many were copied and how many were there already."""
    copied = kept = 0
    for path in sorted(source.rglob("*")):
        if not path.is_file() or path.name == Path(__file__).name:
            continue
        there = target / path.relative_to(source)
        if there.is_file() and there.stat().st_size == path.stat().st_size:
            kept += 1
            continue
        there.parent.mkdir(parents=True, exist_ok=True)
        partial = there.with_name(f".{there.name}.partial")
        shutil.copyfile(path, partial)
        partial.chmod(0o644)
        partial.replace(there)
        copied += 1
    return copied, kept


def main() -> None:
    """Command line: the directory to fill."""
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    target = Path(sys.argv[1])
    if not target.is_dir():
        raise SystemExit(f"{target} is no directory: mount a volume there")
    copied, kept = seed(SOURCE, target)
    print(f"seed: {copied} files copied to {target}, {kept} were there already")


if __name__ == "__main__":
    main()
