"""Messidor-2: fundus photographs of both eyes of diabetic patients, with adjudicated grades of retinopathy.

ADCIS hands out 1,748 pictures of 874 examinations, ``20051020_43808_0100_PP.png`` or ``IM004832.JPG``, with a list of
the pairs and no grades. The grades (three retina specialists, adjudicated) are a table of others, on Kaggle, with
referable macular oedema beside them. The original header says ``image_id,adjudicated_dr_grade``, a re-published copy
``id_code,diagnosis`` without the 4 ungradable rows; both are read.

What the published conversion does, and what this source does instead:

* it samples 80 % of each grade's pictures for training, so that two eyes of one patient cross. Here the pair is the
  patient, the study and the group, and there is no official split;
* it puts names in upper case, because the table says ``.jpg`` where the disk says ``.JPG``; ``.png`` names and disks in
  lower case are lost by that. Here a name is looked up in the folder's listing: as it is, else in any letter case;
* it asks for 'one or multiple phrases' on 'the Davis Scale', though exactly one of five grades holds, and they are the
  international ones. Here one grade is asked for. The texts of the grades are the published ones;
* it leaves macular oedema out. Here that is a task of its own, where the column is there.

Without the pair list nothing says which eyes belong together, and a corpus would look right with one patient on two
sides. So the scan stops; who builds all the same says ``pairs: do_without``, and every picture is its own group. A
picture that the list does not name is its own group too, and is counted.

Ungradable pictures (blank grade) have no answer. One that has a grade and is called ungradable is a ledger line.

Licence: ADCIS allows research and education and forbids copies, so pictures are fetched by each user. Whoever made the
grades gave them to everyone (CC0), and the ids of the pictures with them, so ids may be passed on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl

from qoq_data.errors import LayoutError, Reason, TableError
from qoq_data.formats.storage import Store
from qoq_data.formats.tables import read_table
from qoq_data.licence import CC0_1, Access, Licence, Redistribution
from qoq_data.record import Domain
from qoq_data.source import ExpectedFile, SourceOptions, SourceSpec, SourceVersion, SyntheticTask
from qoq_data.sources._fundus import (
    DR_GRADE,
    MACULAR_OEDEMA,
    SIGNS,
    NamesInAnyCase,
    draw_fundus,
    is_picture_name,
    picture_bytes,
    read_pairs,
)
from qoq_data.sources._item_rows import image_medium, item_table, refuse_rows
from qoq_data.sources._published_files import csv_bytes

TABLE = "messidor_data.csv"
PAIRS = "messidor-2.csv"
PICTURES = "IMAGES"
ORIGINAL, COPY = ("image_id", "adjudicated_dr_grade"), ("id_code", "diagnosis")
OEDEMA, GRADABLE = "adjudicated_dme", "adjudicated_gradable"
_PAGE = "https://www.adcis.net/en/third-party/messidor2/"
_GRADES_PAGE = "https://www.kaggle.com/datasets/google-brain/messidor2-dr-grades"
_TERMS = Licence("LicenseRef-Messidor", "Messidor terms: research and education, no copies", _PAGE, Redistribution.IDS)
_PAIR_ADVICE = f"It comes with the pictures, from {_PAGE}"

SPEC = SourceSpec(
    name="messidor-2",
    title="Messidor-2 with adjudicated grades of diabetic retinopathy",
    domain=Domain.FUNDUS,
    modality="fundus photograph",
    homepage=_PAGE,
    citation="Decencière E, Zhang X, Cazuguel G, et al. Feedback on a publicly distributed image database: the "
    "Messidor database. Image Analysis & Stereology 33(3):231-234, 2014. doi:10.5566/ias.1155. Krause J, Gulshan V, "
    "Rahimy E, et al. Grader variability and the importance of reference standards for evaluating machine learning "
    "models for diabetic retinopathy. Ophthalmology 125(8):1264-1272, 2018. doi:10.1016/j.ophtha.2018.01.034",
    licences={"media": _TERMS, "labels": CC0_1},
    access=Access.OWN_AGREEMENT,
    access_steps=(
        f"Fill in the form at {_PAGE} and fetch the four parts of the archive and {PAIRS}.",
        f"Unpack the parts together into one folder, which then holds {PICTURES}/, and put {PAIRS} beside it.",
        f"Fetch {TABLE} from {_GRADES_PAGE} and put it beside them too. Give that folder as --raw.",
        f"Without {PAIRS} a build stops, unless the recipe says 'pairs: do_without'.",
    ),
    identity_group="messidor-2",
    grouping=f"The two eyes of a row of {PAIRS} are one patient and stay together; pictures of the same content too.",
    versions=(SourceVersion("original grades", 1748, 874), SourceVersion("re-published grades", 1744, None)),
    expected_files=(
        ExpectedFile(TABLE, columns=(GRADABLE,)),  # the others have another name in the re-published copy
        ExpectedFile(PAIRS),
        ExpectedFile(f"{PICTURES}/"),
    ),
    tasks=(DR_GRADE, MACULAR_OEDEMA),
    published_items=1744,
    inspectors=("picture_content",),
    rows_per_shard=256,
    bytes_per_row=150_000,
    skip_limit=0.02,  # 4 of 1,748 are ungradable, and no missing file is expected
    synthetic=(SyntheticTask("dr_grade", SIGNS), SyntheticTask("macular_oedema", ("bright_blob_area",))),
)


class Options(SourceOptions):
    """Recipe keys.

    ``pairs``: whether the list of pairs has to be there. ``do_without`` makes every picture its own group where it is
    not, so that the two eyes of a patient may stand on two sides.
    """

    pairs: Literal["require", "do_without"] = "require"


def detect_version(tree: Store) -> str:
    return SPEC.versions[0 if _header(tree) == ORIGINAL else 1].name


def scan(tree: Store, options: Options) -> pl.LazyFrame:
    """A row a picture of the table; raises ``LayoutError`` and ``TableError``."""
    table, pairs, files = _table(tree), _pairs(tree, options), _files(tree)
    if pairs and not any(name.lower() in pairs for name in table["name"]):
        raise TableError(f"{PAIRS} names no picture of {TABLE}: one of the two is of another data set.")
    rows: list[dict[str, Any]] = []
    for name, grade, oedema, gradable in table.iter_rows():
        item = name.rpartition(".")[0]
        pair = pairs.get(name.lower())
        doubtful = gradable == 0 and grade is not None
        rows.append(
            {
                "item": item,
                "patient": pair,
                "group": pair or f"picture:{item}",
                "study": pair,
                "media": [image_medium(f"{PICTURES}/{_file(files, name)}")],
                "label_file": TABLE,
                "label_row": name,
                "answer.dr_grade": None if grade is None else [str(int(grade))],
                "answer.macular_oedema": None if oedema is None or grade is None else [str(int(oedema))],
                "skip_reason": str(Reason.LABEL_CONFLICT) if doubtful else None,
                "skip_detail": "the table calls it ungradable and gives it a grade" if doubtful else None,
            }
        )
    labels = pl.List(pl.String())
    return item_table(rows, {"dr_grade": labels, "macular_oedema": labels})


def statistics(tree: Store, options: Options) -> Mapping[str, int]:
    """Counts of rows without an answer, of pairs, and of names that are not on the disk as they stand."""
    table, pairs, files = _table(tree), _pairs(tree, options), _files(tree)
    names = table["name"].to_list()
    lower = {name.lower() for name in names}
    on_disk = [name for name in tree.names(PICTURES) if is_picture_name(name)]
    graded = Counter((pairs[row[0].lower()], row[1]) for row in table.iter_rows() if row[0].lower() in pairs and row[1])
    return {
        "rows_in_table": table.height,
        "ungradable_pictures": table["grade"].null_count(),
        "without_macular_oedema_label": table["oedema"].null_count(),
        "pictures_in_no_pair": sum(name not in pairs for name in lower),
        "paired_pictures_not_in_table": sum(name not in lower for name in pairs),
        "pairs_with_retinopathy_of_two_grades": sum(n > 1 for n in Counter(pair for pair, _ in graded).values()),
        "pictures_named_in_another_case": sum(_file(files, name) != name for name in names),
        "files_that_differ_by_case_only": len(files.shared),
        "files_not_in_table": sum(name.lower() not in lower for name in on_disk),
    }


def _header(tree: Store) -> tuple[str, str]:
    """The columns of name and grade: those of the copy where only the copy's are there."""
    both = {ORIGINAL[0]: pl.String, COPY[0]: pl.String}
    found = read_table(tree, TABLE, both, optional=tuple(both))
    return COPY if found[COPY[0]].count() and not found[ORIGINAL[0]].count() else ORIGINAL


