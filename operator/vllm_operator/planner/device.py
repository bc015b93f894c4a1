"""Which kind of accelerator an engine runs on, as far as vLLM treats it differently."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Vendor = Literal["nvidia", "amd", "intel", "habana", "cpu"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One accelerator, without its memory."""

    vendor: Vendor = "nvidia"
    compute_capability: tuple[int, int] | None = None
    """NVIDIA's, such as (9, 0); None: unknown, and then no rule that depends on it refuses anything."""
