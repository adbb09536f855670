"""Copies made as Augmentor makes them are found, and other pictures of the class and stain are not joined to them."""

from __future__ import annotations

import io
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter
from scipy.ndimage import zoom

from qoq_data.clinical.ring_spectra import COPY_SHAPE, share_shown
from qoq_data.clinical.rotated_copies import copy_thumbnail, rotated_copy_links

SIDE = 200


def tissue(seed: int, blank: float = 0.1, side: int = SIDE) -> Image.Image:
    """A field of view as of one slide: the same stain and the same nuclei everywhere, a share of it blank."""
    random = np.random.default_rng(seed)
    hollow = zoom(random.standard_normal((6, 6)), side / 6, order=3, mode="grid-wrap", grid_mode=True)
    soft = 1 / (1 + np.exp(-12 * (hollow - np.quantile(hollow, 1 - blank))))[..., None]
    fibres = zoom(random.standard_normal((30, 30)), side / 30, order=1, mode="nearest", grid_mode=True)[..., None] * 8
    ground = (np.array((222, 170, 205)) + fibres) * (1 - soft) + np.array((240, 236, 242)) * soft
    picture = Image.fromarray(np.clip(ground, 0, 255).astype(np.uint8))
    pen = ImageDraw.Draw(picture)
    around = np.linspace(0, 2 * np.pi, 12)[:-1]
    for x, y in random.uniform(0, side, (220, 2)):
        long, short, slant, tone = *random.uniform(2, 6, 2), random.uniform(0, np.pi), random.uniform(0.8, 1.2)
        if soft[int(y), int(x), 0] < 0.4:
            across = long * np.cos(around) * np.cos(slant) - short * np.sin(around) * np.sin(slant)
            down = long * np.cos(around) * np.sin(slant) + short * np.sin(around) * np.cos(slant)
            pen.polygon(list(zip(x + across, y + down, strict=True)), (int(95 * tone), int(60 * tone), int(135 * tone)))
    return picture.filter(ImageFilter.GaussianBlur(0.8))


def augmentor_copy(original: Image.Image, angle: int, flips: str = "", quality: int = 75) -> np.ndarray:
    """Augmentor 0.2's ``rotate`` as its formula stands, then its flips, then what saving as JPEG does."""
    turned = original.rotate(angle, expand=True, resample=Image.Resampling.BICUBIC)
    width, height = turned.size
    a, b = math.sin(math.radians(abs(angle))), math.sin(math.radians(90 - abs(angle)))
    e = a / b * (height - width * (a / b)) / 1 - a**2 / b**2
    top = a / b * (width - e)
    cut = turned.crop((round(e), round(top), round(width - e), round(height - top)))
    return finished(cut.resize(original.size, Image.Resampling.BICUBIC), flips, quality)


def zoomed_copy(original: Image.Image, angle: float, flips: str = "") -> np.ndarray:
    """Turned, and the largest upright square without corners scaled up: what the formula above is meant to do."""
    turned = original.rotate(angle, expand=True, resample=Image.Resampling.BICUBIC)
    share = 1 / (math.cos(math.radians(angle)) + abs(math.sin(math.radians(angle))))
    middle, half = turned.width / 2, original.width * share / 2
    box = (round(middle - half), round(middle - half), round(middle + half), round(middle + half))
    return finished(turned.crop(box).resize(original.size, Image.Resampling.BICUBIC), flips, 75)


