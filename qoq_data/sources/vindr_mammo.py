"""VinDr-Mammo 1.0.0: 5,000 screening exams of two hospitals in Vietnam, 20,000 digital mammograms read twice.

An exam has four images, CC and MLO of each breast. BI-RADS grade (1 to 5) and density (A to D) are the breast's, and so
both of its images have them; findings that are not benign have a box on the image they are seen on, and one or several
categories. Two readers, and arbitration where they differed, made one reading of it, so boxes have no agreement. A
finding of several categories has its box once under each name.

What the published conversion does, and what this source does instead:

* it takes columns by their place. Here they go by name;
* it scales from 0 to the largest value, and cuts negative values, whatever window the file asks for. Here the file's
  first window is applied, and the range from the smallest to the largest value where there is none;
* it takes padding for tissue: it sets the range, and turned round a padding of 0 is white. Here padding is left out of
  the range, and black;
* it shows images that are FOR PROCESSING. Here they are lines of the ledger where the table of tags names them;
* it asks for the grade alone: neither density, findings nor boxes of the release are used. Here they are.

Tables that contradict themselves are lines of the ledger: images of one breast with different grades, ``No Finding``
beside a finding or with a box, a finding without one, a box outside of the height and width that the table states. A
breast that has the same view twice has the view ``unknown``; public programs leave out one study for its views.

Licence: the publisher's terms are PhysioNet's for restricted access, which any registered user may sign, and not those
for credentialed users that VinDr-CXR has. No patient is published; the publisher has one exam of each.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import polars as pl

from qoq_data.formats.storage import Store
from qoq_data.licence import PHYSIONET_RESTRICTED, Access
from qoq_data.record import AnswerType, Domain
from qoq_data.source import (
    BOXES_TYPE,
    ITEM_COLUMNS,
    SKIP_COLUMNS,
    Choice,
    ExpectedFile,
    SourceOptions,
    SourceSpec,
    SourceVersion,
    SyntheticTask,
    Task,
    media_type,
)
from qoq_data.sources._published_files import CHECKSUMS
from qoq_data.sources._vindr_mammo_tables import (
    BIRADS,
    BREAST_COLUMNS,
    BREASTS,
    CATEGORIES,
    DENSITIES,
    FINDING_COLUMNS,
    FINDINGS,
    IMAGES,
    METADATA,
    Mammogram,
    read_mammograms,
)
from qoq_data.sources._vindr_mammo_tree import write_tree

_PAGE = "https://physionet.org/content/vindr-mammo/1.0.0/"
KEYS = {name: name.lower().replace(" ", "_") for name in CATEGORIES}

SPEC = SourceSpec(
    name="vindr-mammo",
    title="VinDr-Mammo, full-field digital mammography",
    domain=Domain.MAMMOGRAPHY,
    modality="mammogram",
    homepage=_PAGE,
    citation="Pham HH, Nguyen Trung H, Nguyen HQ. VinDr-Mammo: A large-scale benchmark dataset for computer-aided "
    "detection and diagnosis in full-field digital mammography (version 1.0.0). PhysioNet, 2022. "
    "doi:10.13026/br2v-7517. Nguyen HT, Nguyen HQ, Pham HH, et al. Scientific Data 10:277, 2023. "
    "doi:10.1038/s41597-023-02100-7",
    licences={"media": PHYSIONET_RESTRICTED, "labels": PHYSIONET_RESTRICTED},
    access=Access.REGISTERED,
    access_steps=(
        f"Sign in to PhysioNet and sign the data use agreement on {_PAGE}.",
        "wget -r -N -c -np --user NAME --ask-password https://physionet.org/files/vindr-mammo/1.0.0/ (some 350 GB).",
        f"Check it: 'qoq-data doctor vindr-mammo --checksums' compares it with {CHECKSUMS}.",
        f"Point --raw at the folder that holds {BREASTS} and {IMAGES}/.",
    ),
    identity_group="vindr-mammo",
    grouping="The exam: its four images stand on one side. The publisher gives no patient and says that there is one "
    "exam of each; the publisher's training and test are kept.",
    versions=(SourceVersion("1.0.0", 20_000, None),),
    expected_files=(
        ExpectedFile(BREASTS, columns=BREAST_COLUMNS),
        ExpectedFile(FINDINGS, columns=FINDING_COLUMNS),
        ExpectedFile(f"{IMAGES}/"),
        *(ExpectedFile(name, required=False) for name in (METADATA, CHECKSUMS, "LICENSE.txt")),
    ),
    tasks=(
        Task(
            "birads",
            AnswerType.ONE,
            (
                "Which BI-RADS category was this breast given? You see one mammographic view of it.",
                "Grade this mammogram by BI-RADS.",
                "One view of a screening mammogram: how suspicious is this breast on the BI-RADS scale?",
                "Read this mammogram and state the BI-RADS assessment of the breast.",
                "From negative to highly suggestive of malignancy, in BI-RADS terms: where does this breast stand?",
            ),
            tuple(Choice(name[-1], name) for name in BIRADS),
        ),
        Task(
            "density",
            AnswerType.ONE,
            (
                "How dense is the tissue of this breast, from A (almost all fat) to D (extremely dense)?",
                "Judge the breast composition on this mammogram on the four-step BI-RADS density scale.",
                "Fat or glandular tissue: which density category, A to D, fits this mammogram?",
                "Name the ACR density category of the breast on this mammographic view.",
                "How much could dense tissue hide on this mammogram? Give its density category.",
            ),
            tuple(Choice(name[-1].lower(), f"Density {name[-1]}") for name in DENSITIES),
        ),
        Task(
            "findings",
            AnswerType.SEVERAL,
            (
                "Which of the listed findings, other than benign ones, are on this mammogram? Name all that are.",
                "What would have to be reported of this mammographic view? Choose every entry that fits.",
                "Look for lesions on this mammogram and say of which kinds they are.",
                "Go through the list: what does this view of the breast show that is not clearly benign?",
                "Select whatever of the list a reader marked on this mammogram.",
            ),
            tuple(Choice(KEYS[name], name) for name in CATEGORIES),
        ),
    ),
    published_items=20_000,
    checksums_file=CHECKSUMS,
    skip_limit=0.02,  # how many images are for processing is not published; more of them than that would be a surprise
    synthetic=(
        SyntheticTask("birads", ("bright_blob_area", "mean_intensity")),
        SyntheticTask("density", ("mean_intensity",)),
    ),
    burned_in_text="Marks of side and view, and what else is not known: the publisher keeps no tag that would say.",
)


def scan(tree: Store, options: SourceOptions) -> pl.LazyFrame:  # noqa: ARG001
    """A row an image, in the order of the table; no image is looked for. Raises ``SourceError``."""
    answers = {f"answer.{task.name}": pl.List(pl.String) for task in SPEC.tasks}
    media = {"media": pl.List(media_type("laterality"))}
    schema = {**ITEM_COLUMNS, **media, **answers, **dict.fromkeys(SKIP_COLUMNS, pl.String), "boxes": BOXES_TYPE}
    return pl.LazyFrame([_row(image) for image in read_mammograms(tree)], schema=schema)


def _row(image: Mammogram) -> dict[str, object]:
    reason, detail = image.refused or (None, None)
    path = f"{IMAGES}/{image.study}/{image.image}.dicom"
    medium = {"role": "image", "kind": "dicom", "path": path, "part": image.view or "unknown"}
    edges = ("x0", "y0", "x1", "y1")
    boxes = [
        {"label": label, "image": 0, **dict(zip(edges, box, strict=True)), "agreement": None}
        for label, box in image.boxes
    ]
    return {
        "item": image.image,
        "group": image.study,
        "study": image.study,
        "official_split": image.split,
        "media": [{**medium, "laterality": image.laterality}],
        "label_file": BREASTS,
        "label_row": f"row {image.line}",
        "answer.birads": [image.birads[-1]],
        "answer.density": [image.density[-1].lower()],
        "answer.findings": [KEYS[name] for name in image.categories] or None,
        "skip_reason": reason and str(reason),
        "skip_detail": detail,
        "boxes": [] if reason else boxes,
    }


def statistics(tree: Store, options: SourceOptions) -> Mapping[str, int]:  # noqa: ARG001
    """Counts of grades and findings by side, and of what the tables do not say as one would expect."""
    counts: Counter[str] = Counter()
    images = read_mammograms(tree)
    for image in images:
        counts[f"{image.split}_birads_{image.birads[-1]}"] += 1
        counts[f"density_{image.density[-1].lower()}"] += 1
        counts["findings_with_a_box"] += sum(finding.edges is not None for finding in image.findings)
        counts["findings_of_several_categories"] += sum(len(finding.categories) > 1 for finding in image.findings)
        counts["boxes_that_reach_out_of_their_image"] += sum(image.overhangs(edges) for _, edges in image.boxes)
        counts["images_without_a_row_of_findings"] += not image.findings
        counts["images_of_a_view_that_stands_twice"] += not image.view
        counts["images_meant_for_processing"] += image.is_raw
        counts["images_refused"] += image.refused is not None
    counts["exams"] = len({image.study for image in images})
    counts["exams_without_four_images"] = sum(n != 4 for n in Counter(image.study for image in images).values())
    return dict(sorted(counts.items()))


def synthesize(folder: Path, seed: int, patients: int) -> None:
    """An exam of four images a patient, grades and densities going round; see ``_vindr_mammo_tree``."""
    write_tree(folder, seed, patients)
