"""NATS nkey seeds from random text.

Helm can make random text but no nkey (base32 with a CRC-16), so the chart's Secrets hold ``entropy``, and every part
derives the same user seed from it. A Secret may hold a ready ``seed`` instead (an existing NATS).
"""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Final

SEED_FILE: Final = "seed"
ENTROPY_FILE: Final = "entropy"
MIN_ENTROPY_CHARACTERS: Final = 32

_SEED_PREFIX: Final = 18 << 3
"""``PrefixByteSeed`` of github.com/nats-io/nkeys (renders as 'S')."""
_USER_PREFIX: Final = 20 << 3
"""``PrefixByteUser`` of github.com/nats-io/nkeys (renders as 'U')."""


def _crc16(data: bytes) -> int:
    """CRC-16/XMODEM, as nkeys uses it."""
    crc = 0
    for byte in data:
        crc ^= byte << 8
        for _ in range(8):
            crc = ((crc << 1) ^ 0x1021) if crc & 0x8000 else crc << 1
            crc &= 0xFFFF
    return crc


def _encode(raw: bytes) -> str:
    return base64.b32encode(raw + _crc16(raw).to_bytes(2, "little")).decode().rstrip("=")


def user_seed_from_entropy(entropy: str) -> str:
    """The nkey user seed (``SU…``) that belongs to ``entropy``.

    Raises:
        ValueError: fewer than 32 characters.
    """
    text = entropy.strip()
    if len(text) < MIN_ENTROPY_CHARACTERS:
        raise ValueError(f"queue credentials need at least {MIN_ENTROPY_CHARACTERS} random characters, got {len(text)}")
    prefix = bytes([_SEED_PREFIX | (_USER_PREFIX >> 5), (_USER_PREFIX & 0x1F) << 3])
    return _encode(prefix + hashlib.sha256(text.encode()).digest())


def read_user_seed(directory: str | Path) -> str:
    """The user seed that a mounted Secret holds.

    Raises:
        FileNotFoundError: neither ``seed`` nor ``entropy`` is there.
        ValueError: ``entropy`` is too short.
    """
    folder = Path(directory)
    seed = folder / SEED_FILE
    if seed.is_file():
        return seed.read_text().strip()
    entropy = folder / ENTROPY_FILE
    if entropy.is_file():
        return user_seed_from_entropy(entropy.read_text())
    raise FileNotFoundError(f"no queue credentials in {folder}: neither {SEED_FILE!r} nor {ENTROPY_FILE!r}")
