"""``python -m tests.bench [NAME...]``: all benchmarks, or those named. docs/benchmarks.md says what they show.

No result is an error, however slow: absolute speed is the machine's. Exit code 1 means that a benchmark broke.
"""

from __future__ import annotations

import importlib
import sys
import time
import traceback
from pathlib import Path

BENCHMARKS = ("planner", "inventory", "relay", "batch_throughput", "operator_at_rest")


def main(names: list[str]) -> int:
    """Run them in order; returns the exit code."""
    unknown = sorted(set(names) - set(BENCHMARKS))
    if unknown:
        print(f"no benchmark {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}", file=sys.stderr)
        return 2
    from tests.bench.report import SkippedError

    from vllm_operator.observability.logging import configure_logging

    configure_logging("WARNING")

    broken = 0
    for name in names or BENCHMARKS:
        started_at = time.monotonic()
        try:
            importlib.import_module(f"tests.bench.{name}").run()
        except SkippedError as reason:
            print(f"\n{name}: skipped, {reason}")
        except Exception:  # noqa: BLE001 - the other benchmarks still run
            traceback.print_exc()
            broken += 1
        print(f"  ({name}: {time.monotonic() - started_at:.0f} s)", flush=True)
    return 1 if broken else 0


if __name__ == "__main__":
    root = Path(__file__).resolve().parents[2]
    sys.path[:0] = [str(root / part) for part in ("crds", "operator", "runtime", "hack", ".")]
    sys.exit(main(sys.argv[1:]))
