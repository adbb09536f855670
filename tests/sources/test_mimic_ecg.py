"""MIMIC-IV-ECG: its tables into items, its ranges, and its synthetic tree."""

from __future__ import annotations

import csv
import hashlib
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from benchmarks.scan import write_tables
from qoq_data.clinical.statements import normalise
from qoq_data.corpus.items import scan_items
from qoq_data.errors import LayoutError, TableError
from qoq_data.formats.storage import Store
from qoq_data.formats.wfdb import decode
from qoq_data.formats.wfdb_header import parse_header
from qoq_data.record import AnswerType
from qoq_data.sources import get_source
from qoq_data.sources._mimic_ecg_tree import LEADS, MEASUREMENT_COLUMNS, kinds
from qoq_data.sources.mimic_ecg import RANGES, SPEC, TABLE, TOLERANCES, Options, scan, statistics, synthesize

MEASURED = {
    "cart_id": "6848296",
    "ecg_time": "2180-07-23 08:44:00",
    "report_0": "Sinus rhythm",
    "report_2": "Normal ECG",
    "bandwidth": "0.005-150 Hz",
    "filtering": "<not specified>",
    "rr_interval": "800",
    "p_onset": "40",
    "p_end": "128",
    "qrs_onset": "190",
    "qrs_end": "280",
    "t_end": "570",
    "p_axis": "50",
    "qrs_axis": "30",
    "t_axis": "40",
}


def write(folder: Path, *rows: dict[str, str], name: str = "record_list.csv") -> Store:
    """A raw folder with one recording a row; a row gives what differs from MEASURED, ``study`` and ``subject`` too."""
    records, measured = ["subject_id,study_id,file_name,ecg_time,path"], [",".join(MEASUREMENT_COLUMNS)]
    for number, row in enumerate(rows):
        subject = row.get("subject", str(10_000_000 + number))
        study = row.get("study", str(40_000_000 + number))
        path = f"files/p{subject[:4]}/p{subject}/s{study}/{study}"
        records.append(f"{subject},{study},{study},2180-07-23 08:44:00,{path}")
        cells = MEASURED | {"subject_id": subject, "study_id": study} | row
        measured.append(",".join(f'"{cells.get(column, "")}"' for column in MEASUREMENT_COLUMNS))
    (folder / name).write_text("\n".join(records) + "\n")
    (folder / "machine_measurements.csv").write_text("\n".join(measured) + "\n")
    return Store(folder)


def items(tree: Store, **options: Any) -> pl.DataFrame:
    return scan_items(get_source("mimic-ecg"), tree, Options(**options))


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mimic")
    synthesize(folder, 5, 24)
    return folder


def test_real_tables_parse(realdata: Path) -> None:
    row = items(Store(realdata / "mimic-iv-ecg")).row(0, named=True)
    assert (row["item"], row["patient"], row["group"], row["official_split"]) == (
        "40689238",
        "10000032",
        "10000032",
        None,
    )
    assert [one["path"] for one in row["media"]] == ["files/p1000/p10000032/s40689238/40689238.hea"]
    assert row["answer.rhythm"] == ["sinus_rhythm"]
    assert row["answer.seven_class"] is None
    assert row["answer.conduction"] is None
    assert row["answer.heart_rate"] == pytest.approx(91.05, abs=0.01)
    assert [row[f"answer.{name}"] for name in list(TOLERANCES)[1:]] == [130.0, 88.0, 348.0, 77.0]


def test_e07_leads_of_the_synthetic_headers_stand_in_the_publishers_order(synthetic: Path) -> None:
    headers = sorted(synthetic.glob("files/*/*/*/*.hea"))
    assert len(headers) > 48
    for path in headers:
        text = path.read_text().splitlines()
        names = [line.split()[-1] for line in text[1:13]]
        assert names == ["I", "II", "III", "aVR", "aVF", "aVL", "V1", "V2", "V3", "V4", "V5", "V6"]
        assert text[1].split()[:4] == [f"{path.stem}.dat", "16", "200.0(0)/mV", "16"]
        assert text[13:] == [f"# <subject_id>: {path.parent.parent.name[1:]}"]
        assert path.with_suffix(".dat").stat().st_size == 120_000


