"""The source ``vindr-cxr``: three readers a film, what the published conversion gets wrong, its synthetic tree."""

from __future__ import annotations

import csv
import hashlib
import io
import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from qoq_data.clinical.dicom_picture import decode_dicom
from qoq_data.contract.workspace import tables
from qoq_data.corpus.build import build_corpus
from qoq_data.corpus.items import scan_items
from qoq_data.corpus.ledger import from_lines
from qoq_data.corpus.manifest import LEDGER
from qoq_data.corpus.planning import SourceInput
from qoq_data.engines.local import LocalEngine
from qoq_data.errors import LayoutError, TableError
from qoq_data.formats.storage import Store
from qoq_data.licence import Access, Redistribution, strictest
from qoq_data.recipe import Recipe
from qoq_data.sources import mimic_cxr, source_of, vindr_cxr
from qoq_data.sources._vindr_cxr_labels import CHEXPERT, GLOBAL, LABELS, LOCAL
from qoq_data.sources._vindr_cxr_tables import EDGES, HEADINGS, boxes_path, film_path, labels_path
from qoq_data.sources._vindr_cxr_tree import KEPT_TAGS
from qoq_data.sources._vindr_files import Encoding, published_film
from qoq_data.sources.vindr_cxr import KEYS, Options

SOURCE = source_of(vindr_cxr)
A, B, C = "a" * 32, "b" * 32, "c" * 32
Box = tuple[float, float, float, float]
SQUARE: Box = (10, 20, 50, 60)
Reading = tuple[str, str, tuple[str, ...]]
Drawn = tuple[str, str, str, Box | None]


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    return text.getvalue().encode()


