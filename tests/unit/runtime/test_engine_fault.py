"""What is read out of vLLM's errors. Texts are those of vLLM 0.32.0's source, with numbers of real runs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_operator_api.runtime import (
    EngineFault,
    FreeMemoryBelowUtilization,
    GpuOutOfMemory,
    IllegalParallelism,
    LengthTooLong,
    NoCacheBlocks,
)
from vllm_runtime.engine_fault import fault_in

ADVICE = "Try increasing `gpu_memory_utilization` (which also controls CPU memory on the CPU backend) or decreasing"


def too_long(estimate: str) -> str:
    return (
        "To serve at least one request with the model's max seq len (196608), (23.25 GiB KV cache is needed, which is "
        f"larger than the available KV cache memory (22.5 GiB). {estimate}{ADVICE} `max_model_len`."
    )


@pytest.mark.parametrize(
    ("message", "fault"),
    [
        ("No available memory for the cache blocks. Try increasing `gpu_memory_utilization`", NoCacheBlocks()),
        (
            too_long("Based on the available memory, the estimated maximum model length is 190272. "),
            LengthTooLong(length_tokens=196608, needed_gib=23.25, available_gib=22.5, longest_tokens=190272),
        ),
        (too_long(""), LengthTooLong(length_tokens=196608, needed_gib=23.25, available_gib=22.5)),
        (
            (
                "Free memory on device cuda:0 (60.1/79.18 GiB) on startup is less than desired GPU memory utilization "
                "(0.92, 72.85 GiB). Decrease GPU memory utilization or reduce GPU memory used by other processes."
            ),
            FreeMemoryBelowUtilization(free_gib=60.1, total_gib=79.18, desired_gib=72.85),
        ),
        (
            (
                "Available memory on node 0 (15.2/23.5 GiB) on startup is less than desired CPU memory utilization "
                "(0.92, 21.62 GiB). On the CPU backend, "
            ),
            FreeMemoryBelowUtilization(free_gib=15.2, total_gib=23.5, desired_gib=21.62),
        ),
        (
            "OutOfMemoryError: CUDA out of memory. Tried to allocate 512.00 MiB. GPU 0 has a total capacity of",
            GpuOutOfMemory(tried_gib=0.5),
        ),
        ("OutOfMemoryError: HIP out of memory. Tried to allocate 2.00 GiB.", GpuOutOfMemory(tried_gib=2.0)),
        ("CUDA error: out of memory", GpuOutOfMemory()),
        (
            "CUDA out of memory occurred when warming up sampler with 1024 dummy requests. Please try lowering",
            GpuOutOfMemory(),
        ),
        (
            "Total number of attention heads (40) must be divisible by tensor parallel size (3).",
            IllegalParallelism(),
        ),
        ("18944 is not divisible by 3", IllegalParallelism()),
        ("assertion failed: tp_size % self.total_num_kv_heads == 0", IllegalParallelism()),
        (
            "Weight output_partition_size = 3200 is not divisible by weight quantization block_n = 128.",
            IllegalParallelism(),
        ),
        (
            "Weight input_size_per_partition = 4736 is not divisible by min_thread_k = 128. Consider reducing",
            IllegalParallelism(),
        ),
        (
            "NotImplementedError: Pipeline parallelism is not supported for this model. Supported models",
            IllegalParallelism(),
        ),
        ("World size (8) is larger than the number of available GPUs (4) in this node.", IllegalParallelism()),
    ],
)
def test_faults(message: str, fault: EngineFault) -> None:
    assert fault_in(message) == fault


@pytest.mark.parametrize(
    "message",
    [
        "unrecognized arguments: --nope",
        "max_num_batched_tokens (1) must be greater than or equal to max_num_seqs (32)",
        "block_size must be divisible by hash_block_size",
        "Input image height is not divisible by patch_size",
        "memory is low",
        too_long("").replace("23.25", "2.3.25"),
        too_long("").replace("22.5 GiB)", "99999999999.9 GiB)"),
    ],
)
def test_other_errors_are_no_fault(message: str) -> None:
    assert fault_in(message) is None


@given(st.text(max_size=300))
def test_any_text_is_read(text: str) -> None:
    fault_in(text)
    fault_in(too_long(text))