def test_e07_each_synthetic_lead_holds_its_own_signal(synthetic: Path) -> None:
    header = next(iter(sorted(synthetic.glob("files/*/*/*/*.hea"))))
    record = decode(
        parse_header(header.read_bytes()), {header.with_suffix(".dat").name: header.with_suffix(".dat").read_bytes()}
    )
    lead = dict(zip(LEADS, record.samples.astype(int), strict=True))
    assert np.abs(lead["aVF"] - (lead["II"] + lead["III"]) / 2).max() <= 2
    assert np.abs(lead["aVL"] - (lead["I"] - lead["III"]) / 2).max() <= 2
    assert np.abs(lead["aVF"] - lead["aVL"]).max() > 20


def test_e03_synthetic_tree_has_gaps_and_a_lead_of_zeros(synthetic: Path) -> None:
    samples = [np.fromfile(path, "<i2").reshape(-1, 12) for path in sorted(synthetic.glob("files/*/*/*/*.dat"))]
    assert any((one[:, LEADS.index("V3")] == -32768).sum() == 250 for one in samples)
    assert any((one[:, LEADS.index("V6")] == 0).all() for one in samples)


def test_synthetic_tree_is_the_same_each_time_and_its_sums_agree(synthetic: Path, tmp_path: Path) -> None:
    synthesize(tmp_path, 5, 24)
    lines = (synthetic / "SHA256SUMS.txt").read_text().splitlines()
    assert lines == (tmp_path / "SHA256SUMS.txt").read_text().splitlines()
    files = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file())
    assert files == sorted(["SHA256SUMS.txt", *(line.split(" ")[1] for line in lines)])
    for line in lines:
        digest, path = line.split(" ")
        assert hashlib.sha256((tmp_path / path).read_bytes()).hexdigest() == digest


def test_synthetic_statements_are_all_known_and_cover_the_classes() -> None:
    marks = {mark for kind in kinds() for line in kind.lines for mark in TABLE.marks(normalise(line or "normal ecg"))}
    assert "flag.unknown" not in marks
    assert {f"class.asserted.{label}" for label in ("cd", "mi", "sttc", "other", "afib", "hyp")} <= marks
    assert {"verdict.asserted.normal_ecg", "class.hedged.mi", "flag.paced", "flag.unsuitable"} <= marks


def test_synthetic_tree_answers_every_task_and_spans_patients(synthetic: Path) -> None:
    found = items(Store(synthetic))
    assert found["patient"].n_unique() == 24
    assert found.height > 2 * 24
    for task in SPEC.tasks:
        assert found[f"answer.{task.name}"].count() > 10
    assert statistics(Store(synthetic), Options())["unknown statements, all"] == 0


def test_spec_facts() -> None:
    assert (SPEC.identity_group, SPEC.published_items, SPEC.skip_limit, SPEC.rows_per_shard) == (
        "mimic",
        None,
        0.02,
        512,
    )
    assert all(len(set(task.wordings)) >= 4 for task in SPEC.tasks)
    assert {task.name: task.tolerance for task in SPEC.tasks if task.answer_type is AnswerType.NUMBER} == TOLERANCES


def test_t05_impossible_measurements_are_excluded_counted_and_move_no_mean(tmp_path: Path) -> None:
    strange = [{"rr_interval": value} for value in ("10000000", "0", "65535", "29999", "-5")]
    tree = write(tmp_path, {"rr_interval": "1000"}, *strange, {"rr_interval": "500"})
    rates = items(tree)["answer.heart_rate"]
    assert rates.to_list() == [60.0, None, None, None, None, None, 120.0]
    assert rates.mean() == 90.0
    assert statistics(tree, Options())["heart_rate outside its range"] == 5


