"""Whether a live object still holds everything that was intended. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

_QUANTITY: Final = re.compile(
    r"^([+-]?[0-9]+(?:\.[0-9]*)?|[+-]?\.[0-9]+)(?:([eE][+-]?[0-9]+)|([numkMGTPE]|[KMGTPE]i))?$"
)
_FACTORS: Final[Mapping[str | None, Decimal]] = {
    None: Decimal(1),
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    "k": Decimal(10**3),
    "M": Decimal(10**6),
    "G": Decimal(10**9),
    "T": Decimal(10**12),
    "P": Decimal(10**15),
    "E": Decimal(10**18),
    "Ki": Decimal(1 << 10),
    "Mi": Decimal(1 << 20),
    "Gi": Decimal(1 << 30),
    "Ti": Decimal(1 << 40),
    "Pi": Decimal(1 << 50),
    "Ei": Decimal(1 << 60),
}
_QUANTITY_MAPS: Final = frozenset({"limits", "requests", "capacity", "allocatable", "overhead", "hard"})
"""Fields whose values are maps of quantities."""
_QUANTITY_FIELDS: Final = frozenset({"sizeLimit", "divisor"})
"""Fields that are quantities."""


def contains(live: Any, intent: Any) -> bool:
    """Whether ``live`` holds everything that ``intent`` says.

    Maps: every key of the intent is there and contains its value (defaults that the server added do not matter).
    Lists: equal length, each item contains the intended one of the same index. Quantities (of resources, size limits)
    are compared as numbers, for the server writes them in its own form ("1000m" becomes "1"). A zero value (``None``,
    ``""``, ``0``, ``False``, ``[]``, ``{}``) equals an absent one, for the server leaves most of them out.
    """
    return _contains(live, intent, quantity=False)


def parse_quantity(text: str | float) -> Decimal | None:
    """A Kubernetes quantity (``500m``, ``12Gi``, ``1e3``, ``0.5``) as a number, None when it is none."""
    match = _QUANTITY.match(str(text))
    if match is None:
        return None
    number, exponent, suffix = match.groups()
    return Decimal(number + (exponent or "")) * _FACTORS[suffix]


def _contains(live: Any, intent: Any, *, quantity: bool) -> bool:
    if isinstance(intent, Mapping):
        if not isinstance(live, Mapping):
            return live is None and all(_is_zero(value) for value in intent.values())
        return all(
            _contains(
                live.get(key),
                value,
                quantity=(quantity and not isinstance(value, Mapping))
                or key in _QUANTITY_FIELDS
                or (key in _QUANTITY_MAPS and isinstance(value, Mapping)),
            )
            for key, value in intent.items()
        )
    if isinstance(intent, list | tuple):
        if not intent:
            return not live
        return (
            isinstance(live, list | tuple)
            and len(live) == len(intent)
            and all(_contains(have, want, quantity=False) for have, want in zip(live, intent, strict=True))
        )
    if live is None:
        return _is_zero(intent)
    if live == intent and isinstance(live, bool) == isinstance(intent, bool):
        return True
    if intent is None:
        return _is_zero(live)
    if quantity:
        have, want = parse_quantity(live), parse_quantity(intent)
        return have is not None and have == want
    return False


def _is_zero(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(_is_zero(item) for item in value.values())
    return value is None or value in ("", [], ()) or (isinstance(value, bool | int | float) and not value)
