"""Intel GPUs: labels of the node feature rules and of the GPU plugin (resources ``gpu.intel.com/i915`` and ``xe``).

Names and meaning: https://github.com/intel/intel-device-plugins-for-kubernetes/blob/main/cmd/gpu_plugin/labels.md.
``memory.max`` is the sum over the node's GPUs, in bytes.
"""

from __future__ import annotations

from typing import Final

from vllm_operator.planner.inventory.products import is_memory_of, product_named
from vllm_operator.planner.inventory.reading import (
    MAX_MEMORY_MIB,
    Described,
    Labels,
    Refusal,
    required,
    shown,
    whole_number,
)
from vllm_operator_api.quantities import BYTES_PER_MIB

_PREFIX: Final = "gpu.intel.com/"
PRODUCT_LABEL: Final = "gpu.intel.com/product"
_MEMORY_LABEL: Final = "gpu.intel.com/memory.max"
_COUNT_LABEL: Final = "gpu.intel.com/device.count"
_MAX_DIGITS: Final = 16


def describe(labels: Labels, resource_name: str, gpus: int) -> Described | Refusal | None:
    """The GPU behind a resource of Intel's device plugin, of which the node offers ``gpus``."""
    if resource_name.endswith("_monitoring"):
        return None
    product = labels.get(PRODUCT_LABEL, "")
    if not product:
        return None
    boards = whole_number(labels.get(_COUNT_LABEL, "")) or gpus
    memory_mib = _memory_mib(labels, boards)
    if isinstance(memory_mib, Refusal):
        return memory_mib
    known = product_named(product)
    if known is not None and memory_mib and not is_memory_of(known, memory_mib):
        return Refusal(
            f"has labels that contradict each other: {_MEMORY_LABEL} is {memory_mib} MiB for each of {boards} GPUs, "
            f"but {shown(product)} has {known.label_mib} MiB"
        )
    return Described(
        product=product,
        memory_mib=memory_mib,
        # The plugin can give one GPU to several pods (-shared-dev-num): it offers more of them then.
        single=gpus > boards,
        requirements=required(labels, PRODUCT_LABEL),
    )


def _memory_mib(labels: Labels, boards: int) -> int | Refusal:
    text = labels.get(_MEMORY_LABEL)
    if text is None:
        return 0
    is_number = text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS
    memory_mib = int(text) // boards // BYTES_PER_MIB if is_number else 0
    if not 0 < memory_mib <= MAX_MEMORY_MIB:
        return Refusal(f"has the label {_MEMORY_LABEL}={shown(text)}, which is no memory size in bytes")
    return memory_mib
