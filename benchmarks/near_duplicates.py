"""Near-duplicate pictures: fingerprints of pictures, and 300,000 hashes against themselves, beside ``imagehash``.

Fingerprints go from decoded pixels (768 x 768) or from JPEG bytes. The search finds all pairs within ``MAX_DISTANCE``
bits in any of eight turns, which is checked on a part against comparing every pair. The peer compares perceptual hashes
in a plain loop, as they stand and not turned, over a few hundred of them; its time is scaled by the number of pairs.
Without ``imagehash`` (``pip install imagehash``) the peer's loop goes over Python's integers. The limit is sorting the
hashes, which finds equal ones only.
"""

from __future__ import annotations

import importlib
import io
import time
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

from benchmarks.harness import Result, seconds_in_turn
from qoq_data.clinical.fingerprints import (
    MAX_DISTANCE,
    near_duplicate_pairs,
    pixel_digest,
    thumbnail,
    thumbnail_hashes,
)
from qoq_data.clinical.rotated_copies import copy_thumbnail, rotated_copy_links
from qoq_data.formats.image import decode_image

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

try:
    imagehash: Any = importlib.import_module("imagehash")
except ImportError:
    imagehash = None

UNIT = "s"
SIDE = 768
CHUNK = 10_000


def run(quick: bool) -> Result:
    """Time fingerprints of synthetic pictures and the search over hashes of random ones."""
    n_hashes, n_loop, n_pictures, n_copies, rounds = (20_000, 100, 4, 200, 1) if quick else (300_000, 600, 32, 4000, 5)
    rows = [*_fingerprint_rows(n_pictures, rounds)]
    hashes = _random_hashes(n_hashes)
    assert near_duplicate_pairs(hashes[:6000]) == _every_pair(hashes[:6000]), "the search does not find every pair"
    ours = _seconds(lambda: near_duplicate_pairs(hashes))
    peer_name, compare = _peer_loop(hashes[:n_loop, 0])
    peer = _seconds(compare) * (n_hashes * (n_hashes - 1)) / (n_loop * (n_loop - 1))
    limit = _seconds(lambda: np.unique(hashes[:, 0]))
    rows += [
        (f"search over {n_hashes:,} hashes, s", f"{ours:.2f}", f"{peer / ours:.0f}"),
        (f"{peer_name}, scaled from {n_loop}, s", f"{peer:.0f}", "1"),
        ("sorting the hashes, s", f"{limit:.3f}", f"{peer / limit:.0f}"),
        (f"rotated copies among {n_copies:,}, s", f"{_seconds(lambda: rotated_copy_links(_copies(n_copies))):.1f}", ""),
    ]
    return Result(
        "near_duplicates", ours, peer, limit, peer / ours, UNIT, ("what", "measured", "times peer"), tuple(rows)
    )


def _fingerprint_rows(n_pictures: int, rounds: int) -> list[tuple[str, str, str]]:
    pictures = [_picture(seed) for seed in range(n_pictures)]
    files = [_encoded(picture) for picture in pictures]
    ways: dict[str, Callable[[], object]] = {
        "ours": lambda: [_fingerprint(picture) for picture in pictures],
        "ours, from the file": lambda: [_fingerprint(decode_image(data, "benchmark").pixels) for data in files],
        "decoding the file": lambda: [decode_image(data, "benchmark") for data in files],
        "digest of the pixels": lambda: [pixel_digest(picture) for picture in pictures],
        "thumbnail for rotated copies": lambda: [copy_thumbnail(picture) for picture in pictures],
    }
    if imagehash is not None:
        images = [Image.fromarray(picture) for picture in pictures]
        ways["imagehash.phash"] = lambda: [imagehash.phash(image) for image in images]
    seconds = seconds_in_turn(ways, rounds)
    peer = seconds.get("imagehash.phash")
    return [
        (f"{way}, pictures/s", f"{n_pictures / value:.0f}", f"{peer / value:.1f}" if peer else "")
        for way, value in seconds.items()
    ]


def _fingerprint(pixels: NDArray[np.uint8]) -> tuple[str, NDArray[np.uint64]]:
    """What the inspect step and the search take of a picture: its digest, its thumbnail, and the hashes of that."""
    return pixel_digest(pixels), thumbnail_hashes(thumbnail(pixels)[None])


def _picture(seed: int) -> NDArray[np.uint8]:
    generator = np.random.default_rng(seed)
    channels = [gaussian_filter(generator.standard_normal((SIDE, SIDE)), 4) for _ in range(3)]
    return np.clip(np.stack(channels, axis=2) * 500 + (200, 140, 190), 0, 255).astype(np.uint8)


def _encoded(picture: NDArray[np.uint8]) -> bytes:
    Image.fromarray(picture).save(buffer := io.BytesIO(), "JPEG", quality=75)
    return buffer.getvalue()


def _random_hashes(count: int) -> NDArray[np.uint64]:
    generator = np.random.default_rng(0)
    starts = range(0, count, CHUNK)
    return np.concatenate(
        [
            thumbnail_hashes(generator.integers(0, 256, (min(CHUNK, count - start), 32, 32), dtype=np.uint8))
            for start in starts
        ]
    )


def _copies(count: int) -> NDArray[np.uint8]:
    """Thumbnails of different pictures: the search has everything to compare and nothing to skip."""
    generator = np.random.default_rng(1)
    noise = generator.standard_normal((count, 80, 80), np.float32)
    return np.asarray(np.clip(gaussian_filter(noise, (0, 2, 2)) * 300 + 128, 0, 255), np.uint8)


def _every_pair(hashes: NDArray[np.uint64]) -> list[tuple[int, int, int]]:
    found = []
    for i in range(len(hashes)):
        distances = np.bitwise_count(hashes[i + 1 :] ^ hashes[i, 0]).min(axis=1)
        found += [(i, i + 1 + j, int(distances[j])) for j in np.flatnonzero(distances <= MAX_DISTANCE).tolist()]
    return found


def _peer_loop(hashes: NDArray[np.uint64]) -> tuple[str, Callable[[], object]]:
    if imagehash is None:
        numbers = hashes.tolist()
        return "integers in a loop", lambda: _loop(numbers, lambda a, b: (a ^ b).bit_count())
    bits = np.unpackbits(hashes.astype(">u8").view(np.uint8).reshape(-1, 8), axis=1).astype(np.bool_)
    wrapped = [imagehash.ImageHash(one.reshape(8, 8)) for one in bits]
    return "imagehash in a loop", lambda: _loop(wrapped, lambda a, b: a - b)


def _loop(hashes: list[Any], distance: Callable[[Any, Any], int]) -> list[tuple[int, int]]:
    return [
        (i, j)
        for i, first in enumerate(hashes)
        for j in range(i + 1, len(hashes))
        if distance(first, hashes[j]) <= MAX_DISTANCE
    ]


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
