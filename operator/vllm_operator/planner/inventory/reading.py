"""What the labels of one node say of its accelerators, and how label values become numbers.

The modules per vendor and cloud return ``Described`` (they know), ``Refusal`` (the labels are wrong) or None (the
labels say nothing). Labels are written by many hands: nothing here raises, whatever they hold.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from vllm_operator.planner.inventory.pool import LabelRequirement, Link

Labels = Mapping[str, str]

MAX_MEMORY_MIB: Final = 4 << 20
"""4 TiB on one accelerator: more is no memory size. The largest known has 288 GiB."""
_MAX_DIGITS: Final = 9
_MIG_SLICE: Final = re.compile(r"^([0-9]{1,2})g\.([0-9]{1,3})gb")
_MIG_NOMINAL_SHARE: Final = 0.95
"""A slice has less than its name says: 1g.5gb of an A100 is 4864 MiB, 1g.10gb 9728 MiB (GPU feature discovery)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """One accelerator of a node, as labelled."""

    product: str
    memory_mib: int = 0
    """As labelled; 0: no label says."""
    divide_by: int = 1
    """Clients that share this memory in fixed parts."""
    compute_capability: tuple[int, int] | None = None
    single: bool = False
    link: Link | None = None
    """None: as the product has it."""
    requirements: tuple[LabelRequirement, ...] = ()
    """Labels of the node that say so, for pods to ask for."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a node's accelerators cannot be used, as the end of a sentence that begins with the node's name."""

    why: str
    unlabelled: bool = True
    """Other labels, or a profile, would mend it."""


def whole_number(text: object) -> int | None:
    """A number without sign, of at most nine digits, from a label or a quantity; None when it is none."""
    digits = str(text)
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) <= _MAX_DIGITS else None


def memory_label(labels: Labels, key: str) -> int | Refusal:
    """MiB of a label; 0 when there is no such label."""
    text = labels.get(key)
    if text is None:
        return 0
    memory_mib = whole_number(text)
    if memory_mib is None or not 0 < memory_mib <= MAX_MEMORY_MIB:
        return Refusal(f"has the label {key}={shown(text)}, which is no memory size in MiB")
    return memory_mib


def required(labels: Labels, *keys: str) -> tuple[LabelRequirement, ...]:
    """Requirements for those of the labels that the node has."""
    return tuple(LabelRequirement(key=key, values=(labels[key],)) for key in keys if labels.get(key))


def shown(value: object) -> str:
    """A value for a message: bounded, though the API server's own bound for a label is 63 characters."""
    text = str(value)
    return repr(text if len(text) <= 63 else text[:60] + "…")


def mig_slice_mib(slice_name: str) -> int:
    """MiB of a MIG slice from its name (``1g.10gb``, ``3g.40gb.me``); 0 when it is no such name."""
    match = _MIG_SLICE.match(slice_name)
    return int(int(match[2]) * 1024 * _MIG_NOMINAL_SHARE) if match else 0
