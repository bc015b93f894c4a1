"""Accelerator profiles: what an operator's configuration says of nodes that do not exist yet, or carry no labels.

On nodes that exist it fills in what labels leave open or contradict; its memory, link, price and compute capability
win over theirs. The JSON form is the chart's value ``acceleratorProfiles``; ``parse_profiles`` reads it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast, get_args

from vllm_operator.planner.inventory.nvidia import GPU_RESOURCE, MIG_PREFIX, SHARED
from vllm_operator.planner.inventory.pool import LabelRequirement, Link, Taint
from vllm_operator.planner.inventory.products import is_part, product_named
from vllm_operator.planner.inventory.reading import MAX_MEMORY_MIB, shown
from vllm_operator.planner.inventory.usable import usable_bytes
from vllm_operator_api.quantities import BYTES_PER_GIB

MAX_PROFILES: Final = 64
MAX_GPUS_PER_NODE: Final = 256
_RESOURCE_NAME: Final = re.compile(r"^[a-z0-9.-]+/[A-Za-z0-9._-]+$")
_CAPABILITY: Final = re.compile(r"^([0-9]{1,2})\.([0-9]{1,2})$")
_EFFECTS: Final = ("NoSchedule", "NoExecute")
FIELDS: Final = frozenset(
    {
        "name",
        "selector",
        "product",
        "memoryMiB",
        "usableGiB",
        "count",
        "link",
        "price",
        "resourceName",
        "computeCapability",
        "taints",
    }
)
"""Of a profile in JSON."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceleratorProfile:
    """Nodes that a selector picks, and the accelerators in each of them."""

    name: str
    selector: tuple[tuple[str, str], ...]
    """Labels of the nodes, in the names that the provisioner knows; not empty, sorted."""
    product: str
    """As vendors label it, where the name that was given is known."""
    memory_mib: int = 0
    """As the driver reports it; 0: the product's own."""
    usable_bytes: int = 0
    """What an engine sees; 0: from ``memory_mib``."""
    count: int = 0
    """Accelerators per node; 0: only nodes that exist are described, and none is expected from an autoscaler."""
    link: Link | None = None
    price: float = 0.0
    """Per accelerator and hour, in the same currency in all profiles."""
    resource_name: str = GPU_RESOURCE
    compute_capability: tuple[int, int] | None = None
    taints: tuple[Taint, ...] = ()

    @property
    def requirements(self) -> tuple[LabelRequirement, ...]:
        """The selector, as pods ask for it."""
        return tuple(LabelRequirement(key=key, values=(value,)) for key, value in self.selector)

    @property
    def single(self) -> bool:
        """Whether it is about slices or shared accelerators."""
        return is_part(self.product) or self.resource_name.startswith(MIG_PREFIX) or self.resource_name.endswith(SHARED)

    def describes(self, resource_name: str, labels: Mapping[str, str]) -> bool:
        """Whether it is about this resource of a node with these labels."""
        return resource_name == self.resource_name and all(labels.get(key) == value for key, value in self.selector)


def parse_profiles(text: str) -> tuple[AcceleratorProfile, ...]:
    """The profiles of a JSON list, in its order: where several describe a node, the first does.

    Raises:
        ValueError: not such a list; the message names the profile, the field and the value.
    """
    try:
        document = json.loads(text or "[]")
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"acceleratorProfiles is no JSON: {error}") from error
    if not isinstance(document, list) or len(document) > MAX_PROFILES:
        raise ValueError(f"acceleratorProfiles is no list of at most {MAX_PROFILES} profiles")
    profiles = tuple(_profile(entry, index) for index, entry in enumerate(document))
    names = [profile.name for profile in profiles]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"acceleratorProfiles has two profiles with the name {shown(twice)}")
    return profiles