def tree_of(
    folder: Path,
    readings: Sequence[Reading],
    drawn: Sequence[Drawn] = (),
    test: Mapping[str, tuple[str, ...]] | None = None,
    test_boxes: Sequence[tuple[str, str, Box | None]] = (),
) -> Store:
    """A tree without films: (image, reader, labels), (image, reader, label, box), and the consensus of test films."""

    def cells(side: str, labels: tuple[str, ...]) -> list[int]:
        return [
            int(name in labels or (name == "Other diseases" and "Other disease" in labels)) for name in HEADINGS[side]
        ]

    for name in ("train", "test", "annotations"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    files = {
        labels_path("train"): table(
            ["image_id", "rad_id", *HEADINGS["train"]],
            [[image, reader, *cells("train", labels)] for image, reader, labels in readings],
        ),
        labels_path("test"): table(
            ["image_id", *HEADINGS["test"]],
            [[image, *cells("test", labels)] for image, labels in (test or {}).items()],
        ),
        boxes_path("train"): table(
            ["image_id", "rad_id", "class_name", *EDGES],
            [[image, reader, label, *(box or [""] * 4)] for image, reader, label, box in drawn],
        ),
        boxes_path("test"): table(
            ["image_id", "class_name", *EDGES], [[image, label, *(box or [""] * 4)] for image, label, box in test_boxes]
        ),
    }
    for path, data in files.items():
        (folder / path).write_bytes(data)
    return Store(folder)


def read_by(image: str, *readers: tuple[str, ...]) -> list[Reading]:
    return [(image, f"R{number}", labels) for number, labels in enumerate(readers, 1)]


def items_of(tree: Store, **options: Any) -> pl.DataFrame:
    return scan_items(SOURCE, tree, Options(**options))


def one_item(tree: Store, **options: Any) -> dict[str, Any]:
    return items_of(tree, **options).row(0, named=True)


def built(tree: Store, out: Path, **entry: Any) -> tuple[list[dict[str, Any]], list[tuple[str, str]]]:
    """The rows of a corpus, and the item and reason of each ledger line."""
    entry = {"name": "vindr-cxr", "skip_limit": 1.0, "tasks": ["abnormality"], **entry}
    recipe = Recipe.model_validate({"name": "x", "sources": [entry]})
    build_corpus(recipe, [SourceInput(SOURCE, recipe.sources[0], tree)], Store(out), LocalEngine(1))
    columns = ["id", "split", "patient", "context", "views", "boxes", "provenance", "redistribution"]
    rows = [one for part in tables(out, columns) for one in part.to_pylist()]
    return rows, sorted((skip.item, str(skip.reason)) for skip in from_lines((out / LEDGER).read_text()))


def grey_of(seed: int = 0, size: tuple[int, int] = (40, 32)) -> NDArray[np.uint8]:
    """Dark on the left, bright on the right, with grain."""
    ramp = np.linspace(20, 235, size[1])[None, :].repeat(size[0], axis=0)
    return np.clip(ramp + np.random.default_rng(seed).normal(0, 4, size), 0, 255).astype(np.uint8)


PLAIN = Encoding(12, is_inverted=False, windows=1)


def film(grey: NDArray[np.uint8], how: Encoding = PLAIN) -> bytes:
    return published_film(grey, how, A, KEPT_TAGS, {"RescaleIntercept": 0, "RescaleSlope": 1})


def published_labels(tree: Store, side: str) -> list[tuple[str, set[str]]]:
    """The published way: names in the order of the folder beside rows in the order of the table."""
    rows = list(csv.DictReader(io.StringIO(tree.read(labels_path(side)).decode())))
    names = [name.removesuffix(".dicom") for name in tree.names(side)]
    return [
        (name, {label for label in LABELS if row.get(label) == "1"}) for name, row in zip(names, rows, strict=False)
    ]


def published_answer(labels: Sequence[str]) -> list[str]:
    """The published way: CheXpert's names through a set."""
    return list({CHEXPERT[label] for label in labels if label in CHEXPERT})


def published_picture(data: bytes) -> NDArray[np.uint8]:
    """The published way: slope and intercept, the window, lowest to highest; which end is white is not asked."""
    from pydicom import dcmread

    data_set = dcmread(io.BytesIO(data))
    values = data_set.pixel_array * float(data_set.RescaleSlope) + float(data_set.RescaleIntercept)
    if "WindowCenter" in data_set:
        centre, width = float(data_set.WindowCenter), float(data_set.WindowWidth)
        values = np.clip(values, centre - width / 2, centre + width / 2)
    return np.asarray((values - values.min()) / (values.max() - values.min()) * 255, np.uint8)


def plain_votes(tree: Store) -> dict[str, Counter[str]]:
    votes: dict[str, Counter[str]] = defaultdict(Counter)
    for side in ("train", "test"):
        for row in csv.DictReader(io.StringIO(tree.read(labels_path(side)).decode())):
            votes[row["image_id"]].update(
                name.replace("diseases", "disease") for name in HEADINGS[side] if row[name] == "1"
            )
    return votes


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("vindr-cxr")
    vindr_cxr.synthesize(folder, 7, 48)
    return Store(folder)


def test_a_film_of_the_publisher(tmp_path: Path) -> None:
    readings = read_by(A, ("Cardiomegaly", "COPD"), ("Cardiomegaly",), ("Cardiomegaly", "ILD"))
    drawn: list[Drawn] = [(A, f"R{number}", "Cardiomegaly", SQUARE) for number in (1, 2, 3)]
    item = one_item(tree_of(tmp_path, readings, [*drawn, (A, "R3", "ILD", (5, 5, 9, 9))]))
    assert (item["item"], item["group"], item["patient"], item["study"]) == (A, A, None, None)
    assert (item["official_split"], item["label_file"]) == ("train", "annotations/image_labels_train.csv")
    assert item["media"] == [{"role": "image", "kind": "dicom", "path": f"train/{A}.dicom", "part": "PA"}]
    assert item["label_row"] == f"image_id={A}: Cardiomegaly 3/3, ILD 1/3, COPD 1/3"
    assert (item["answer.findings"], item["answer.abnormality"]) == (["cardiomegaly"], ["abnormal"])
    edges = {"x0": 10, "y0": 20, "x1": 50, "y1": 60}
    assert item["boxes"] == [{"label": "Cardiomegaly", "image": 0, **edges, "agreement": 1.0}]


def test_the_vocabulary_is_the_publishers_22_local_and_6_global_labels() -> None:
    assert (len(LOCAL), len(GLOBAL), len(set(LABELS))) == (22, 6, 28)
    assert [choice.text for choice in vindr_cxr.SPEC.task("findings").choices] == list(LABELS)
    assert vindr_cxr.SPEC.task("chexpert_findings").choices == mimic_cxr.SPEC.task("findings").choices
    assert set(CHEXPERT) < set(LABELS)


def test_films_in_folder_order_and_rows_in_table_order_where_the_published_way_gets_every_label_wrong(
    tmp_path: Path,
) -> None:
    of_film = {A: ("Cardiomegaly",), B: ("Pleural effusion",), C: ("No finding",)}
    readings = [(image, reader, of_film[image]) for reader in ("R1", "R2", "R3") for image in (B, C, A)]
    drawn: list[Drawn] = [
        (image, reader, labels[0], SQUARE) for image, reader, labels in readings if labels != ("No finding",)
    ]
    tree = tree_of(tmp_path, readings, drawn)
    for image in of_film:
        tree.write(film_path("train", image), b"")
    published = published_labels(tree, "train")
    assert [image for image, _ in published] == [A, B, C]
    assert [image for image, labels in published if labels == set(of_film[image])] == []
    ours = items_of(tree)
    expected = {image: [KEYS[labels[0]]] for image, labels in of_film.items()}
    assert dict(ours.select("item", "answer.findings").iter_rows()) == expected
    assert [media[0]["path"] for media in ours["media"].to_list()] == [film_path("train", image) for image in of_film]


def test_on_the_synthetic_tree_the_published_way_pairs_by_chance_and_ours_by_id(synthetic: Store) -> None:
    votes = plain_votes(synthetic)
    truth = {image: {label for label, count in of.items() if count > 1} for image, of in votes.items()}
    published = published_labels(synthetic, "train")
    assert len(published) < len(synthetic.read(labels_path("train")).splitlines()) / 2  # of three rows a film, one
    assert np.mean([labels == truth[image] for image, labels in published]) < 0.4
    train = items_of(synthetic).filter(pl.col("official_split") == "train")
    for image, answer in train.select("item", "answer.findings").iter_rows():
        assert set(answer or ()) == {KEYS[label] for label in truth[image]}


def test_monochrome1_stays_a_negative_in_the_published_way_and_is_turned_round_here() -> None:
    grey = grey_of()
    data = film(grey, Encoding(14, is_inverted=True, windows=1))
    assert np.corrcoef(published_picture(data).ravel(), grey.ravel())[0, 1] < -0.99
    decoded = decode_dicom(data, "x")
    assert np.abs(decoded.pixels.astype(int) - grey).max() <= 1
    assert decoded.source_mode == "MONOCHROME1"


@pytest.mark.parametrize(
    ("bits", "is_inverted", "windows"), list(itertools.product((12, 14, 16), (False, True), (0, 1, 2)))
)
def test_d01_a_film_comes_out_the_same_however_it_is_stored(bits: int, is_inverted: bool, windows: int) -> None:
    grey = grey_of()
    shown = decode_dicom(film(grey, Encoding(bits, is_inverted, windows)), "x").pixels
    expected = grey if windows else (grey - float(grey.min())) * 255 / (int(grey.max()) - int(grey.min()))
    assert np.abs(shown - expected).max() <= 1.5


def test_synthetic_films_are_stored_in_every_way_and_are_seen_the_right_way_round(synthetic: Store) -> None:
    ways: Counter[tuple[str, int, bool]] = Counter()
    several = 0
    for media in items_of(synthetic)["media"].to_list():
        decoded = decode_dicom(synthetic.read(media[0]["path"]), "x")
        pixels = decoded.pixels
        rows, columns = pixels.shape
        lung = pixels[int(rows * 0.16) : int(rows * 0.22), int(columns * 0.25) : int(columns * 0.31)]
        assert lung.mean() < pixels[2:8].mean()
        text = "; ".join(decoded.conversions)
        several += "number 1 of 2" in text
        ways[decoded.source_mode, decoded.bit_depth, "no window" in text] += 1
    assert {mode for mode, _, _ in ways} == {"MONOCHROME1", "MONOCHROME2"}
    assert {bits for _, bits, _ in ways} == {12, 14, 16}
    assert several > 5
    assert sum(count for (_, _, unwindowed), count in ways.items() if unwindowed) > 5


def test_seven_labels_without_a_name_in_chexpert_are_dropped_in_the_published_way_and_films_with_them(
    tmp_path: Path,
) -> None:
    lost = ("Calcification", "Emphysema", "ILD", "Pulmonary fibrosis", "COPD", "Tuberculosis", "Other disease")
    assert set(LABELS) - set(CHEXPERT) == set(lost)
    test = {f"{number}" * 32: (label,) for number, label in enumerate(lost)}
    boxes = [(image, labels[0], SQUARE) for image, labels in test.items() if labels[0] in LOCAL]
    items = items_of(tree_of(tmp_path, [], test=test, test_boxes=boxes))
    assert not any(published_answer(labels) for labels in test.values())
    assert items["answer.findings"].to_list() == [[KEYS[label]] for label in lost]
    assert items["answer.chexpert_findings"].null_count() == len(lost)
    assert items["skip_reason"].null_count() == len(lost)


def test_names_out_of_a_set_have_no_order_and_here_stand_once_in_that_of_the_choices(tmp_path: Path) -> None:
    labels = ("Rib fracture", "Lung tumor", "Enlarged PA", "Clavicle fracture", "Aortic enlargement", "Nodule/Mass")
    boxes = [(A, label, SQUARE) for label in labels if label in LOCAL]
    item = one_item(tree_of(tmp_path, [], test={A: labels}, test_boxes=boxes))
    expected = ["enlarged_cardiomediastinum", "lung_lesion", "fracture"]
    assert item["answer.chexpert_findings"] == expected
    assert len(published_answer(labels)) == len(expected)
    assert item["answer.findings"] == [KEYS[label] for label in LABELS if label in labels]


def test_other_diseases_of_one_table_and_other_disease_of_the_other_are_one_label(tmp_path: Path) -> None:
    rows_of_boxes: list[Drawn] = [(A, "R1", "Other diseases", None), (A, "R2", "Other disease", None)]
    tree = tree_of(tmp_path, read_by(A, *[("Other disease",)] * 3), rows_of_boxes, test={B: ("Other disease",)})
    assert (b"Other diseases" in tree.read(labels_path("train")), b"diseases" in tree.read(labels_path("test"))) == (
        True,
        False,
    )
    assert items_of(tree)["answer.findings"].to_list() == [["other_disease"]] * 2


CUTS: Mapping[str, Callable[[bytes], bytes]] = {
    "nothing": lambda data: b"",
    "the first kilobyte, all zero": lambda data: bytes(1024),
    "no transfer syntax": lambda data: data[:200],
    "no pixel data": lambda data: data[: data.rindex(b"\xe0\x7f\x10\x00")],
    "half of the pixels": lambda data: data[:-1000],
}


@pytest.mark.parametrize("cut", CUTS)
def test_a_download_cut_short_stops_a_plain_reader_and_is_a_ledger_line_here(cut: str, tmp_path: Path) -> None:
    tree = tree_of(tmp_path / "raw", [], test={A: ("No finding",), B: ("No finding",)})
    whole = film(grey_of())
    tree.write(film_path("test", A), CUTS[cut](whole))
    tree.write(film_path("test", B), whole)
    with pytest.raises(Exception, match=r".*"):  # whichever of pydicom's
        published_picture(CUTS[cut](whole))
    rows, ledger = built(tree, tmp_path / "out")
    assert len(rows) == 1
    assert [item for item, _ in ledger] == [A]
    assert ledger[0][1] in ("file_truncated", "header_invalid", "format_unsupported", "file_unreadable")


NODULE, EFFUSION, NONE = "Nodule/Mass", "Pleural effusion", "No finding"


@pytest.mark.parametrize(
    ("readers", "majority", "anyone", "everyone"),
    [
        (((NODULE,), (NODULE,), (NODULE,)), [NODULE], [NODULE], [NODULE]),
        (((NODULE, EFFUSION), (NODULE,), (NONE,)), [NODULE], [NODULE, EFFUSION], None),
        (((NODULE,), (NONE,), (NONE,)), [NONE], [NODULE], None),
        (((NODULE,), (EFFUSION,), (NONE,)), None, [NODULE, EFFUSION], None),
        (((NONE,), (NONE,), (NONE,)), [NONE], [NONE], [NONE]),
        (((), (NODULE,), (NODULE,)), [NODULE], [NODULE], None),
        (((), (), ()), None, None, None),
    ],
)
def test_labels_by_two_of_three_by_any_and_by_all(
    readers: tuple[tuple[str, ...], ...],
    majority: list[str] | None,
    anyone: list[str] | None,
    everyone: list[str] | None,
    tmp_path: Path,
) -> None:
    drawn = [
        (A, f"R{number}", label, SQUARE) for number, one in enumerate(readers, 1) for label in one if label != NONE
    ]
    tree = tree_of(tmp_path, read_by(A, *readers), drawn)
    for rule, expected in (("majority", majority), ("any", anyone), ("all", everyone)):
        answer = one_item(tree, readers=rule)["answer.findings"]
        assert answer == (expected and [KEYS[label] for label in LABELS if label in expected]), rule


@pytest.mark.parametrize(
    ("readers", "expected"),
    [
        (((NODULE,), (EFFUSION,), ("ILD",)), ("abnormal", "abnormal", "abnormal")),
        (((NODULE,), (EFFUSION,), (NONE,)), ("abnormal", "abnormal", None)),
        (((NODULE,), (NONE,), (NONE,)), ("normal", "abnormal", None)),
        (((NONE,), (NONE,), (NONE,)), ("normal", "normal", "normal")),
        (((NONE,), (), ()), (None, "normal", None)),
    ],
)
def test_readers_may_agree_that_a_film_is_abnormal_and_not_on_what_it_shows(
    readers: tuple[tuple[str, ...], ...], expected: tuple[str | None, ...], tmp_path: Path
) -> None:
    tree = tree_of(tmp_path, read_by(A, *readers))
    found = tuple(one_item(tree, readers=rule)["answer.abnormality"] for rule in ("majority", "any", "all"))
    assert found == tuple(one and [one] for one in expected)


def test_boxes_are_merged_and_kept_by_the_rule_of_the_labels(tmp_path: Path) -> None:
    readings = read_by(A, (NODULE, "ILD"), (NODULE,), (NODULE,))
    drawn: list[Drawn] = [
        (A, "R1", NODULE, (10, 20, 50, 60)),
        (A, "R2", NODULE, (12, 20, 50, 60)),
        (A, "R2", NODULE, (12, 21, 50, 60)),
        (A, "R3", NODULE, (100, 20, 140, 60)),
        (A, "R1", "ILD", (10, 20, 50, 60)),
        (A, "R1", NONE, None),
        (A, "R1", "Pneumonia", None),
    ]
    tree = tree_of(tmp_path, readings, drawn)

    def boxes(**options: Any) -> list[tuple[str, float, float, float]]:
        found = one_item(tree, **options)["boxes"]
        return [(box["label"], box["x0"], box["y0"], round(box["agreement"] * 3)) for box in found]

    assert boxes() == [(NODULE, 11, 20.25, 2)]
    everything = [("ILD", 10, 20, 1), (NODULE, 11, 20.25, 2), (NODULE, 100, 20, 1)]
    assert boxes(boxes="all") == boxes(readers="any") == everything
    assert boxes(readers="all") == []
    assert boxes(least_overlap=0.98) == []
    counts = vindr_cxr.statistics(tree, Options())
    assert (counts["boxes_drawn"], counts["lesions"], counts["boxes_kept"]) == (5, 3, 1)
    assert (counts["lesions_of_1_readers"], counts["lesions_of_2_readers"]) == (2, 1)
    assert counts["lesions_drawn_twice_by_one_reader"] == 1


def test_the_consensus_of_the_test_side_keeps_its_boxes_without_an_agreement(tmp_path: Path) -> None:
    boxes = [(A, NODULE, (10.5, 20, 50, 60)), (A, NODULE, (11, 20, 50, 60)), (B, NONE, None)]
    tree = tree_of(tmp_path, [], test={A: (NODULE,), B: (NONE,)}, test_boxes=boxes)
    first, second = items_of(tree).iter_rows(named=True)
    assert [(box["x0"], box["agreement"]) for box in first["boxes"]] == [(10.5, None), (11, None)]
    assert (first["official_split"], first["media"][0]["path"]) == ("test", f"test/{A}.dicom")
    assert (second["answer.findings"], second["boxes"]) == (["no_finding"], [])


def test_rows_in_another_order_and_readers_of_other_names_change_nothing(synthetic: Store, tmp_path: Path) -> None:
    def shuffled(path: str, data: bytes) -> bytes:
        header, *rows = list(csv.reader(io.StringIO(data.decode())))
        rows = [rows[place] for place in np.random.default_rng(3).permutation(len(rows))]
        if "rad_id" in header:
            place = header.index("rad_id")
            names = {f"R{number}": f"Z{(7 * number) % 18}" for number in range(1, 18)}
            rows = [[*row[:place], names[row[place]], *row[place + 1 :]] for row in rows]
        return table(header, rows)

    tree = tree_of(tmp_path, [])
    for side in ("train", "test"):
        for path in (labels_path(side), boxes_path(side)):
            tree.write(path, shuffled(path, synthetic.read(path)))
    assert items_of(tree).equals(items_of(synthetic))


BAD_FILMS: Mapping[str, tuple[list[Reading], list[Drawn], str, str]] = {
    "two readers": (read_by(A, (NONE,), (NONE,)), [], "no_label", "labels of 2 readers and not of 3"),
    "four readers": (read_by(A, *[(NONE,)] * 4), [], "no_label", "labels of 4 readers"),
    "no finding and one": (read_by(A, (NONE, "COPD"), (NONE,), (NONE,)), [], "label_conflict", "beside a finding"),
    "a box of no finding": (read_by(A, *[(NONE,)] * 3), [(A, "R1", NONE, SQUARE)], "label_conflict", "for No finding"),
    "a fourth draws": (
        read_by(A, *[(NODULE,)] * 3),
        [(A, "R9", NODULE, SQUARE)],
        "label_conflict",
        "gives it no labels",
    ),
    "no area": (read_by(A, *[(NODULE,)] * 3), [(A, "R1", NODULE, (9, 9, 9, 20))], "mask_conflict", "has no area"),
    "upside down": (read_by(A, *[(NODULE,)] * 3), [(A, "R1", NODULE, (9, 20, 15, 9))], "mask_conflict", "has no area"),
    "no box": (read_by(A, *[(NODULE,)] * 3), [(A, "R1", NODULE, None)], "mask_missing", "listed without its box"),
    "box of a label that none states": (
        read_by(A, *[(NODULE,)] * 3),
        [(A, "R1", "ILD", SQUARE), (A, "R2", "ILD", SQUARE)],
        "label_conflict",
        "agree on a box whose label",
    ),
}


@pytest.mark.parametrize("case", BAD_FILMS)
def test_t08_a_film_whose_tables_contradict_themselves_is_a_ledger_line(case: str, tmp_path: Path) -> None:
    readings, drawn, reason, detail = BAD_FILMS[case]
    tree = tree_of(tmp_path, [*readings, *read_by(B, *[(NONE,)] * 3)], drawn)
    bad, good = items_of(tree).iter_rows(named=True)
    assert (bad["skip_reason"], good["skip_reason"]) == (reason, None)
    assert detail in bad["skip_detail"]
    assert A not in bad["skip_detail"]
    assert vindr_cxr.statistics(tree, Options())["films_refused"] == 1


def test_a_blank_label_is_not_taken_for_0(tmp_path: Path) -> None:
    tree = tree_of(tmp_path, read_by(A, *[(NONE,)] * 3))
    tree.write(labels_path("train"), tree.read(labels_path("train")).replace(b"R1,0", b"R1,"))
    assert (one_item(tree)["skip_reason"], one_item(tree)["skip_detail"]) == ("no_label", "a label of it is blank")


@pytest.mark.parametrize(
    ("path", "old", "new", "message"),
    [
        (labels_path("train"), b"R1,0", b"R1,2", "row 2: Aortic enlargement is neither 0 nor 1"),
        (labels_path("train"), b"R1,0", b"R1,yes", "line 2: the cell of column 'Aortic enlargement'"),
        (labels_path("train"), b"R2", b"R1", "row 3: the reader has a row above for the image_id"),
        (labels_path("train"), b"R2", b"", "row 3: rad_id is blank"),
        (labels_path("train"), A.encode(), b"../secret", "row 2: image_id is no plain id"),
        (labels_path("test"), B.encode(), b"", "row 2: image_id is no plain id"),
        (labels_path("test"), C.encode(), B.encode(), "row 3: the image_id stands twice"),
        (boxes_path("train"), b"Nodule/Mass", b"Nodule", "row 2: class_name is none of the 28 labels"),
        (boxes_path("train"), A.encode(), b"d" * 32, f"row 2: the image_id has no row in {labels_path('train')}"),
        (boxes_path("train"), b"10,20", b"10,", "row 2: one edge of its box is blank"),
        (boxes_path("train"), b"10,20", b"inf,20", "line 2: the cell of column 'x_min'"),
        (boxes_path("train"), b"R1", b"", "row 2: rad_id is blank"),
        (labels_path("train"), b"Other diseases", b"Other disease", "lacks the column 'Other diseases'"),
        (labels_path("test"), b"Other disease", b"Other diseases", "lacks the column 'Other disease'"),
        (labels_path("train"), b"rad_id", b"reader", "lacks the column 'rad_id'"),
        (boxes_path("test"), b"x_min", b"xmin", "lacks the column 'x_min'"),
    ],
)
def test_t07_a_bad_cell_is_one_error_with_file_and_row(
    path: str, old: bytes, new: bytes, message: str, tmp_path: Path
) -> None:
    readings = read_by(A, *[(NODULE,)] * 3)
    tree = tree_of(tmp_path, readings, [(A, "R1", NODULE, SQUARE)], test={B: (NONE,), C: (NONE,)})
    data = tree.read(path)
    assert old in data
    tree.write(path, data.replace(old, new))
    with pytest.raises(TableError, match=f"^{path}.*{message}") as caught:
        items_of(tree)
    assert "secret" not in str(caught.value)


def test_a_film_on_both_sides_of_the_tables_is_one_error(tmp_path: Path) -> None:
    tree = tree_of(tmp_path, read_by(A, *[(NONE,)] * 3), test={A: (NONE,)})
    with pytest.raises(TableError, match=f"the item {A} stands more than once"):
        items_of(tree)


@pytest.mark.parametrize("side", ["train", "test"])
def test_a_missing_folder_and_the_competitions_form_are_told(side: str, tmp_path: Path) -> None:
    tree = tree_of(tmp_path, read_by(A, *[(NONE,)] * 3))
    (tmp_path / side).rmdir()
    with pytest.raises(LayoutError, match=rf"^vindr-cxr: {side}/ is not in the raw folder, which .*annotations/\.$"):
        items_of(tree)
    other = Store(tmp_path / "kaggle")
    other.write("train.csv", b"image_id,class_name\n")
    with pytest.raises(LayoutError, match="the competition's form, which lacks most labels"):
        items_of(other)


@pytest.mark.parametrize("other", ["coronahack", "cbis-ddsm", "ptb-xl"])
def test_real_folders_of_other_sources_are_refused(other: str, realdata: Path) -> None:
    with pytest.raises(LayoutError, match=r"is not in the raw folder"):
        items_of(Store(realdata / other))


def test_s01_equal_films_under_two_ids_stand_on_one_side(tmp_path: Path) -> None:
    tree = tree_of(tmp_path / "raw", read_by(A, *[(NONE,)] * 3), test={B: (NONE,), C: (NONE,)})
    grey = grey_of(1)
    tree.write(film_path("train", A), film(grey, Encoding(12, is_inverted=True, windows=1)))
    tree.write(film_path("test", B), film(grey, Encoding(12, is_inverted=False, windows=2)))
    tree.write(film_path("test", C), film(grey_of(2)[:, ::-1].copy()))
    rows, ledger = built(tree, tmp_path / "out")
    assert not ledger
    assert [row["split"] for row in rows] == ["test"] * 3


def test_l01_rows_are_marked_and_say_nothing_of_ids_readers_or_tags(synthetic: Store, tmp_path: Path) -> None:
    assert vindr_cxr.SPEC.access is Access.CREDENTIALED
    assert strictest(vindr_cxr.SPEC.licences.values())[1] is Redistribution.NONE
    rows, ledger = built(synthetic, tmp_path / "out")
    assert (len(rows), ledger) == (48, [])
    assert {(row["redistribution"], row["context"], row["patient"]) for row in rows} == {("none", "", None)}
    assert {row["views"][0]["view"] for row in rows} == {"PA"}
    agreements = Counter(round(box["agreement"] * 3) for row in rows for box in row["boxes"] if box["agreement"])
    assert agreements[3] > agreements[2] > 0
    assert agreements[1] == 0
    label = next(one for row in rows for one in row["provenance"] if one["role"] == "label" and "3/3" in one["taken"])
    assert label["path"] == labels_path("train")


def test_boxes_of_the_synthetic_tree_lie_on_what_is_drawn(synthetic: Store) -> None:
    bright = ("Cardiomegaly", "Pleural effusion", "Consolidation", "Nodule/Mass")
    seen = 0
    for media, boxes in items_of(synthetic).select("media", "boxes").iter_rows():
        pixels = decode_dicom(synthetic.read(media[0]["path"]), "x").pixels
        for box in boxes:
            x0, y0, x1, y1 = (round(box[edge]) for edge in ("x0", "y0", "x1", "y1"))
            middle = pixels[(3 * y0 + y1) // 4 : (y0 + 3 * y1) // 4, (3 * x0 + x1) // 4 : (x0 + 3 * x1) // 4].mean()
            if box["label"] in bright or box["label"] == "Pneumothorax":
                assert (middle > np.median(pixels)) == (box["label"] in bright), box["label"]
                seen += 1
    assert seen > 20


def test_synthetic_tables_counted_by_plain_csv(synthetic: Store) -> None:
    votes = plain_votes(synthetic)
    items = items_of(synthetic)
    test = set(items.filter(pl.col("official_split") == "test")["item"])
    for rule, enough in (("majority", 2), ("all", 3)):
        expected = Counter(
            KEYS[label]
            for image, of in votes.items()
            for label, count in of.items()
            if count >= (1 if image in test else enough)
        )
        answers = items_of(synthetic, readers=rule)["answer.findings"].drop_nulls().to_list()
        assert Counter(key for answer in answers for key in answer) == expected
    listed = sorted(media[0]["path"] for media in items["media"].to_list())
    assert listed == sorted([*synthetic.walk("train"), *synthetic.walk("test")])
    counts = vindr_cxr.statistics(synthetic, Options())
    assert (counts["films_train"], counts["films_test"], counts["films_refused"]) == (39, 9, 0)
    assert counts["boxes_whose_reader_does_not_state_their_label"] == 0
    assert counts["films_without_an_agreed_label"] == 2
    assert counts["lesions_drawn_twice_by_one_reader"] > 0
    assert counts["lesions_of_1_readers"] > 0


def test_synthesize_follows_from_its_seed_and_its_checksums_agree(tmp_path: Path) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        vindr_cxr.synthesize(tmp_path / name, seed, 6)
    sums = {name: (tmp_path / name / "SHA256SUMS.txt").read_text() for name in "abc"}
    assert sums["a"] == sums["b"] != sums["c"]
    for line in sums["a"].splitlines():
        digest, path = line.split(" ", 1)
        assert hashlib.sha256((tmp_path / "a" / path).read_bytes()).hexdigest() == digest


def test_synthetic_films_have_the_tags_of_the_publishers_list_alone(synthetic: Store) -> None:
    from pydicom import dcmread

    for path in itertools.islice(synthetic.walk("train"), 6):
        data_set = dcmread(io.BytesIO(synthetic.read(path)))
        assert {element.keyword for element in data_set} <= set(KEPT_TAGS)
        assert "SOPClassUID" not in data_set