def _table(tree: Store) -> pl.DataFrame:
    """Columns name, grade, oedema and gradable; the copy may lack oedema."""
    name, grade = header = _header(tree)
    columns = {name: pl.String, grade: pl.Float64, OEDEMA: pl.Float64, GRADABLE: pl.Float64}
    table = read_table(tree, TABLE, columns, optional=(OEDEMA,) if header == COPY else ())
    table.columns = ["name", "grade", "oedema", "gradable"]
    refused = {
        f"its {name} is blank": pl.col("name").is_null(),
        f"its {name} is no name of a picture": ~pl.col("name").str.contains(r"(?i)^[^/\\]+\.(png|jpe?g|tif)$"),
        "its picture stands in another row too, letter case aside": pl.col("name").str.to_lowercase().is_duplicated(),
        f"its {grade} is none of 0 to 4": ~pl.col("grade").is_in([0.0, 1.0, 2.0, 3.0, 4.0]),
        f"its {OEDEMA} is neither 0 nor 1": ~pl.col("oedema").is_in([0.0, 1.0]),
        f"its {GRADABLE} is neither 0 nor 1": ~pl.col("gradable").is_in([0.0, 1.0]),
    }
    refuse_rows(table, TABLE, refused)
    return table


def _pairs(tree: Store, options: Options) -> Mapping[str, str]:
    if options.pairs == "do_without" and not tree.exists(PAIRS):
        return {}
    if not tree.exists(PAIRS):
        why = "without it the two eyes of a patient may stand on two sides"
        raise LayoutError(
            f"{PAIRS} is not in the raw folder, and {why}. {_PAIR_ADVICE}; or say 'pairs: do_without' in the recipe."
        )
    return read_pairs(tree, PAIRS, _PAIR_ADVICE)