def _profile(entry: Any, index: int) -> AcceleratorProfile:
    where = f"acceleratorProfiles[{index}]"
    if not isinstance(entry, dict):
        raise ValueError(f"{where} is no object")  # noqa: TRY004 -- one kind of error for all that is wrong in it
    if unknown := sorted(str(key) for key in entry if key not in FIELDS):
        raise ValueError(f"{where} has the unknown field {shown(unknown[0])}")
    reader = _Reader(entry, where)
    product = reader.text("product")
    memory_mib = reader.whole("memoryMiB", MAX_MEMORY_MIB)
    usable_gib = reader.number("usableGiB", MAX_MEMORY_MIB / 1024)
    if not usable_gib and not usable_bytes(product, memory_mib):
        raise reader.error("product", "has no memory that is known here; set memoryMiB or usableGiB, too")
    known = product_named(product, memory_mib)
    return AcceleratorProfile(
        name=reader.text("name"),
        selector=reader.selector(),
        product=product if known is None or is_part(product) else known.name,
        memory_mib=memory_mib,
        usable_bytes=int(usable_gib * BYTES_PER_GIB),
        count=reader.whole("count", MAX_GPUS_PER_NODE),
        link=reader.link(),
        price=reader.number("price", 1e6),
        resource_name=reader.resource_name(),
        compute_capability=reader.capability(),
        taints=reader.taints(),
    )


@dataclass(frozen=True, slots=True)
class _Reader:
    entry: Mapping[str, Any]
    where: str

    def error(self, field: str, problem: str) -> ValueError:
        return ValueError(f"{self.where}.{field}={shown(self.entry.get(field))} {problem}")

    def text(self, field: str) -> str:
        value = self.entry.get(field)
        if not isinstance(value, str) or not 0 < len(value) <= 63:
            raise self.error(field, "is no text of 1 to 63 characters")
        return value

    def whole(self, field: str, limit: int) -> int:
        value = self.entry.get(field, 0)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= limit:
            raise self.error(field, f"is no whole number from 0 to {limit}")
        return value

    def number(self, field: str, limit: float) -> float:
        value = self.entry.get(field, 0)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= limit:
            raise self.error(field, f"is no number from 0 to {limit:g}")
        return float(value)

    def selector(self) -> tuple[tuple[str, str], ...]:
        value = self.entry.get("selector")
        is_labels = isinstance(value, dict) and all(isinstance(each, str) for each in value.values())
        if not value or not is_labels:
            raise self.error("selector", "is no map of the labels that the nodes have")
        return tuple(sorted(cast("dict[str, str]", value).items()))

    def link(self) -> Link | None:
        value = self.entry.get("link")
        if value is not None and value not in get_args(Link):
            raise self.error("link", f"is none of {', '.join(get_args(Link))}")
        return cast("Link | None", value)

    def resource_name(self) -> str:
        value = self.entry.get("resourceName", GPU_RESOURCE)
        if not isinstance(value, str) or _RESOURCE_NAME.match(value) is None:
            raise self.error("resourceName", "is no name of an extended resource such as nvidia.com/gpu")
        return value

    def capability(self) -> tuple[int, int] | None:
        value = self.entry.get("computeCapability")
        if value is None:
            return None
        match = _CAPABILITY.match(value) if isinstance(value, str) else None
        if match is None:
            raise self.error("computeCapability", 'is no compute capability such as "9.0"')
        return int(match[1]), int(match[2])

    def taints(self) -> tuple[Taint, ...]:
        value = self.entry.get("taints", [])
        if not isinstance(value, Sequence) or not all(_is_taint(each) for each in value):
            raise self.error("taints", "is no list of taints (key, value, effect NoSchedule or NoExecute)")
        return tuple(
            sorted(Taint(key=each["key"], value=each.get("value", ""), effect=each["effect"]) for each in value)
        )


def _is_taint(entry: Any) -> bool:
    return (
        isinstance(entry, dict)
        and entry.keys() <= {"key", "value", "effect"}
        and isinstance(entry.get("key"), str)
        and isinstance(entry.get("value", ""), str)
        and entry.get("effect") in _EFFECTS
    )
