"""How WFDB signal files pack samples: sizes, decoders and the code for 'missing' of each format.

Source: WFDB signal(5). Formats 8, 310 and 311 and the FLAC formats have sizes here and are decoded by ``wfdb``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Callable

MISSING_INT16 = -(2**15)
MISSING_INT32 = -(2**31)

FLAC_FORMATS = frozenset({508, 516, 524})
TEN_BIT_FORMATS = frozenset({310, 311})  # three samples in four bytes
FALL_BACK_FORMATS = frozenset({8}) | TEN_BIT_FORMATS | FLAC_FORMATS
WIDE_FORMATS = frozenset({8, 24, 32, 524})  # formats whose values do not fit 16 bits
# Format 8 holds differences and has no code; format 0 is no file at all.
MISSING_CODES = {
    16: MISSING_INT16,
    24: -(2**23),
    32: MISSING_INT32,
    61: MISSING_INT16,
    80: -(2**7),
    160: MISSING_INT16,
    212: -(2**11),
    310: -(2**9),
    311: -(2**9),
    508: -(2**7),
    516: MISSING_INT16,
    524: -(2**23),
}
_BITS = {8: 8, 16: 16, 24: 24, 32: 32, 61: 16, 80: 8, 160: 16, 212: 12}
_SMALLEST_FLAC_BYTES = 42  # signature and the one block that must be there

Samples = NDArray[np.int16] | NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class SignalFile:
    """The signals that share a file: rows ``first`` to ``first + n_signals`` of the record."""

    name: str
    storage_format: int
    byte_offset: int
    first: int
    n_signals: int

    def bytes_for(self, n_frames: int) -> int:
        """Bytes the file has at least, offset included."""
        n_values = n_frames * self.n_signals
        if self.storage_format in FLAC_FORMATS:
            return _SMALLEST_FLAC_BYTES
        if self.storage_format in TEN_BIT_FORMATS:
            rest = (0, 2, 4 if self.storage_format == 310 else 3)[n_values % 3]
            return self.byte_offset + n_values // 3 * 4 + rest
        return self.byte_offset + -(-n_values * _BITS[self.storage_format] // 8)

    def frames_in(self, size: int) -> int:
        """Whole frames that a file of ``size`` bytes holds."""
        payload = max(0, size - self.byte_offset)
        if self.storage_format in TEN_BIT_FORMATS:
            n_values = payload // 4 * 3 + (0, 0, 1, 1 if self.storage_format == 310 else 2)[payload % 4]
        else:
            n_values = payload * 8 // _BITS[self.storage_format]
        return n_values // self.n_signals

    def padded_bytes_for(self, n_frames: int) -> int:
        """Bytes of the file where the writer filled its last group of packed samples (212: 3 bytes, 310, 311: 4)."""
        group = 3 if self.storage_format == 212 else 4 if self.storage_format in TEN_BIT_FORMATS else 1
        return self.byte_offset + -(-(self.bytes_for(n_frames) - self.byte_offset) // group) * group


def decode_16(payload: memoryview, n_values: int) -> Samples:
    return np.frombuffer(payload, "<i2", n_values)


def decode_61(payload: memoryview, n_values: int) -> Samples:
    return np.frombuffer(payload, ">i2", n_values)


def decode_160(payload: memoryview, n_values: int) -> Samples:
    return (np.frombuffer(payload, "<u2", n_values) ^ np.uint16(0x8000)).view(np.int16)


def decode_80(payload: memoryview, n_values: int) -> Samples:
    return np.frombuffer(payload, np.uint8, n_values).astype(np.int16) - np.int16(128)


def decode_32(payload: memoryview, n_values: int) -> Samples:
    return np.frombuffer(payload, "<i4", n_values)


def decode_24(payload: memoryview, n_values: int) -> Samples:
    high = np.zeros((n_values, 4), np.uint8)
    high[:, 1:] = np.frombuffer(payload, np.uint8, 3 * n_values).reshape(n_values, 3)
    return high.view("<i4")[:, 0] >> np.int32(8)


def decode_212(payload: memoryview, n_values: int) -> Samples:
    """Two 12-bit samples in three bytes; the middle byte holds the first's high bits in its low half."""
    n_pairs = (n_values + 1) // 2
    if 3 * n_pairs > payload.nbytes:  # an odd count may end after two bytes
        payload = memoryview(bytes(payload) + b"\0")
    triplets = np.frombuffer(payload, np.uint8, 3 * n_pairs).reshape(n_pairs, 3)
    middle = triplets[:, 1].astype(np.uint16)
    samples = np.empty((n_pairs, 2), np.uint16)
    samples[:, 0] = middle << 12
    samples[:, 0] |= triplets[:, 0].astype(np.uint16) << 4
    samples[:, 1] = (middle & 0xF0) << 8
    samples[:, 1] |= triplets[:, 2].astype(np.uint16) << 4
    return samples.view(np.int16).ravel()[:n_values] >> np.int16(4)


DECODERS: dict[int, Callable[[memoryview, int], Samples]] = {
    16: decode_16,
    24: decode_24,
    32: decode_32,
    61: decode_61,
    80: decode_80,
    160: decode_160,
    212: decode_212,
}