def _files(tree: Store) -> NamesInAnyCase:
    if not tree.is_folder(PICTURES):
        raise LayoutError(f"messidor-2: {PICTURES}/ is not in the raw folder. 'qoq-data info messidor-2' says how.")
    return NamesInAnyCase(PICTURES, tree.names(PICTURES))


def _file(files: NamesInAnyCase, name: str) -> str:
    """The file that a row means; the row's own name where there is none, for the ledger."""
    return files.find(name) or name


def synthesize(folder: Path, seed: int, patients: int) -> None:
    """A pair a patient, half of them PNG, half ``.JPG`` where the table says ``.jpg``; of 40 patients on, one picture
    is ungradable.
    """
    (folder / PICTURES).mkdir(parents=True, exist_ok=True)
    rows, pairs = [], []
    for patient in range(max(patients, 1)):
        names = []
        for eye in range(2):
            number = 2 * patient + eye
            name = f"IM{4000 + number:06d}.JPG" if patient % 2 else f"20051020_{43808 + number}_0100_PP.png"
            grade = (patient + eye * (patient % 3 == 0)) % 5
            oedema = grade > 0 and (patient // 5 + eye) % 2 == 0
            pixels = draw_fundus(np.random.default_rng([seed, patient, eye]), grade / 4, oedema)
            coding: Literal["PNG", "JPEG"] = "JPEG" if patient % 2 else "PNG"
            (folder / PICTURES / name).write_bytes(picture_bytes(pixels, coding))
            blank = patient == 39 and eye == 1
            listed = name.replace(".JPG", ".jpg")
            rows.append((listed, "", "", 0) if blank else (listed, grade, int(oedema), 1))
            names.append(name)
        pairs.append(f"{names[0]};{names[1]}\n")
    (folder / TABLE).write_bytes(csv_bytes((*ORIGINAL, OEDEMA, GRADABLE), rows))
    (folder / PAIRS).write_text("left;right\n" + "".join(pairs), encoding="utf-8", newline="")
