"""The layout of CT-ICH 1.0.0: its folders, its tables' names; and a generated tree of it."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from qoq_data.clinical.synthetic_image import BRIGHT, Scene, Spot, draw_scene
from qoq_data.errors import LayoutError
from qoq_data.formats.storage import Store
from qoq_data.sources._published_files import csv_bytes

FOLDER, SLICES, DEMOGRAPHICS = "Patients_CT", "hemorrhage_diagnosis.csv", "patient_demographics.csv"
TYPES = ("Intraventricular", "Intraparenchymal", "Subarachnoid", "Epidural", "Subdural")
AGE = "Age\n(years)"
"""The publisher's cell of the header has a line break."""
_PICTURE = re.compile(r"[1-9][0-9]{0,3}(?:_HGE_Seg)?\.jpg")


def patient_folders(tree: Store) -> dict[int, str]:
    """Name of each patient's folder by its number, however it is padded."""
    names = [name[:-1] for name in tree.names(FOLDER) if name.endswith("/") and name[:-1].isdecimal()]
    found = {int(name): name for name in names}
    if not found:
        other = "; this is release 1.3.1, which is not read here" if tree.is_folder("ct_scans") else ""
        raise LayoutError(f"ct-ich: {FOLDER}/ is not in the raw folder, or has no folder named like 049{other}.")
    if len(found) < len(names):
        raise LayoutError(f"ct-ich: {FOLDER}/ has two folders of one patient's number. Unpack the archive again.")
    return found


def slice_files(tree: Store, folder: str) -> set[str]:
    """Pictures and masks in a patient's folder, as ``brain/14.jpg``."""
    return {
        f"{window}/{name}"
        for window in ("brain", "bone")
        for name in tree.names(f"{FOLDER}/{folder}/{window}")
        if _PICTURE.fullmatch(name)
    }


def file_names(slice_number: int) -> tuple[str, str, str]:
    """A slice's picture in the brain window and in the bone window, and the outline on the first."""
    return f"brain/{slice_number}.jpg", f"bone/{slice_number}.jpg", f"brain/{slice_number}_HGE_Seg.jpg"


_SIDE = 120
_FIRST_PATIENT = 49
_SLICES_A_PATIENT = 4
_HEAD, _BRAIN = Spot((0.5, 0.5), (0.47, 0.47), 0.62), Spot((0.5, 0.5), (0.43, 0.43), 0.42)
_BONE, _INSIDE = Spot((0.5, 0.5), (0.47, 0.47), 0.9), Spot((0.5, 0.5), (0.43, 0.43), 0.15)
_CRACK = Spot((0.5, 0.05), (0.02, 0.06), 0.02)
_BLEEDS = {
    "Intraventricular": Spot((0.5, 0.5), (0.05, 0.12), BRIGHT),
    "Intraparenchymal": Spot((0.32, 0.4), (0.09, 0.09), BRIGHT),
    "Subarachnoid": Spot((0.5, 0.28), (0.2, 0.025), BRIGHT),
    "Epidural": Spot((0.82, 0.5), (0.07, 0.16), BRIGHT),
    "Subdural": Spot((0.16, 0.52), (0.03, 0.24), BRIGHT),
}
_AGES = ("35", "0.583333333", "5", "0.002747253", "60", "1")
_CONDITIONS = {True: "Intracranial HGE ", False: "Normal CT"}


def write_tree(folder: Path, seed: int, patients: int) -> None:
    """Four slices a patient in two windows; every other patient has a haemorrhage on two of them.

    Its type goes round, and every fourth of these patients has a second one; a third of all have a fracture. Pictures
    and outlines are grey JPEG files, the first table has a byte order mark and the second a line break in its header,
    as published.
    """
    slices, people = [], []
    for place in range(max(2, patients)):
        number, rng = _FIRST_PATIENT + place, np.random.default_rng([seed, place])
        home = folder / FOLDER / f"{number:03d}"
        turn = place // 2
        kinds = {TYPES[turn % 5], *([TYPES[(turn + 2) % 5]] if turn % 4 == 3 else [])} if place % 2 == 0 else set()
        for nth in range(1, _SLICES_A_PATIENT + 1):
            here = [name for name in TYPES if name in kinds and nth in (2, 3)]
            cracked = place % 3 == 1 and nth == 2
            scene = Scene(0.02, spots=(_HEAD, _BRAIN, *(_BLEEDS[name] for name in here)))
            pixels, masks = draw_scene(scene, _SIDE, _SIDE, rng)
            bone, _ = draw_scene(Scene(0.02, spots=(_BONE, _INSIDE, *([_CRACK] if cracked else []))), _SIDE, _SIDE, rng)
            files = dict(zip(file_names(nth), (pixels[..., 0], bone[..., 0]), strict=False))
            if here:
                files[file_names(nth)[2]] = np.logical_or.reduce(masks[2:]).astype(np.uint8) * 255
            for name, grey in files.items():
                _save(home / name, grey)
            slices.append([number, nth, *(int(name in here) for name in TYPES), int(not here), int(cracked)])
        flags = ["1" if name in kinds else "" for name in TYPES]
        cracks = "1" if place % 3 == 1 else ""
        sex = "Female" if rng.integers(2) else "Male"
        people.append([number, _AGES[place % len(_AGES)], sex, *flags, cracks, _CONDITIONS[bool(kinds)], ""])
    of_slices = ("PatientNumber", "SliceNumber", *TYPES, "No_Hemorrhage", "Fracture_Yes_No")
    (folder / SLICES).write_bytes(b"\xef\xbb\xbf" + csv_bytes(of_slices, slices))
    of_people = ("Patient Number", AGE, "Gender", *TYPES, "Fracture (Yes/No)", "Condition on file", "Note")
    (folder / DEMOGRAPHICS).write_bytes(csv_bytes(of_people, people))


def _save(path: Path, grey: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(grey).save(buffer := io.BytesIO(), "JPEG", quality=90)
    path.write_bytes(buffer.getvalue())