@pytest.mark.parametrize(
    ("cells", "lost"),
    [
        ({"p_onset": "29999", "p_end": "29999"}, {"pr_interval"}),
        ({"p_end": "29999"}, {"pr_interval"}),
        ({"p_onset": "0"}, {"pr_interval"}),
        ({"qrs_onset": "0"}, {"pr_interval", "qrs_duration", "qt_interval"}),
        ({"qrs_end": "55040"}, {"qrs_duration", "qt_interval"}),
        ({"qrs_end": "150"}, {"qrs_duration"}),
        ({"t_end": "100"}, {"qt_interval"}),
        ({"qrs_axis": "32767"}, {"qrs_axis"}),
        ({"qrs_axis": "-32768"}, {"qrs_axis"}),
        ({"qrs_axis": "175"}, {"qrs_axis"}),
        ({"rr_interval": "", "qrs_axis": ""}, {"heart_rate", "qrs_axis"}),
    ],
)
def test_t05_each_sentinel_takes_only_what_rests_on_it(cells: dict[str, str], lost: set[str], tmp_path: Path) -> None:
    row = items(write(tmp_path, cells)).row(0, named=True)
    assert {name for name in RANGES if row[f"answer.{name}"] is None} == lost


def test_t07_a_cell_that_is_no_number_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"machine_measurements.csv, line 3: .*'rr_interval'"):
        scan(write(tmp_path, {}, {"rr_interval": "fast"}), Options())


def test_t07_ids_are_text(tmp_path: Path) -> None:
    found = items(write(tmp_path, {"study": "00001", "subject": "0010"}, {"study": "1e5"}))
    assert found["item"].to_list() == ["00001", "1e5"]
    assert found["patient"][0] == "0010"
    assert found["label_row"].to_list() == ["study_id=00001", "study_id=1e5"]


def test_t08_a_tree_without_its_list_names_the_file(tmp_path: Path) -> None:
    tree = write(tmp_path, {})
    (tmp_path / "record_list.csv").unlink()
    with pytest.raises(LayoutError, match=r"record_list\.csv"):
        scan(tree, Options())
    write(tmp_path, {}, name="record-list.csv")
    assert items(tree).height == 1
    (tmp_path / "machine_measurements.csv").unlink()
    with pytest.raises(LayoutError, match=r"machine_measurements\.csv"):
        scan(tree, Options())


def test_t08_tables_of_different_releases_are_refused(tmp_path: Path) -> None:
    tree = write(tmp_path, {}, {})
    path = tmp_path / "machine_measurements.csv"
    path.write_text(path.read_text().replace('"10000001"', '"10000009"'))
    with pytest.raises(TableError, match=r"record_list\.csv, line 3: .* another patient"):
        scan(tree, Options())


@pytest.mark.parametrize("name", ["record_list.csv", "machine_measurements.csv"])
def test_a_study_that_stands_twice_is_refused(name: str, tmp_path: Path) -> None:
    tree = write(tmp_path, {}, {})
    lines = (tmp_path / name).read_text().splitlines()
    (tmp_path / name).write_text("\n".join([*lines, lines[1]]) + "\n")
    with pytest.raises(TableError, match=rf"{name}, line 2: .* twice"):
        scan(tree, Options())


def test_a_link_to_another_patients_note_is_refused(tmp_path: Path) -> None:
    tree = write(tmp_path, {})
    path = items(tree)["media"][0][0]["path"].removesuffix(".hea")
    links = tmp_path / "waveform_note_links.csv"
    links.write_text(f"subject_id,waveform_path,note_id,note_seq,charttime\n10000000,{path},x,1,\n")
    assert items(tree).height == 1
    links.write_text(f"subject_id,waveform_path,note_id,note_seq,charttime\n10000009,{path},x,1,\n")
    with pytest.raises(TableError, match=r"waveform_note_links\.csv, line 2: "):
        scan(tree, Options())


@pytest.mark.parametrize(
    ("file", "column"),
    [("record_list.csv", "path"), ("machine_measurements.csv", "report_17"), ("machine_measurements.csv", "qrs_axis")],
)
def test_a_missing_column_is_one_clear_error(file: str, column: str, tmp_path: Path) -> None:
    tree = write(tmp_path, {})
    text = (tmp_path / file).read_text()
    (tmp_path / file).write_text(text.replace(column, "renamed", 1))
    with pytest.raises(TableError, match=rf"{file} lacks the column '{column}'"):
        scan(tree, Options())


