"""Numbers as users read them."""

from __future__ import annotations

import math
from collections.abc import Iterable

from vllm_operator_api.quantities import BYTES_PER_GIB


def gib(size_bytes: float) -> str:
    """Bytes as GiB with one decimal."""
    return f"{size_bytes / BYTES_PER_GIB:.1f}"


def gib_up(size_bytes: int) -> str:
    """Bytes as GiB with one decimal, rounded up: a shortage is never 0.0."""
    return f"{math.ceil(size_bytes * 10 / BYTES_PER_GIB) / 10:.1f}"


def gib_down(size_bytes: int) -> str:
    """Bytes as GiB with one decimal, rounded down: what may be given is never too much."""
    return f"{math.floor(size_bytes * 10 / BYTES_PER_GIB) / 10:.1f}"


def degrees(legal: Iterable[int]) -> str:
    """``1, 2, 4``."""
    return ", ".join(map(str, legal)) or "none"


def requests(number: float) -> str:
    """A number of requests of full length, rounded down to what vLLM's own line would not contradict."""
    return f"{math.floor(number * 10) / 10:.1f}"
