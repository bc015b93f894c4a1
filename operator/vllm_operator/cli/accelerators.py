"""``--accelerator PRODUCT[=USABLE_GIB]:PER_NODE[xNODES]``: a pool of nodes that need not exist."""

from __future__ import annotations

import re
from typing import Final

from vllm_operator.cli.errors import CommandError
from vllm_operator.cli.option_values import decimal, shown, whole
from vllm_operator.planner.device import Device, Vendor
from vllm_operator.planner.inventory.pool import GpuPool
from vllm_operator.planner.inventory.products import (
    is_mig,
    link_of,
    product_named,
    products_named,
    same_memory,
)
from vllm_operator.planner.inventory.reading import mig_slice_mib
from vllm_operator.planner.inventory.usable import product_usable_bytes
from vllm_operator_api.quantities import BYTES_PER_GIB, BYTES_PER_MIB

MAX_PER_NODE: Final = 256
MAX_NODES: Final = 4096
MAX_USABLE_GIB: Final = 4096
"""Far above the largest accelerator known, which has 288 GiB."""
_FORM: Final = "PRODUCT[=USABLE_GIB]:PER_NODE[xNODES], such as NVIDIA-H100-80GB-HBM3:8 or my-gpu=47.5:4x2"
_PARTS: Final = re.compile(r"^(?P<product>[A-Za-z0-9][A-Za-z0-9 ._+-]{0,62})(=(?P<gib>[^:]*))?:(?P<count>[^:]*)$")
_SHARED: Final = "-SHARED"
"""Ending of the label of time-sliced GPUs."""
_RESOURCES: Final[dict[Vendor, str]] = {
    "nvidia": "nvidia.com/gpu",
    "amd": "amd.com/gpu",
    "intel": "gpu.intel.com/xe",
    "habana": "habana.ai/gaudi",
}


def parse_accelerator(text: str) -> GpuPool:
    """The pool that an option describes: all of its accelerators are free.

    Raises:
        CommandError: it has another form, a number out of bounds, or a product whose memory is not known.
    """
    match = _PARTS.match(text)
    if match is None:
        raise CommandError(f"--accelerator {shown(text)}: it must be {_FORM}")
    product, gib, count = match["product"], match["gib"], match["count"]
    per_node, _, nodes = count.partition("x")
    gpus_per_node = _count(text, "accelerators per node", per_node, MAX_PER_NODE)
    number_of_nodes = _count(text, "nodes", nodes, MAX_NODES) if "x" in count else 1
    usable_bytes = _known_memory(text, product) if gib is None else _given_memory(text, gib)
    known = product_named(product, usable_bytes // BYTES_PER_MIB) or next(iter(products_named(product)), None)
    vendor: Vendor = "nvidia" if known is None else known.vendor
    return GpuPool(
        resource_name=_RESOURCES[vendor],
        product=product,
        device=Device(vendor=vendor, compute_capability=None if known is None else known.compute_capability),
        usable_bytes=usable_bytes,
        gpus_per_node=gpus_per_node,
        nodes=number_of_nodes,
        free_gpus_by_node=(gpus_per_node,) * number_of_nodes,
        single=is_mig(product) or product.upper().endswith(_SHARED),
        link="unknown" if known is None else link_of(known.name),
    )


def _count(text: str, what: str, number: str, most: int) -> int:
    found = whole(number, 1, most)
    if found is None:
        raise CommandError(
            f"--accelerator {shown(text)}: {shown(number)} {what} is not a whole number from 1 to {most}; "
            f"the form is {_FORM}"
        )
    return found


def _given_memory(text: str, gib: str) -> int:
    number = decimal(gib, MAX_USABLE_GIB)
    if number is None or number * BYTES_PER_GIB < 1:
        raise CommandError(
            f"--accelerator {shown(text)}: {shown(gib)} is not a memory in GiB above 0 and up to {MAX_USABLE_GIB}"
        )
    return int(number * BYTES_PER_GIB)


def _known_memory(text: str, product: str) -> int:
    if is_mig(product):
        return _slice_memory(text, product)
    found = products_named(product)
    if not found:
        raise CommandError(
            f"--accelerator {shown(text)}: the product {shown(product)} is not known; say how many GiB an engine sees "
            f"on one, as in {product}=79.2:8 (the total that the driver's own tools or vLLM's log show), or write the "
            "name as the node label nvidia.com/gpu.product has it"
        )
    if not same_memory(found):
        names = ", ".join(f"{each.name} ({product_usable_bytes(each) / BYTES_PER_GIB:.1f} GiB)" for each in found)
        raise CommandError(f"--accelerator {shown(text)}: {shown(product)} stands for several products: {names}")
    return product_usable_bytes(found[0])


def _slice_memory(text: str, product: str) -> int:
    """Of a MIG slice, from the size in its name."""
    slice_mib = mig_slice_mib(re.split("-MIG-", product, flags=re.IGNORECASE)[-1])
    if not slice_mib:
        raise CommandError(
            f"--accelerator {shown(text)}: the name of the MIG slice has no size such as 1g.10gb; say how many GiB an "
            f"engine sees on one, as in {product}=9.5:7"
        )
    return slice_mib * BYTES_PER_MIB