def test_a_study_without_measurements_has_no_answers_and_is_counted(tmp_path: Path) -> None:
    tree = write(tmp_path, {}, {})
    path = tmp_path / "machine_measurements.csv"
    path.write_text("\n".join(path.read_text().splitlines()[:2]) + "\n")
    row = items(tree).row(1, named=True)
    assert all(value is None for name, value in row.items() if name.startswith(("answer.", "context.")))
    assert statistics(tree, Options())["recordings without measurements"] == 1


def test_paced_and_unsuitable_recordings_give_no_answers_but_a_paced_rhythm(tmp_path: Path) -> None:
    paced = {"report_0": "Pacemaker rhythm - no further analysis", "report_2": ""}
    unsuitable = {"report_1": "--- Recording unsuitable for analysis - please repeat ---"}
    found = items(write(tmp_path, paced, unsuitable, {}))
    for name in (task.name for task in SPEC.tasks):
        first, second, third = found[f"answer.{name}"].to_list()
        assert (first == ["paced_rhythm"]) if name == "rhythm" else first is None
        assert second is None
        assert third is not None


def test_normal_verdict_beside_an_infarct_is_not_normal(tmp_path: Path) -> None:
    found = items(write(tmp_path, {"report_1": "Inferior infarct, old"}, {}))
    assert found["answer.seven_class"].to_list() == [["mi"], ["normal"]]


def test_hedged_options_reach_the_answers(tmp_path: Path) -> None:
    tree = write(tmp_path, {"report_1": "Possible septal infarct - age undetermined"})
    given = {
        way: items(tree, hedged=way)["answer.seven_class"].to_list()[0] for way in ("no_label", "assert", "ignore")
    }
    assert given == {"no_label": None, "assert": ["mi"], "ignore": ["normal"]}


def test_nothing_of_the_reading_is_in_the_context(synthetic: Path) -> None:
    assert SPEC.context_fields == ("bandwidth", "filtering")
    found = items(Store(synthetic))
    assert set(found["context.filtering"].drop_nulls()) <= {
        "60 Hz notch Baseline filter",
        "50 Hz notch Baseline filter",
        "Baseline filter",
    }
    assert found["context.filtering"].null_count() > 0


def test_unknown_statements_are_listed_only_when_many_patients_have_them(tmp_path: Path) -> None:
    often = [{"report_1": "Strange new finding."} for _ in range(5)]
    rare = [{"report_1": "Seen by John Smith", "subject": "1"}, {"report_1": "seen by john smith", "subject": "1"}]
    tree = write(tmp_path, *often, *rare, {})
    counts = statistics(tree, Options())
    assert counts["unknown statement: strange new finding"] == 5
    assert counts["unknown statements of fewer than 5 patients"] == 2
    assert counts["unknown statements, all"] == 7
    assert not any("smith" in name for name in counts)
    assert items(tree)["answer.rhythm"].count() == 1
    assert items(tree, unknown="ignore")["answer.rhythm"].count() == 8


def test_thousands_of_rows_agree_with_the_table_they_came_from(tmp_path: Path) -> None:
    write_tables(tmp_path, 3_000)
    found = items(Store(tmp_path))
    with (tmp_path / "machine_measurements.csv").open(encoding="utf-8") as file:
        rows = {row["study_id"]: row for row in csv.DictReader(file)}
    assert found.height == len(rows) == 3_000
    for item, rate in found.select("item", "answer.heart_rate").drop_nulls().iter_rows():
        assert rate == pytest.approx(60_000 / int(rows[item]["rr_interval"]))
    assert found["answer.seven_class"].count() > 300


def test_no_waveform_is_looked_for(synthetic: Path, tmp_path: Path) -> None:
    for name in ("record_list.csv", "machine_measurements.csv"):
        shutil.copy(synthetic / name, tmp_path / name)
    assert items(Store(tmp_path)).equals(items(Store(synthetic)))