def finished(picture: Image.Image, flips: str, quality: int) -> np.ndarray:
    for flip in flips:
        way = Image.Transpose.FLIP_LEFT_RIGHT if flip == "h" else Image.Transpose.FLIP_TOP_BOTTOM
        picture = picture.transpose(way)
    picture.save(buffer := io.BytesIO(), "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


def thumbnails(pictures: Sequence[np.ndarray]) -> np.ndarray:
    return np.stack([copy_thumbnail(picture) for picture in pictures])


def groups(links: Sequence[tuple[int, int]], count: int) -> list[int]:
    """The smallest member of each one's group."""
    names = list(range(count))
    for _ in range(count):
        before = names.copy()
        for i, j in links:
            names[i] = names[j] = min(names[i], names[j])
        if names == before:
            break
    return names


def random_copy(original: Image.Image, random: np.random.Generator) -> np.ndarray:
    angle = int(random.integers(0, 26)) * (1 if random.integers(2) else -1)
    return augmentor_copy(original, angle, "".join(flip for flip in "hv" if random.integers(2)))


@pytest.fixture(scope="module")
def slide() -> tuple[np.ndarray, list[int]]:
    """Thumbnails of four copies each of 30 originals of one stain, in no order, and their originals."""
    random = np.random.default_rng(3)
    of = [number for number in range(30) for _ in range(4)]
    originals = [tissue(number) for number in range(30)]
    made = thumbnails([random_copy(originals[number], random) for number in of])
    order = random.permutation(len(of))
    return made[order], [of[place] for place in order]


def test_every_copy_is_joined_to_its_original_and_to_no_other(slide: tuple[np.ndarray, list[int]]) -> None:
    made, of = slide
    links = rotated_copy_links(made)
    assert [pair for pair in links if of[pair[0]] != of[pair[1]]] == []
    assert len(links) == 30 * 3  # a tree for each original
    assert links == sorted(links)
    assert all(i < j for i, j in links)
    assert Counter(Counter(groups(links, len(of))).values()) == {4: 30}


def test_different_pictures_of_one_stain_stay_apart(slide: tuple[np.ndarray, list[int]]) -> None:
    made, of = slide
    first = [of.index(number) for number in range(30)]
    assert rotated_copy_links(made[first]) == []


def test_groups_do_not_depend_on_the_order(slide: tuple[np.ndarray, list[int]]) -> None:
    made, of = slide
    order = np.random.default_rng(8).permutation(80)
    names = groups(rotated_copy_links(made[order]), 80)
    assert {(of[a], of[b]) for a, b in zip(order, (order[name] for name in names), strict=True)} == {
        (of[a], of[a]) for a in order
    }


@pytest.mark.parametrize(
    ("angles", "flips"),
    [
        ((0, 25), "hv"),
        ((-25, 25), ""),
        ((-25, 25), "h"),
        ((0, 0), "v"),
        ((13, -8), "hv"),
        ((20, 5), "v"),
        ((-24, 11), "h"),
    ],
)
def test_any_two_angles_and_flips(angles: tuple[int, int], flips: str) -> None:
    originals = [tissue(seed) for seed in (500, 501)]
    made = [augmentor_copy(original, angles[0]) for original in originals]
    made += [augmentor_copy(original, angles[1], flips) for original in originals]
    assert rotated_copy_links(thumbnails(made)) == [(0, 2), (1, 3)]


@pytest.mark.parametrize("angle", [7, 33, 90, 45, 120.5, -171])
def test_a_plain_turn_by_any_angle_with_its_zoom(angle: float) -> None:
    originals = [tissue(seed) for seed in (510, 511, 512)]
    made = [np.asarray(original) for original in originals]
    made += [zoomed_copy(original, angle % 90 if abs(angle) > 90 else angle, "v") for original in originals]
    if abs(angle) > 90:
        made[3:] = [np.rot90(copy).copy() for copy in made[3:]]
    assert rotated_copy_links(thumbnails(made)) == [(0, 3), (1, 4), (2, 5)]


def test_share_shown_is_what_the_formula_cuts() -> None:
    for angle in range(26):
        turned = Image.new("L", (2000, 2000)).rotate(angle, expand=True)
        tangent = math.tan(math.radians(angle))
        e = tangent * (turned.width - turned.width * tangent) - tangent**2
        top = tangent * (turned.width - e)
        shown = [(turned.width - 2 * cut) / 2000 for cut in (e, top)]
        assert share_shown(angle) == share_shown(-angle) == pytest.approx(shown, abs=2e-3)
    assert share_shown(25)[0] / share_shown(25)[1] == pytest.approx(1.68, abs=0.01)
    assert share_shown(0) == (1, 1)


def test_a_blank_middle_does_not_join_different_pictures() -> None:
    """Half blank: what shows in the middle may be one corner of tissue each, which alone would agree."""
    made = thumbnails([random_copy(tissue(seed, 0.65, 160), np.random.default_rng(seed)) for seed in range(700, 800)])
    assert rotated_copy_links(made) == []


def test_a_blank_middle_is_joined_by_what_stands_around_it() -> None:
    random = np.random.default_rng(5)
    made = []
    for seed in (900, 901):
        original = tissue(seed)
        ImageDraw.Draw(original).ellipse((50, 50, 150, 150), fill=(240, 236, 242))
        made += [augmentor_copy(original, angle, "h" if random.integers(2) else "") for angle in (3, -8, 10)]
    assert groups(rotated_copy_links(thumbnails(made)), 6) == [0, 0, 0, 3, 3, 3]


def test_pictures_without_content_are_not_joined() -> None:
    white, grey = np.full((90, 120, 3), 240, np.uint8), np.full((90, 120), 128, np.uint8)
    assert rotated_copy_links(thumbnails([white, white, grey, grey])) == []
    assert rotated_copy_links(np.zeros((0, *COPY_SHAPE), np.uint8)) == []
    assert rotated_copy_links(thumbnails([np.asarray(tissue(1))])) == []


def test_another_brightness_is_another_picture() -> None:
    """Augmentor's operations leave levels alone, and two stains of one layout are not one picture."""
    picture = np.asarray(tissue(2))
    assert rotated_copy_links(thumbnails([picture, picture - 8])) == []
    assert rotated_copy_links(thumbnails([picture, picture - 1])) == [(0, 1)]


def test_real_pictures_as_originals(realdata: Path) -> None:
    """Squares of skin and breast ultrasound pictures: three copies of each found, none joined to another.

    Of two fundus photographs, which are soft, a copy is missed and none is joined to a wrong one.
    """
    paths = [
        *sorted((realdata / "ham10000/images").glob("*.jpg")),
        *sorted((realdata / "pad-ufes-20/images").glob("*.png")),
        *(path for path in sorted((realdata / "busi").rglob("*.png")) if "mask" not in path.name),
        *sorted((realdata / "idrid").glob("*.jpg")),
    ]
    random = np.random.default_rng(1)
    made, of = [], []
    for path in paths:
        with Image.open(path) as image:
            side = min(image.size)
            box = ((image.width - side) // 2, (image.height - side) // 2)
            square = image.convert("RGB").crop((*box, box[0] + side, box[1] + side)).resize((384, 384))
        made += [random_copy(square, random) for _ in range(3)]
        of += [path.name] * 3
    links = rotated_copy_links(thumbnails(made))
    assert [(of[i], of[j]) for i, j in links if of[i] != of[j]] == []
    soft = {path.name for path in paths[-2:]}
    assert (len(paths), Counter(of[i] in soft for i, _ in links)[False]) == (21, 19 * 2)
