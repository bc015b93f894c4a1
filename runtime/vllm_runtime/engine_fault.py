"""What vLLM's own words about memory and parallelism say in numbers. Texts as in vLLM 0.32.0."""

from __future__ import annotations

import re
from typing import Final

from pydantic import ValidationError

from vllm_operator_api.runtime import (
    EngineFault,
    FreeMemoryBelowUtilization,
    GpuOutOfMemory,
    IllegalParallelism,
    LengthTooLong,
    NoCacheBlocks,
)

_NO_CACHE_BLOCKS: Final = "No available memory for the cache blocks"
_LENGTH: Final = re.compile(
    r"max seq len \((\d{1,13})\), \(?([\d.]+) GiB KV cache is needed, which is larger than the available KV cache "
    r"memory \(([\d.]+) GiB\)(?:\. Based on the available memory, the estimated maximum model length is (\d{1,13})\b)?"
)
_FREE: Final = re.compile(
    r"(?:Free memory on device|Available memory on node) \S+ \(([\d.]+)/([\d.]+) GiB\) on startup is less than desired "
    r"(?:GPU|CPU) memory utilization \([\d.]+, ([\d.]+) GiB\)"
)
_OUT_OF_MEMORY: Final = re.compile(
    r"\b(?:CUDA|HIP|XPU)(?: error:)? out of memory(?:\. Tried to allocate ([\d.]+) (GiB|MiB|KiB|bytes))?"
)
_BYTES: Final = {"GiB": 2**30, "MiB": 2**20, "KiB": 2**10, "bytes": 1}
_PARALLELISM: Final = re.compile(
    r"divisible by (?:the )?(?:tensor|pipeline|data)[ _-]parallel|"  # config/model.py:1549
    r"\btp_size\b|\btensor_model_parallel|"  # bare assertions of the models, such as models/llama.py:145
    r"^(?:AssertionError: )?\d+ is not divisible by \d+$|"  # distributed/utils.py:54
    r"(?:partition_size|_per_partition)\b.* is not divisible|"  # layers/quantization/utils, distributed/utils.py:76
    r"Pipeline parallelism is not supported for this model|"  # config/model.py:1560
    r"World size \(\d+\) is larger than the number of available GPUs"  # config/parallel.py:1051
)


def fault_in(message: str) -> EngineFault | None:
    """The fault that an error of vLLM tells; None when it is about something else."""
    if _NO_CACHE_BLOCKS in message:
        return NoCacheBlocks()
    try:
        return _measured_fault(message)
    except (ValidationError, ValueError):  # numbers that no engine has
        return None


def _measured_fault(message: str) -> EngineFault | None:
    if match := _LENGTH.search(message):
        return LengthTooLong(
            length_tokens=int(match[1]),
            needed_gib=float(match[2]),
            available_gib=float(match[3]),
            longest_tokens=int(match[4]) if match[4] else None,
        )
    if match := _FREE.search(message):
        return FreeMemoryBelowUtilization(
            free_gib=float(match[1]), total_gib=float(match[2]), desired_gib=float(match[3])
        )
    if match := _OUT_OF_MEMORY.search(message):
        tried = None if match[1] is None else round(float(match[1]) * _BYTES[match[2]] / 2**30, 2)
        return GpuOutOfMemory(tried_gib=tried)
    return IllegalParallelism() if _PARALLELISM.search(message) else None
