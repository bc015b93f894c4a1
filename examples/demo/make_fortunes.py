#!/usr/bin/env python3
"""Turn Debian's fortune files into the demo's rows: real text with odd characters, empty lines inside and long rows.

    python3 make_fortunes.py DIRECTORY OUTPUT.jsonl

DIRECTORY is /usr/share/games/fortunes of the packages `fortunes` and `fortunes-min`. Each output line is
{"id": n, "text": "..."}. The choice is the same on every run: everything beyond ASCII, then equally many from the start
of every file until ROWS are reached, so that many subjects are in it.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

ROWS = 2000
MAX_CHARACTERS = 1000
# all-MiniLM-L6-v2 is served with 256 tokens (its sentence_bert_config.json); words of up to four letters and single
# punctuation marks count at least as many tokens as its tokenizer makes of nearly all text.
MAX_TOKENS = 240
_PIECES = re.compile(r"[^\W_]{1,4}|[^\w\s]|_")


def fits(text: str) -> bool:
    """Whether a row is surely within the model's context."""
    return len(text) <= MAX_CHARACTERS and len(_PIECES.findall(text)) <= MAX_TOKENS


def read_fortunes(path: Path) -> list[str]:
    """The texts of one fortune file: separated by lines of a single per cent sign, kept as they are inside."""
    data = path.read_bytes()
    try:
        content = data.decode("utf-8")
    except UnicodeDecodeError:
        content = data.decode("iso-8859-1")
    texts, current = [], []
    for line in [*content.splitlines(), "%"]:
        if line == "%":
            text = "\n".join(current).strip("\n")
            if text.strip() and fits(text):
                texts.append(text)
            current = []
        else:
            current.append(line)
    return texts


def choose(files: list[list[str]], count: int) -> list[str]:
    """Take all texts beyond ASCII, then one of each file in turn, without repetition, until `count` are taken."""
    chosen = dict.fromkeys(text for texts in files for text in texts if not text.isascii())
    depth = 0
    while len(chosen) < count and any(depth < len(texts) for texts in files):
        for texts in files:
            if depth < len(texts) and len(chosen) < count:
                chosen.setdefault(texts[depth])
        depth += 1
    return list(chosen)


def main() -> None:
    """Command line: see the module docstring."""
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    source, output = Path(sys.argv[1]), Path(sys.argv[2])
    # A .dat file is an index, a .u8 file a link to the same text.
    paths = sorted(p for p in source.iterdir() if p.is_file() and p.suffix not in {".dat", ".u8"})
    texts = choose([read_fortunes(p) for p in paths], ROWS)
    if len(texts) < ROWS:
        raise SystemExit(f"{source}: {len(texts)} texts, {ROWS} are needed")
    with output.open("w", encoding="utf-8") as handle:
        for number, text in enumerate(texts):
            handle.write(json.dumps({"id": number, "text": text}, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
