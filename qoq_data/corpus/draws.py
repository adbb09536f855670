"""Draws that follow from a seed and a name alone: the same on every machine, in any order, with any worker count."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray


def draws(seed: int, purpose: str, names: Iterable[str]) -> NDArray[np.uint64]:
    """One uniform 64-bit number a name; different purposes are independent of each other."""
    salt = _salt(seed, purpose)
    blake2b = hashlib.blake2b
    packed = b"".join(blake2b(name.encode(), digest_size=8, key=salt).digest() for name in names)
    return np.frombuffer(packed, dtype="<u8").astype(np.uint64)


def draw(seed: int, purpose: str, name: str) -> int:
    """The number that ``draws`` gives one name."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8, key=_salt(seed, purpose)).digest(), "little")


@lru_cache(maxsize=64)
def _salt(seed: int, purpose: str) -> bytes:
    return hashlib.blake2b(f"{seed}\x1f{purpose}".encode(), digest_size=32).digest()


def fractions(seed: int, purpose: str, names: Iterable[str]) -> NDArray[np.float64]:
    """One uniform number in [0, 1) a name."""
    return np.asarray((draws(seed, purpose, names) >> np.uint64(11)) * 2.0**-53, dtype=np.float64)


def keyed_hashes(key: str, names: Iterable[str]) -> list[str]:
    """32 hex digits a name, by a hash that cannot be turned round without the key."""
    secret = hashlib.blake2b(key.encode(), digest_size=32).digest()
    return [hashlib.blake2b(name.encode(), digest_size=16, key=secret).hexdigest() for name in names]
