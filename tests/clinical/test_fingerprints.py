"""Fingerprints: views of one picture are found, other pictures of the class are not."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from qoq_data.clinical.fingerprints import (
    CONFIRM_THRESHOLD,
    MAX_DISTANCE,
    canonical_hash,
    confirm_pair,
    confirmed_pairs,
    near_duplicate_pairs,
    perceptual_hash,
    perceptual_hashes_dihedral,
    pixel_digest,
    thumbnail,
    thumbnail_hashes,
)

TURNS = [None, *(Image.Transpose[name] for name in (
    "FLIP_LEFT_RIGHT", "ROTATE_180", "FLIP_TOP_BOTTOM", "TRANSPOSE", "ROTATE_270", "TRANSVERSE", "ROTATE_90",
))]  # fmt: skip  # of EXIF orientations 1 to 8


def speckle(seed: int, height: int = 240, width: int = 320) -> np.ndarray:
    """A frame like breast ultrasound: speckle, the layers and shading that all frames share, and one dark lesion."""
    random = np.random.default_rng(seed)
    real, imaginary = (ndimage.gaussian_filter(random.normal(size=(height, width)), (1.2, 2.0)) for _ in range(2))
    envelope = np.hypot(real, imaginary)
    y, x = np.mgrid[0:height, 0:width] / np.array([height, width])[:, None, None]
    tissue = 0.6 + 0.25 * np.sin(9 * y) + 0.5 * np.exp(-(((y - 0.75) / 0.06) ** 2))
    texture = ndimage.gaussian_filter(random.normal(size=(height, width)), 20)
    cx, cy, a, b = random.uniform((0.3, 0.3, 0.1, 0.1), (0.7, 0.6, 0.2, 0.2))
    lesion = ((x - cx) / a) ** 2 + ((y - cy) / b) ** 2 < 1
    echo = tissue * (1 + 0.25 * texture / texture.std()) * np.exp(-0.8 * y) * np.where(lesion, 0.25, 1)
    return np.clip(70 * np.log1p(3 * np.clip(echo * envelope / envelope.mean(), 0, None)), 0, 255).astype(np.uint8)


def as_jpeg(pixels: np.ndarray, quality: int) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


VIEWS = {
    "copy": lambda p: p.copy(),
    "RGB": lambda p: np.repeat(p[..., None], 3, axis=2),
    "JPEG q80": lambda p: as_jpeg(p, 80),
    "smaller": lambda p: np.asarray(Image.fromarray(p).resize((213, 160), Image.Resampling.LANCZOS)),
    "square": lambda p: np.asarray(Image.fromarray(p).resize((416, 416), Image.Resampling.BICUBIC)),
    "mirrored": lambda p: p[:, ::-1].copy(),
    "upside down": lambda p: p[::-1].copy(),
    "rotated 90": lambda p: np.rot90(p).copy(),
    "rotated 270, JPEG q60": lambda p: as_jpeg(np.rot90(p, 3).copy(), 60),
    "brighter": lambda p: np.clip(p.astype(int) + 12, 0, 255).astype(np.uint8),
    "more contrast": lambda p: np.clip(p * 1.1 + 5, 0, 255).astype(np.uint8),
}


@pytest.fixture(scope="module")
def frames() -> list[np.ndarray]:
    return [speckle(seed) for seed in range(120)]


@pytest.mark.parametrize("name", VIEWS)
def test_views_of_one_picture_are_found_and_confirmed(name: str, frames: list[np.ndarray]) -> None:
    chosen = frames[:15]
    thumbnails = np.array([thumbnail(p) for p in chosen] + [thumbnail(VIEWS[name](p)) for p in chosen])
    assert [(i, j) for i, j, _ in confirmed_pairs(thumbnails)] == [(i, i + 15) for i in range(15)]


def test_other_pictures_of_the_class_are_not_confirmed(frames: list[np.ndarray]) -> None:
    thumbnails = np.array([thumbnail(p) for p in frames])
    assert confirmed_pairs(thumbnails, max_distance=63) == []  # all 7,140 pairs, whatever their hashes say


def test_digest_is_of_pixels_and_shape() -> None:
    grey = np.arange(24, dtype=np.uint8).reshape(4, 6)
    assert pixel_digest(grey) == pixel_digest(np.asfortranarray(grey)) == pixel_digest(np.stack([grey] * 3, axis=2))
    others = [grey.reshape(6, 4), grey.T, grey[::-1], grey + 1, np.stack([grey, grey, grey + 1], axis=2)]
    assert len({pixel_digest(other) for other in [grey, *others]}) == 6


def test_eight_hashes_are_those_of_the_eight_turns(frames: list[np.ndarray]) -> None:
    small = thumbnail(frames[0])
    hashes = thumbnail_hashes(small[None])[0]
    turned = [small if turn is None else np.asarray(Image.fromarray(small).transpose(turn)) for turn in TURNS]
    assert [int(thumbnail_hashes(t[None])[0, 0]) for t in turned] == hashes.tolist()
    assert len(set(hashes.tolist())) == 8
    assert len({int(canonical_hash(thumbnail_hashes(t[None]))[0]) for t in turned}) == 1
    assert perceptual_hash(frames[0]) == perceptual_hashes_dihedral(frames[0])[0] == hashes[0]
    assert hashes.dtype == np.uint64


def test_pairs_are_complete_and_ordered() -> None:
    random = np.random.default_rng(5)
    hashes = random.integers(0, 2**63, (300, 8), dtype=np.uint64)
    for i in range(0, 200, 2):  # plant neighbours at distances around the limit
        flips = random.choice(63, int(random.integers(0, 16)), replace=False)
        mask = np.bitwise_or.reduce(np.uint64(1) << flips.astype(np.uint64), initial=np.uint64(0))
        hashes[299 - i // 2, random.integers(8)] = hashes[i // 2, 0] ^ mask
    expected = []
    for i in range(300):
        for j in range(i + 1, 300):
            distance = min((int(hashes[i, 0]) ^ int(hashes[j, k])).bit_count() for k in range(8))
            if distance <= MAX_DISTANCE:
                expected.append((i, j, distance))
    assert near_duplicate_pairs(hashes) == expected
    assert 40 < len(expected) < 100
    assert near_duplicate_pairs(hashes[:0]) == []


def test_pairs_across_blocks() -> None:
    hashes = np.random.default_rng(6).integers(0, 2**63, (4200, 8), dtype=np.uint64)
    hashes[4150, 3] = hashes[70, 0]
    hashes[4199, 7] = hashes[4098, 0] ^ np.uint64(5)
    assert near_duplicate_pairs(hashes, 5) == [(70, 4150, 0), (4098, 4199, 2)]


def every_pair(hashes: np.ndarray, max_distance: int) -> list[tuple[int, int, int]]:
    found = []
    for i in range(len(hashes)):
        distances = np.bitwise_count(hashes[i + 1 :] ^ hashes[i, 0]).min(axis=1)
        found += [(i, i + 1 + j, int(distances[j])) for j in np.flatnonzero(distances <= max_distance).tolist()]
    return found


@pytest.fixture(scope="module")
def many() -> np.ndarray:
    """Hashes of 5,000 pictures, enough for the index: turned and noisy copies, flat and symmetric ones among them."""
    random = np.random.default_rng(11)
    pictures = random.integers(0, 256, (5000, 32, 32), dtype=np.uint8)
    for place in range(0, 800, 2):
        turned = np.rot90(pictures[place], random.integers(4))[:: random.choice([-1, 1])]
        noise = random.integers(-20, 21, turned.shape) * random.integers(0, 4)
        pictures[4999 - place // 2] = np.clip(turned + noise, 0, 255)
    pictures[801] = 90
    pictures[803] = 91
    pictures[805] = pictures[805] // 2 + pictures[805][:, ::-1] // 2
    pictures[807] = pictures[805] // 2 + pictures[805].T // 2
    pictures[809] = pictures[805][::-1]
    return thumbnail_hashes(pictures)


@pytest.mark.parametrize("max_distance", [0, 3, MAX_DISTANCE, 11, 12])
def test_the_index_finds_what_comparing_every_pair_finds(max_distance: int, many: np.ndarray) -> None:
    expected = every_pair(many, max_distance)
    assert near_duplicate_pairs(many, max_distance) == expected
    assert {(801, 803), (805, 809)} <= {(i, j) for i, j, _ in expected}
    assert len(expected) > 100


def test_the_index_gives_way_where_most_are_alike(many: np.ndarray) -> None:
    alike = many.copy()
    alike[1000:2800] = many[4400]  # 1.6 million pairs, which the index would give eight times
    assert near_duplicate_pairs(alike) == every_pair(alike, MAX_DISTANCE)


def test_flat_pictures() -> None:
    black, grey = np.zeros((32, 32), np.uint8), np.full((32, 32), 90, np.uint8)
    assert perceptual_hash(black) == perceptual_hash(grey) == 0
    assert confirm_pair(black, black)
    assert not confirm_pair(black, grey)
    assert not confirm_pair(black, thumbnail(speckle(1)))


def test_real_busi_pictures_are_all_different(realdata: Path) -> None:
    paths = sorted((realdata / "busi").rglob("*).png"))
    thumbnails = np.array([thumbnail(np.asarray(Image.open(path))) for path in paths])
    assert len(thumbnails) == 8
    assert confirmed_pairs(thumbnails, max_distance=63) == []
    mirrored = np.array([thumbnail(np.asarray(Image.open(path))[:, ::-1].copy()) for path in paths])
    assert [(i, j) for i, j, _ in confirmed_pairs(np.concatenate([thumbnails, mirrored]))] == [
        (i, i + 8) for i in range(8)
    ]


def test_real_copies_are_found(realdata: Path) -> None:
    folder = realdata / "brain-tumor-classification-mri"
    paths = [path for path in sorted(folder.rglob("*.jpg")) if path.is_file()]
    pictures = [np.asarray(Image.open(path)) for path in paths]
    digests = [pixel_digest(picture) for picture in pictures]
    equal = [(i, j) for i in range(len(digests)) for j in range(i + 1, len(digests)) if digests[i] == digests[j]]
    assert len(equal) == 1
    assert [(i, j) for i, j, _ in confirmed_pairs(np.array([thumbnail(p) for p in pictures]))] == equal


def framed(pixels: np.ndarray, side: int = 320) -> np.ndarray:
    """A round part of a picture in the middle of black, as a fundus photograph is."""
    y, x = np.mgrid[0:side, 0:side] - side / 2
    canvas = np.zeros((side, side), np.uint8)
    height, width = min(side, pixels.shape[0]), min(side, pixels.shape[1])
    top, left = (side - height) // 2, (side - width) // 2
    canvas[top : top + height, left : left + width] = pixels[:height, :width]
    canvas[np.hypot(x, y) > side * 0.3] = 0
    return canvas


def test_a_black_frame_is_no_likeness() -> None:
    bright = [np.clip(speckle(seed).astype(int) // 4 + 150, 0, 255).astype(np.uint8) for seed in (3, 4)]
    one, other = (thumbnail(framed(picture)) for picture in bright)
    whole = [(side - side.mean()) / side.std() for side in (one, other)]
    assert np.abs(whole[0] - whole[1]).mean() < CONFIRM_THRESHOLD  # which alone would call them one picture
    assert not confirm_pair(one, other)
    assert confirm_pair(one, thumbnail(np.ascontiguousarray(np.rot90(framed(bright[0])))))


def test_real_eyes_in_a_black_frame_are_told_apart(realdata: Path) -> None:
    eyes = []
    for path in sorted((realdata / "idrid").glob("*.jpg")):
        with Image.open(path) as opened:
            wide = Image.new("RGB", (opened.width + 880, opened.height))
            wide.paste(opened, (440, 0))
            eyes.append(wide)
    assert len(eyes) == 2
    views = [eye.resize((eye.width // 5, eye.height // 5)).rotate(90, expand=True) for eye in eyes]
    thumbnails = np.array([thumbnail(np.asarray(picture)) for picture in (*eyes, *views)])
    assert [(i, j) for i, j, _ in confirmed_pairs(thumbnails, max_distance=63)] == [(0, 2), (1, 3)]
