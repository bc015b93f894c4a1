"""Kubernetes quantities and durations as plain numbers."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Final

BYTES_PER_GIB: Final = 1 << 30
BYTES_PER_MIB: Final = 1 << 20

QUANTITY_PATTERN: Final = r"^[0-9]+(\.[0-9]+)?(Ki|Mi|Gi|Ti|k|M|G|T)?$"
"""Byte quantities a user may write. A subset of Kubernetes' own (no exponents, no signs, no milli)."""
CPU_QUANTITY_PATTERN: Final = r"^[0-9]+(\.[0-9]+)?m?$"
DURATION_PATTERN: Final = r"^([0-9]+h)?([0-9]+m)?([0-9]+s)?$"
"""Durations such as ``90s``, ``15m``, ``1h30m`` (the form of Go's ``time.Duration`` that Kubernetes users know)."""

_SUFFIX_FACTORS: Final = {
    "": 1,
    "Ki": 1 << 10,
    "Mi": 1 << 20,
    "Gi": 1 << 30,
    "Ti": 1 << 40,
    "k": 10**3,
    "M": 10**6,
    "G": 10**9,
    "T": 10**12,
}
_QUANTITY: Final = re.compile(r"^([0-9]+(?:\.[0-9]+)?)([A-Za-z]*)$")
_DURATION: Final = re.compile(r"^(?:([0-9]+)h)?(?:([0-9]+)m)?(?:([0-9]+)s)?$")


def parse_bytes(quantity: str) -> int:
    """Bytes of a Kubernetes quantity such as ``64Mi`` or ``1.5G`` (rounded down).

    Raises:
        ValueError: not a byte quantity.
    """
    match = _QUANTITY.match(quantity)
    if match is None or match[2] not in _SUFFIX_FACTORS:
        raise ValueError(f"{quantity!r} is not a quantity of bytes such as 512Mi or 12Gi")
    return int(Decimal(match[1]) * _SUFFIX_FACTORS[match[2]])


def parse_duration_seconds(duration: str) -> int:
    """Seconds of a duration such as ``90s``, ``15m`` or ``1h30m``.

    Raises:
        ValueError: not such a duration, or empty.
    """
    match = _DURATION.match(duration)
    if match is None or not duration:
        raise ValueError(f"{duration!r} is not a duration such as 90s, 15m or 1h30m")
    hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return hours * 3600 + minutes * 60 + seconds
