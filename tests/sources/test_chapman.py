"""Chapman, Shaoxing and Ningbo: real records against plain Python, the published defects, and the two layouts."""

from __future__ import annotations

import csv
import io
import shutil
from pathlib import Path

import pytest

from qoq_data.formats.storage import Store
from qoq_data.sources import chapman
from qoq_data.sources._challenge_codes import CODES
from qoq_data.sources._challenge_tree import ALL_ZERO_LEAD, MERGED_LINES
from tests.sources.challenge import (
    answers,
    bits_of,
    build,
    check_real,
    items_of,
    plain_headers,
    published_bits,
    write_record,
)

NINGBO = "WFDB_Ningbo"


# The real records -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("folder", "records"), [("cinc2021", 45), ("cinc2021-wfdb-style-headers", 3)])
def test_e11_real_records_are_built_verified_and_traced(
    folder: str, records: int, realdata: Path, tmp_path: Path
) -> None:
    tree = realdata / folder
    headers = plain_headers(tree / "WFDB_ChapmanShaoxing", tree / NINGBO)
    assert len(headers) == records
    built = check_real(chapman, tree, headers, tmp_path / "out")
    assert built.manifest.sources[0].version == "challenge-2021"
    assert built.manifest.sources[0].items == records
    if folder == "cinc2021":
        flat = [row["quality"] for row_id, row in built.rows.items() if row_id.startswith("chapman/JS11438/")]
        assert {one["where"] for one in flat[0] if one["code"] in ("flat_lead", "all_zero_lead")} >= {"V1", "V6"}


def test_the_published_option_is_what_was_published(realdata: Path) -> None:
    published = published_bits(realdata, "ChapmanShaoxing")
    found = answers(chapman, realdata / "cinc2021", seven_class="published")
    of_chapman = {name: labels for name, labels in found.items() if name in published}
    assert len(of_chapman) == 9
    assert of_chapman == {name: bits_of(published[name]) for name in of_chapman}


# What goes wrong with the published conversion ------------------------------------------------------------------------


def test_defect_a_plain_look_up_of_ningbos_codes_raises(realdata: Path) -> None:
    published_map = {code: row["name"] for code, row in CODES.items() if row["published_chapman"]}
    assert len(published_map) == 54
    headers = plain_headers(realdata / "cinc2021" / NINGBO)
    raised = set()
    for name, header in headers.items():
        try:
            [published_map[code] for code in header.codes]
        except KeyError:
            raised.add(name)
    assert len(raised) == 15
    ours, rhythms = (answers(chapman, realdata / "cinc2021", task) for task in ("seven_class", "rhythm"))
    assert all(ours[name] or rhythms[name] for name in raised - {"JS24580"})
    assert set(headers["JS24580"].codes) == {"426177001", "427393009"}  # two sinus rhythms at once


def test_defect_letter_case_loses_right_bundle_branch_block(realdata: Path, tmp_path: Path) -> None:
    listed = {"cd": ["Nonspecific BBB"]}
    assert [key for key, names in listed.items() if "nonspecific BBB" in names] == []
    write_record(tmp_path / NINGBO, "JS10647", "59118001")
    assert answers(chapman, tmp_path, seven_class="published") == {"JS10647": None}
    assert answers(chapman, tmp_path) == {"JS10647": ["cd"]}
    real = plain_headers(realdata / "cinc2021")
    blocked = [name for name, header in real.items() if name.startswith("JS") and "59118001" in header.codes]
    assert blocked
    assert all("cd" in (answers(chapman, realdata / "cinc2021")[name] or ()) for name in blocked)


@pytest.mark.parametrize(
    ("code", "published", "ours"),
    [
        ("251146004", ["cd"], ["other"]),
        ("233897008", ["hyp"], ["other"]),
        ("251198002", ["hyp"], ["other"]),
        ("251199005", None, ["other"]),
        ("67751000119106", None, ["hyp"]),
        ("13640000", None, ["other"]),
        ("39732003", ["hyp"], ["other"]),
        ("426761007", ["cd"], ["other"]),
        ("365413008", None, ["other"]),
        ("733534002", None, ["cd"]),
        ("426183003", None, ["cd"]),
        ("233896004", None, ["other"]),
        ("713427006", None, ["cd"]),
    ],
)
def test_defect_codes_in_the_wrong_class_or_in_none(
    tmp_path: Path, code: str, published: list[str] | None, ours: list[str]
) -> None:
    write_record(tmp_path / NINGBO, "JS10647", code)
    assert answers(chapman, tmp_path, seven_class="published") == {"JS10647": published}
    assert answers(chapman, tmp_path) == {"JS10647": ours}


