"""CBIS-DDSM: film mammograms of DDSM with masses and calcifications outlined, graded and proved benign or malignant.

3,568 abnormalities on 3,032 mammograms of 1,566 patients. An item is a mammogram: patient, side and view, with a mask
for each abnormality on it, mass or calcification. 71 mammograms stand in the tables of both kinds, in a file each;
they are one item where the two files are of one size.

What the published conversion does, and what this source does instead:

* it takes the official sides as they are, which are disjoint within masses and within calcifications only: 31 patients
  and 29 mammograms are on both. Here a patient with anything in a test table is test, which moves 35 mammograms;
* it drops a mammogram whose assessment is 0, as incomplete. Here that one question is left out (236 mammograms), and
  what else is known of it is asked;
* it keeps the highest assessment of a view (50 mammograms have several), and so does this source;
* it takes the file from the folder by a name that nobody has after a download. Here the series is looked up in
  ``metadata.csv``, whose locations have slashes of either kind, and its folder is listed;
* it has no boxes. Here they are those of the masks. Which of an abnormality's two files is the mask, and which the
  crop, neither names nor order tell: they are swapped between masses and calcifications, and lie in one series or in
  two. The mask is the one of the mammogram's size, or nearly; where none or several are, the item is a ledger line. A
  chosen file with more than two values is refused when it is read. A mask of another size and the same aspect is
  scaled, which the row says; one of another aspect is a ledger line.

A mammogram is malignant where any abnormality on it is; BENIGN_WITHOUT_CALLBACK is benign. Density 0 (2 mammograms) is
no density. A descriptor is asked where there is one abnormality of its kind.

Two layouts are read: TCIA's, and Kaggle's of JPEGs (``csv/``, ``jpeg/``), whose 8 bits and coding are of whoever put
them there. Neither files nor ``dicom_info.csv`` were at hand for this source: their form is from public code, and that
the two files of a mammogram of both kinds are the same film is taken from their equal size.

Licence: TCIA gives the set to everyone under CC BY 3.0.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from qoq_data.errors import RecordError
from qoq_data.formats.storage import Store
from qoq_data.licence import CC_BY_3, Access
from qoq_data.record import Domain
from qoq_data.source import ExpectedFile, SourceOptions, SourceSpec, SourceVersion, SyntheticTask
from qoq_data.sources._cbis_ddsm_files import (
    COLLECTION,
    KAGGLE_PICTURES,
    KAGGLE_TABLE,
    Release,
    candidates,
    find_release,
    release_name,
    settled,
)
from qoq_data.sources._cbis_ddsm_tables import (
    DENSITY,
    DESCRIPTORS,
    PATHS,
    TABLES,
    Lesion,
    ViewKey,
    official_side,
    read_views,
    view_answers,
)
from qoq_data.sources._cbis_ddsm_tasks import TASKS
from qoq_data.sources._cbis_ddsm_tree import write_tcia
from qoq_data.sources._mammography import SERIES_COLUMNS, SERIES_TABLE, SIDES, mammogram_schema, medium, skipped

_PAGE = "https://www.cancerimagingarchive.net/collection/cbis-ddsm/"
_COMMON = (
    "patient_id", "left or right breast", "image view", "abnormality id", "abnormality type", "assessment", "pathology",
    *PATHS,
)  # fmt: skip

SPEC = SourceSpec(
    name="cbis-ddsm",
    title="CBIS-DDSM, Curated Breast Imaging Subset of DDSM",
    domain=Domain.MAMMOGRAPHY,
    modality="film mammography",
    homepage=_PAGE,
    citation="Lee RS, Gimenez F, Hoogi A, Miyake KK, Gorovoy M, Rubin DL. A curated mammography data set for use in "
    "computer-aided detection and diagnosis research. Scientific Data 4:170177, 2017. doi:10.1038/sdata.2017.177. "
    "Data: The Cancer Imaging Archive, doi:10.7937/K9/TCIA.2016.7O02S9CY",
    licences={"media": CC_BY_3, "labels": CC_BY_3},
    access=Access.OPEN,
    access_steps=(
        f"Open {_PAGE} and fetch the images with the NBIA Data Retriever and the manifest there. No account is needed.",
        f"Fetch the four tables of case descriptions there, and copy them beside {SERIES_TABLE} and {COLLECTION}/.",
        "Give that folder as --raw. Of Kaggle's awsaf49/cbis-ddsm-breast-cancer-image-dataset, that of csv/ and jpeg/.",
    ),
    identity_group="ddsm",
    grouping="By patient_id over masses and calcifications together: a patient with anything in a test table is test.",
    versions=(SourceVersion("TCIA", 3_032, 1_566), SourceVersion("Kaggle", 3_032, 1_566)),  # as the tables have it
    expected_files=(
        *(
            ExpectedFile(name, columns=(*_COMMON, DENSITY[kind], *DESCRIPTORS[kind]), other_names=(f"csv/{name}",))
            for name, (kind, _) in TABLES.items()
        ),
        ExpectedFile(SERIES_TABLE, columns=SERIES_COLUMNS, other_names=(KAGGLE_TABLE,)),
        ExpectedFile(f"{COLLECTION}/", other_names=(f"{KAGGLE_PICTURES}/",)),
    ),
    tasks=TASKS,
    published_items=2_825,
    inspectors=("dicom_headers",),
    rows_per_shard=128,
    bytes_per_row=400_000,
    skip_limit=0.05,  # masks of another aspect, and the 71 mammograms of both kinds should their two files differ
    synthetic=(
        SyntheticTask("assessment", ("mean_intensity",)),
        SyntheticTask("pathology", ("mean_intensity",)),
        SyntheticTask("abnormality", ("bright_blob_area", "texture_contrast")),
    ),
    burned_in_text="Scanned films may show lead letters for side and view, which answer none of the tasks. No film was "
    "at hand to look for more.",
)


def scan(tree: Store, options: SourceOptions) -> pl.LazyFrame:  # noqa: ARG001
    """A row a mammogram of the tables; raises ``LayoutError`` and ``TableError``.

    In TCIA's layout its media are every file that may be its mask: ``expand`` settles which is.
    """
    release = find_release(tree)
    rows = [_row(release, key, lesions) for key, lesions in read_views(tree, release.home).items()]
    return pl.LazyFrame(rows, schema=mammogram_schema(task.name for task in TASKS))


def _row(release: Release, key: ViewKey, lesions: Sequence[Lesion]) -> dict[str, Any]:
    patient, side, view = key
    row: dict[str, Any] = {
        "item": "-".join(key),
        "patient": patient,
        "group": patient,
        "study": lesions[0].study,
        "official_split": official_side(lesions),
        "label_file": lesions[0].table,
        "label_row": f"{patient}, {side}, {view}: {', '.join(f'{one.kind} {one.number}' for one in lesions)}",
        **{f"answer.{task}": answer for task, answer in view_answers(lesions).items()},
    }
    try:
        media = candidates(release, lesions, view, SIDES[side])
        return row | {"media": settled(media, release.sizes, release.mask) if release.sizes else media}
    except RecordError as error:
        return row | {"media": [medium(release.picture, error.path, view)], **skipped(error.reason, error.detail)}


def expand(items: pl.DataFrame, facts: pl.DataFrame, options: SourceOptions) -> pl.DataFrame:  # noqa: ARG001
    """Each mammogram as itself, with its masks told from the crops by the sizes that the headers say."""
    sizes = {
        file["path"]: (file["rows"], file["columns"])
        for files in facts["dicom_headers.files"].drop_nulls()
        for file in files
    }
    rows = []
    for row in items.iter_rows(named=True):
        try:
            is_settled = row["media"][0]["kind"] != "dicom"
            rows.append(row | {"media": row["media"] if is_settled else settled(row["media"], sizes, "dicom_mask")})
        except RecordError as error:
            rows.append(row | skipped(error.reason, error.detail))
    return pl.DataFrame(rows, schema=mammogram_schema(task.name for task in TASKS))


def detect_version(tree: Store) -> str:
    """TCIA, or Kaggle for the copy that is turned into JPEGs."""
    return release_name(tree)


def statistics(tree: Store, options: SourceOptions) -> Mapping[str, int]:  # noqa: ARG001
    """Counts of what stands in the tables, and of what their official sides and assessments do not agree on."""
    views = read_views(tree, find_release(tree).home)
    sides: dict[str, set[str]] = {}
    counts: Counter[str] = Counter(abnormalities=0)
    for (patient, _, _), lesions in views.items():
        of_view = {one.official_side for one in lesions}
        sides.setdefault(patient, set()).update(of_view)
        assessments = {one.assessment for one in lesions}
        counts["abnormalities"] += len(lesions)
        counts["mammograms_of_both_kinds"] += len({one.kind for one in lesions}) > 1
        counts["mammograms_on_both_official_sides"] += len(of_view) > 1
        counts["mammograms_of_several_assessments"] += len(assessments) > 1
        counts["mammograms_of_both_pathologies"] += len({one.pathology for one in lesions}) > 1
        counts["mammograms_without_a_complete_assessment"] += assessments == {0}
        counts["mammograms_without_density"] += all(one.density is None for one in lesions)
    counts["mammograms"] = len(views)
    counts["patients_on_both_official_sides"] = sum(len(one) > 1 for one in sides.values())
    return dict(counts)


def synthesize(folder: Path, seed: int, patients: int) -> None:
    """TCIA's layout, with what is odd in the real set planted in it; see ``_cbis_ddsm_tree``."""
    write_tcia(folder, seed, patients)
