"""Queue credentials: the nkey of a role from the files of its Secret."""

from __future__ import annotations

from pathlib import Path

import nkeys

from vllm_operator_api.nkey import read_user_seed


def read_seed(directory: str | Path) -> str:
    """The user seed that a mounted Secret holds, checked.

    Raises:
        FileNotFoundError: the Secret is not there or holds neither ``seed`` nor ``entropy``.
        ValueError: what it holds makes no user seed.
    """
    seed = read_user_seed(directory)
    public_key(seed)
    return seed


def public_key(seed: str) -> str:
    """The public key of a user's seed.

    Raises:
        ValueError: it is not an nkey seed of a user.
    """
    try:
        key: str = nkeys.from_seed(bytearray(seed.encode())).public_key.decode()
    except (nkeys.NkeysError, ValueError) as error:
        raise ValueError("the seed is not an nkey seed of a user (SU…)") from error
    if not key.startswith("U"):
        raise ValueError("the seed is an nkey, but not one of a user (SU…)")
    return key
