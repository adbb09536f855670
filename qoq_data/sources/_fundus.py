"""What sources of fundus photographs share: the five grades, names in any letter case, pairs, and a drawn fundus."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from qoq_data.errors import LayoutError, RecordError, TableError
from qoq_data.formats.storage import Store
from qoq_data.record import AnswerType
from qoq_data.source import Choice, Task

GRADES = ("No DR", "Mild DR", "Moderate DR", "Severe DR", "Proliferative DR")
"""Texts of grades 0 to 4 of the international scale, as published; the published question calls it the Davis scale."""

DR_GRADE = Task(
    "dr_grade",
    AnswerType.ONE,
    (
        "Which grade of diabetic retinopathy (DR) does this fundus photograph show?",
        "How far has diabetic retinopathy (DR) come in the eye of this retinal photograph?",
        "Read this photograph of a retina and give its grade of diabetic retinopathy (DR).",
        "You see the fundus of one eye. Stage its diabetic retinopathy (DR) on the five-step international scale.",
        "Judge this colour fundus picture for diabetic retinopathy (DR): which single grade fits?",
    ),
    tuple(Choice(str(grade), text) for grade, text in enumerate(GRADES)),
)
"""Exactly one grade: they exclude each other, where the published question asks for one or multiple phrases."""

MACULAR_OEDEMA = Task(
    "macular_oedema",
    AnswerType.ONE,
    (
        "Does this fundus photograph show macular oedema to an extent that calls for referral?",
        "Is there referable diabetic macular oedema in this picture of a retina?",
        "Look at the macula of this eye: would you refer the patient for macular oedema?",
        "Judge this retinal photograph: is referable macular oedema present?",
        "Should this eye be referred because of diabetic macular oedema?",
    ),
    (Choice("0", "No"), Choice("1", "Yes")),
)

SIGNS = ("redness",)
"""Measures of ``image_features`` in which ``draw_fundus`` shows how many lesions there are."""

_EXTENSIONS = (".png", ".jpg", ".jpeg", ".tif")


def is_picture_name(name: str) -> bool:
    return name.lower().endswith(_EXTENSIONS)


class NamesInAnyCase:
    """Names of a folder, found by a table's name for them whatever the letter case of either.

    ``shared`` are the names in lower case that several files have.
    """

    def __init__(self, folder: str, names: Sequence[str]) -> None:
        self._folder = folder
        self._exact = frozenset(names)
        self._by_lower = {name.lower(): name for name in names}
        counts = Counter(name.lower() for name in names)
        self.shared = frozenset(name for name, count in counts.items() if count > 1)

    def find(self, name: str) -> str | None:
        """The file of that very name, else the one of that name in another case; None where there is none.

        Raises ``LayoutError`` where there are several in other cases: which one is meant is not known.
        """
        if name in self._exact:
            return name
        found = self._by_lower.get(name.lower())
        if found is not None and found.lower() in self.shared:
            raise LayoutError(
                f"{self._folder}/{found} has a twin whose name differs by letter case only, and the table spells it a "
                "third way. Remove the one that is not the publisher's."
            )
        return found


def read_pairs(tree: Store, path: str, advice: str) -> dict[str, str]:
    """Name of the pair that a picture belongs to, by the picture's name in lower case; it is that of the pair's first.

    Two names a row, between ';' or ',', with a header or without. Raises ``TableError`` for anything else, with the
    ``advice`` where to get the file.
    """
    try:
        text = tree.read(path).decode("utf-8-sig")
    except RecordError as error:
        raise LayoutError(f"{path} cannot be read: {error.detail}.") from error
    except UnicodeDecodeError as error:
        raise TableError(f"{path} is not UTF-8 text. {advice}.") from error
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=";" if ";" in text.partition("\n")[0] else ",")
    pairs: dict[str, str] = {}
    for cells in reader:
        names = [cell.strip() for cell in cells if cell.strip()]
        if not names or (reader.line_num == 1 and not any(map(is_picture_name, names))):
            continue
        if len({name.lower() for name in names}) != 2 or len(names) != 2 or not all(map(is_picture_name, names)):
            raise TableError(f"{path}, line {reader.line_num}: it does not name two pictures. {advice}.")
        first = names[0].rpartition(".")[0]
        if any(name.lower() in pairs for name in names):
            raise TableError(f"{path}, line {reader.line_num}: a picture of it stands in another pair too.")
        pairs |= dict.fromkeys((name.lower() for name in names), first)
    if not pairs:
        raise TableError(f"{path} names no picture. {advice}.")
    return pairs


def draw_fundus(rng: np.random.Generator, severity: float, exudates: bool = False) -> NDArray[np.uint8]:
    """A drawn fundus, uint8 [height, width, 3]: a bright disc on a dark field with red lesions by ``severity``, 0 to 1.

    It has an optic disc on one side, vessels that arch from it, and broad shading, all from ``rng``, so that no two
    are near-duplicates. ``exudates`` are a patch nearly white at the centre, as wide as the optic disc. No real tissue.
    """
    from scipy.ndimage import zoom  # here: it takes half a second that a list of sources spares

    height = int(rng.integers(112, 137))
    width = round(1.15 * height)
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    radius = 0.58 * height
    across, down = (x - (width - 1) / 2) / radius, (y - (height - 1) / 2) / radius
    field = np.hypot(across, down) <= 1
    coarse = zoom(rng.standard_normal((4, 4)), (height / 4, width / 4), order=1, mode="nearest", grid_mode=True)
    tone = np.exp(0.26 * np.clip(coarse[:height, :width], -1.5, 1.5))
    picture = (tone / tone[field].mean())[..., None] * np.array((170.0, 102.0, 68.0))
    eye = float(rng.choice((-1.0, 1.0)))
    disc_down = rng.uniform(-0.3, 0.3)
    for bend in rng.uniform(0.5, 1.1, 4) * (-1, -0.35, 0.35, 1):
        along = (0.6 - eye * across) / 1.4
        vessel = np.abs(down - disc_down - bend * np.sqrt(np.clip(along, 0, None))) < 0.022
        picture[vessel & (along > 0)] *= (0.8, 0.62, 0.6)
    picture[np.hypot(across - 0.6 * eye, down - disc_down) < 0.17] = (205, 152, 96)
    for _ in range(round(60 * severity)):
        turn, reach, size = rng.uniform(0, 2 * np.pi), 0.9 * np.sqrt(rng.uniform(0.04, 1)), rng.uniform(0.03, 0.065)
        spot = np.hypot(across - reach * np.cos(turn), down - reach * np.sin(turn)) < size
        picture[spot] = (214, 22, 16)
    if exudates:
        picture[np.hypot(across + 0.1 * eye, down) < 0.17] = (255, 250, 214)
    picture *= 1 + 0.02 * rng.standard_normal((height, width, 1))
    picture[~field] = 3
    drawn: NDArray[np.uint8] = np.clip(np.rint(picture), 0, 255).astype(np.uint8)
    return drawn


def picture_bytes(pixels: NDArray[np.uint8], coding: Literal["PNG", "JPEG"]) -> bytes:
    """The picture as a file; JPEG at quality 92."""
    Image.fromarray(pixels).save(coded := io.BytesIO(), coding, **({"quality": 92} if coding == "JPEG" else {}))
    return coded.getvalue()
