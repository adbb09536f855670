"""A synthetic tree of CMMD in TCIA's layout: a workbook a row a breast, and each patient's films in one folder."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from xml.sax.saxutils import escape

import numpy as np

from qoq_data.clinical.synthetic_dicom import code_item, uid_of, write_dicom
from qoq_data.sources._mammography import SERIES_HEADER, SERIES_TABLE, draw_mammogram, series_row
from qoq_data.sources._published_files import csv_bytes

HEADER: Final = ("ID1", "LeftRight", "Age", "number", "abnormality", "classification", "subtype")
_ABNORMALITIES: Final = ("mass", "calcification", "both")
_SUBTYPES: Final = ("Luminal A", "Luminal B", "HER2-enriched", "triple negative", "")
_CODES: Final = {"CC": ("399162004", "cranio-caudal"), "MLO": ("399368009", "medio-lateral oblique")}
_ZIP_DATE: Final = (1980, 1, 1, 0, 0, 0)
_MAIN: Final = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
_RELATIONS: Final = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_PACKAGE: Final = "http://schemas.openxmlformats.org/package/2006"
_TYPE: Final = "application/vnd.openxmlformats-officedocument.spreadsheetml"


def write_tree(folder: Path, seed: int, patients: int, table: str) -> None:
    """Every fourth patient has films of one side alone, every sixth a row for either side, half of these opposite."""
    rows: list[tuple[object, ...]] = []
    series: list[tuple[object, ...]] = []
    for patient in range(max(patients, 1)):
        cohort = 1 + patient % 2
        name = f"D{cohort}-{patient // 2 + 1:04}"
        first = "R" if patient % 4 < 2 else "L"
        second = "L" if first == "R" else "R"
        found = {first: (_ABNORMALITIES[patient % 3], patient % 5 > 1)}
        if patient % 6 == 3:
            found[second] = (_ABNORMALITIES[(patient + 1) % 3], (patient % 5 > 1) == (patient % 12 == 3))
        for side, (abnormality, is_malignant) in found.items():
            subtype = _SUBTYPES[patient % 5] if cohort == 2 and is_malignant else ""
            diagnosis = "Malignant" if is_malignant else "Benign"
            rows.append((name, side, 34 + 7 * patient % 57, 2, abnormality, diagnosis, subtype))
        of_films = [first] if patient % 4 == 0 and len(found) == 1 else [first, second]
        study, uid = uid_of(f"study {seed} {name}"), uid_of(f"series {seed} {name}")
        middle = "-NA-NA" if patient % 2 else ""
        ends = "-NA" if patient % 2 else ""
        below = f"CMMD/{name}/07-18-2010{middle}-{study[-5:]}/1.000000{ends}-{uid[-5:]}"
        (folder / below).mkdir(parents=True)
        series.append(series_row(uid, name, study, "NA", 2 * len(of_films), below))
        films = [(side, view) for side in of_films for view in ("MLO", "CC")]
        for number, (side, view) in enumerate(films, 1):
            rng = np.random.default_rng([seed, patient, number])
            data = _film(rng, side, view, found.get(side), (study, uid, f"{uid} {number}"), number, deep=patient == 7)
            (folder / below / f"1-{number}.dcm").write_bytes(data)
    (folder / SERIES_TABLE).write_bytes(csv_bytes(SERIES_HEADER, series))
    (folder / table).write_bytes(workbook_bytes([HEADER, *sorted(rows, key=str)]))


def _film(
    rng: np.random.Generator,
    side: str,
    view: str,
    finding: tuple[str, bool] | None,
    uids: tuple[str, str, str],
    number: int,
    *,
    deep: bool,
) -> bytes:
    """One side's film, 8 bits or 16; malignant tissue is drawn brighter, so that the label shows."""
    abnormality, is_malignant = finding or ("", False)
    lesions = [("mass", rng.uniform(7, 9))] if abnormality in ("mass", "both") else []
    lesions += [("calcification", rng.uniform(12, 14))] if abnormality in ("calcification", "both") else []
    tissue = 0.28 if is_malignant else 0.2
    pixels, _ = draw_mammogram(rng, {"L": "left", "R": "right"}[side], view, tissue, lesions)
    code, meaning = _CODES[view]
    study, series, instance = uids
    return write_dicom(
        pixels.astype(np.uint16) * 256 if deep else pixels,
        study=study,
        series=series,
        instance=instance,
        kind="MG",
        attributes={
            "ImageLaterality": side,
            "ViewCodeSequence": [code_item(code, "SCT", meaning)],
            "InstanceNumber": number,
            "BurnedInAnnotation": "NO",
        },
    )


def workbook_bytes(rows: Sequence[Sequence[object]]) -> bytes:
    """The rows as the one sheet of a workbook, its texts in shared strings as Excel has them."""
    texts: dict[str, int] = {}
    lines = []
    for number, row in enumerate(rows, 1):
        cells = []
        for column, value in enumerate(row):
            place = f'r="{chr(ord("A") + column)}{number}"'
            if isinstance(value, int):
                cells.append(f"<c {place}><v>{value}</v></c>")
            elif value != "":
                cells.append(f'<c {place} t="s"><v>{texts.setdefault(str(value), len(texts))}</v></c>')
        lines.append(f'<row r="{number}">{"".join(cells)}</row>')
    shared = "".join(f"<si><t>{escape(text)}</t></si>" for text in texts)
    kinds = [("/xl/workbook.xml", "sheet.main"), ("/xl/worksheets/sheet1.xml", "worksheet")]
    kinds += [("/xl/sharedStrings.xml", "sharedStrings")]
    overrides = "".join(f'<Override PartName="{name}" ContentType="{_TYPE}.{kind}+xml"/>' for name, kind in kinds)
    relation = '<Relationship Id="{}" Type="{}/{}" Target="{}"/>'
    inner = relation.format("rId1", _RELATIONS, "worksheet", "worksheets/sheet1.xml")
    inner += relation.format("rId2", _RELATIONS, "sharedStrings", "sharedStrings.xml")
    outer = relation.format("rId1", _RELATIONS, "officeDocument", "xl/workbook.xml")
    rels = '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
    sheet = '<sheets><sheet name="Sheet1" sheetId="1" r:id="rId1"/></sheets>'
    parts = {
        "[Content_Types].xml": f'<Types xmlns="{_PACKAGE}/content-types">{rels}{overrides}</Types>',
        "_rels/.rels": f'<Relationships xmlns="{_PACKAGE}/relationships">{outer}</Relationships>',
        "xl/workbook.xml": f'<workbook xmlns="{_MAIN}" xmlns:r="{_RELATIONS}">{sheet}</workbook>',
        "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{_PACKAGE}/relationships">{inner}</Relationships>',
        "xl/worksheets/sheet1.xml": f'<worksheet xmlns="{_MAIN}"><sheetData>{"".join(lines)}</sheetData></worksheet>',
        "xl/sharedStrings.xml": f'<sst xmlns="{_MAIN}">{shared}</sst>',
    }
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for name, text in parts.items():
            file.writestr(zipfile.ZipInfo(name, _ZIP_DATE), f'<?xml version="1.0" encoding="UTF-8"?>\n{text}')
    return archive.getvalue()