def test_defect_normal_beside_other_classes(realdata: Path) -> None:
    published = answers(chapman, realdata / "cinc2021", seven_class="published").values()
    assert sum(bool(labels) and "normal" in labels and len(labels) > 1 for labels in published if labels) > 3
    ours = answers(chapman, realdata / "cinc2021").values()
    assert {tuple(labels) for labels in ours if labels and "normal" in labels} == {("normal",)}


# Layouts --------------------------------------------------------------------------------------------------------------


def test_both_releases_are_found_and_hold_the_same_items(tmp_path: Path) -> None:
    chapman.synthesize(tmp_path / "own", 5, 30)
    assert chapman.detect_version(Store(tmp_path / "own")) == "1.0.0"
    for path in (tmp_path / "own").rglob("JS*"):
        folder = tmp_path / "challenge" / ("WFDB_ChapmanShaoxing" if int(path.stem[2:]) <= 15 else NINGBO)
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder)
    assert chapman.detect_version(Store(tmp_path / "challenge")) == "challenge-2021"
    own, other = (items_of(chapman, tmp_path / name).drop("media", "label_file") for name in ("own", "challenge"))
    assert own.equals(other)
    shutil.rmtree(tmp_path / "challenge/WFDB_ChapmanShaoxing")
    assert items_of(chapman, tmp_path / "challenge").height == 15


def test_the_record_that_the_challenge_names_s23074_is_one_item(tmp_path: Path) -> None:
    write_record(tmp_path / "own/WFDBRecords/24/240", "JS23074")
    write_record(tmp_path / "challenge" / NINGBO, "S23074")
    mixed = write_record(tmp_path / "mixed" / NINGBO, "S23074")
    mixed.write_bytes(mixed.read_bytes().replace(b"S23074 12", b"JS23074 12"))
    for name in ("own", "challenge", "mixed"):
        items = items_of(chapman, tmp_path / name)
        assert items["item"].to_list() == ["JS23074"]
        assert items["skip_reason"].to_list() == [None]
    built = build(chapman, tmp_path / "challenge", tmp_path / "out")
    assert built.answers("seven_class") == {"JS23074": ["Normal ECG"]}


def test_the_header_whose_first_lines_are_merged_is_a_ledger_line(tmp_path: Path) -> None:
    chapman.synthesize(tmp_path / "raw", 5, 60)
    merged = f"JS{MERGED_LINES + 1:05d}"
    assert len(plain_headers(tmp_path / "raw")[merged].first_line.split()) > 12
    items = items_of(chapman, tmp_path / "raw")
    aside = items.filter(items["skip_reason"].is_not_null())
    assert aside.select("item", "skip_reason").rows() == [(merged, "header_mismatch")]
    assert aside["answer.seven_class"].to_list() == [None]


def test_a_lead_of_zeros_stays_with_its_finding(tmp_path: Path) -> None:
    chapman.synthesize(tmp_path / "raw", 5, ALL_ZERO_LEAD + 1)
    built = build(chapman, tmp_path / "raw", tmp_path / "out")
    item = f"JS{ALL_ZERO_LEAD + 1:05d}"
    assert (built.signal(item)[9] == 0).all()
    row = next(row for row_id, row in built.rows.items() if f"/{item}/" in row_id)
    assert [one["where"] for one in row["quality"] if one["code"] == "all_zero_lead"] == ["V4"]


def test_synthetic_release_has_the_publishers_files(tmp_path: Path) -> None:
    chapman.synthesize(tmp_path, 5, 120)
    assert (tmp_path / "WFDBRecords/01/010/JS00001.hea").is_file()
    assert (tmp_path / "WFDBRecords/01/011/JS00120.mat").is_file()
    assert (tmp_path / "RECORDS").read_text().splitlines() == ["WFDBRecords/01/010/", "WFDBRecords/01/011/"]
    data = (tmp_path / "ConditionNames_SNOMED-CT.csv").read_bytes()
    assert data.startswith(b"\xef\xbb\xbf")
    rows = list(csv.DictReader(io.StringIO(data.decode("utf-8-sig"))))
    assert list(rows[0]) == ["Acronym Name", "Full Name", "Snomed_CT"]
    assert len(rows) == 54
