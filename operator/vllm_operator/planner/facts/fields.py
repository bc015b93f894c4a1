"""Values of a configuration, each checked to be what a model can have. None and an absent key are the same."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from vllm_operator.planner.facts.errors import invalid
from vllm_operator_api.model import MAX_LAYERS

MAX_NUMBER: Final = 10**9
"""No dimension of any model comes near; a larger number is an error or an attack."""
_MAX_NAME: Final = 128
_SHOWN: Final = 50


class Fields:
    """One object of a configuration, for reading. ``what`` names it to the user."""

    __slots__ = ("_values", "_what")

    def __init__(self, values: Mapping[str, Any], what: str = "config.json") -> None:
        self._values = values
        self._what = what

    def __contains__(self, key: str) -> bool:
        return self._values.get(key) is not None

    @property
    def keys(self) -> Iterable[str]:
        """Names of all its values."""
        return self._values.keys()

    def raw(self, key: str) -> Any:
        """The value as it is."""
        return self._values.get(key)

    def number(self, *keys: str) -> int | None:
        """The first of these that is given: a whole number from 1. The largest one of a list (one per layer)."""
        key, value = self._first(keys)
        if isinstance(value, list) and value and len(value) <= MAX_LAYERS:
            return max(self._whole(key, entry, 1) for entry in value)
        return None if value is None else self._whole(key, value, 1)

    def required(self, *keys: str) -> int:
        """As ``number``; it must be there.

        Raises:
            ModelError: none is given.
        """
        number = self.number(*keys)
        return number if number is not None else invalid(f"{self._what} has no {keys[0]}")

    def count(self, *keys: str) -> int:
        """The first of these that is given: a whole number from 0; 0 where none is."""
        key, value = self._first(keys)
        return 0 if value is None else self._whole(key, value, 0)

    def share(self, key: str) -> float | None:
        """A factor from 0 to 10,000."""
        value = self._values.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 10_000:
            invalid(f"{self._what}: {key}={_shown(value)} is not a number from 0 to 10000")
        return float(value)

    def flag(self, key: str, *, default: bool = False) -> bool:
        """A truth value, as Python takes it."""
        value = self._values.get(key)
        return default if value is None else bool(value)

    def name(self, *keys: str) -> str | None:
        """The first of these that is given: a short, printable name. Values that are no text do not count."""
        for key in keys:
            value = self._values.get(key)
            if isinstance(value, str) and value:
                return self.checked_name(key, value)
        return None

    def checked_name(self, key: str, value: str) -> str:
        """``value``, if it can be shown to users.

        Raises:
            ModelError: it is too long or not printable.
        """
        if len(value) > _MAX_NAME or not value.isprintable():
            invalid(f"{self._what}: the value of {key} is too long or not printable: {value[:_SHOWN]!r}")
        return value

    def section(self, *keys: str) -> Fields | None:
        """The first of these that is an object."""
        for key in keys:
            value = self._values.get(key)
            if isinstance(value, dict):
                return Fields(value, f"{self._what}: {key}")
        return None

    def entries(self, key: str) -> list[Any] | None:
        """A list with an entry per layer or per kind of layer.

        Raises:
            ModelError: it is longer than any model has layers.
        """
        value = self._values.get(key)
        if value is None:
            return None
        if not isinstance(value, list):
            invalid(f"{self._what}: {key}={_shown(value)} is not a list")
        if len(value) > MAX_LAYERS:
            invalid(f"{self._what}: {key} has {len(value)} entries; no model has more than {MAX_LAYERS} layers")
        return value

    def sections(self, key: str) -> list[Fields] | None:
        """A list of objects, one per layer."""
        entries = self.entries(key)
        if entries is None:
            return None
        for entry in entries:
            if not isinstance(entry, dict):
                invalid(f"{self._what}: {key} holds {_shown(entry)}, which is not an object")
        return [Fields(entry, f"{self._what}: {key}") for entry in entries]

    def numbers(self, key: str) -> list[int] | None:
        """A list of whole numbers from 0."""
        entries = self.entries(key)
        return None if entries is None else [self._whole(key, entry, 0) for entry in entries]

    def names(self, key: str) -> list[str] | None:
        """A list of names."""
        entries = self.entries(key)
        if entries is None:
            return None
        for entry in entries:
            if not isinstance(entry, str):
                invalid(f"{self._what}: {key} holds {_shown(entry)}, which is not a name")
        return [self.checked_name(key, entry) for entry in entries]

    def _first(self, keys: tuple[str, ...]) -> tuple[str, Any]:
        for key in keys:
            value = self._values.get(key)
            if value is not None:
                return key, value
        return keys[0], None

    def _whole(self, key: str, value: Any, least: int) -> int:
        if isinstance(value, float) and abs(value) <= MAX_NUMBER and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= MAX_NUMBER:
            invalid(f"{self._what}: {key}={_shown(value)} is not a number from {least} to {MAX_NUMBER}")
        return value


def _shown(value: Any) -> str:
    if isinstance(value, list | dict):
        return f"a {type(value).__name__} of {len(value)}"
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 200:
        return f"a number of {value.bit_length()} bits"
    return str(value)[:_SHOWN]
