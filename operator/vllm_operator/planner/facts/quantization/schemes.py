"""How the elements of one weight are stored, and the bytes that takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheme:
    """Bits of an element, and the scales beside it."""

    bits: int
    group: int | None = None
    """Elements along the input dimension that share a scale."""
    block: tuple[int, int] | None = None
    """Output and input edge of a block that shares a scale."""
    scale_bytes: int = 0
    """Bytes of one scale."""
    zero_bits: int = 0
    """Bits of the zero point of a group."""

    def bytes_of(self, outputs: int, inputs: int) -> int:
        """Bytes of an ``outputs`` x ``inputs`` weight with its scales."""
        packed = -(-outputs * inputs * self.bits // 8)
        if self.block is not None:
            return packed + self.scale_bytes * -(-outputs // self.block[0]) * -(-inputs // self.block[1])
        groups = outputs * (-(-inputs // self.group) if self.group is not None else 1)
        return packed + groups * self.scale_bytes + -(-groups * self.zero_bits // 8)


def unquantised(element_bytes: int) -> Scheme:
    """As it is: ``element_bytes`` an element."""
    return Scheme(bits=8 * element_bytes)


FP8: Final = Scheme(bits=8)
"""One scale per weight: nothing that counts."""
FP8_PER_CHANNEL: Final = Scheme(bits=8, scale_bytes=4)
NVFP4: Final = Scheme(bits=4, group=16, scale_bytes=1)
"""E2M1 elements, an E4M3 scale per 16 (``layers/quantization/modelopt.py``)."""
MXFP4: Final = Scheme(bits=4, group=32, scale_bytes=1)
"""E2M1 elements, an E8M0 scale per 32 (``layers/quantization/mxfp4.py``)."""
MXFP8: Final = Scheme(bits=8, group=32, scale_bytes=1)


def fp8_block(rows: int, columns: int) -> Scheme:
    """FP8 with a float32 scale per block (``layers/quantization/fp8.py``)."""
    return Scheme(bits=8, block=(rows, columns), scale_bytes=4)


def integer(bits: int, group: int | None, *, zero_points: bool) -> Scheme:
    """Packed integers with a 16-bit scale per group, or per output without groups."""
    return Scheme(bits=bits, group=group, scale_bytes=2, zero_bits=bits if zero_points else 0)
