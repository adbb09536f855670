"""PTB-XL: real rows against plain Python, defects of the published conversions, bad tables, the synthetic tree."""

from __future__ import annotations

import ast
import csv
import hashlib
import io
import random
from collections import Counter
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qoq_data.clinical.seven_class import SEVEN_CLASSES
from qoq_data.corpus.items import scan_items
from qoq_data.errors import LayoutError, TableError
from qoq_data.formats.storage import Store
from qoq_data.sources import ptb_xl, source_of
from qoq_data.sources._ptb_xl_tasks import AXES, CODES, SUPERCLASSES, data_rows, parse_codes
from qoq_data.sources._ptb_xl_tree import COLUMNS
from qoq_data.sources.ptb_xl import SPEC, Options, detect_version, scan, statistics

# The seven classes of the corrected map, written out once more and by hand: the test's own copy.
CORRECTED = {
    "normal": "NORM",
    "cd": "1AVB 2AVB 3AVB CLBBB CRBBB ILBBB IRBBB IVCD LAFB LPFB LPR WPW",
    "mi": "AMI ALMI ASMI ILMI IMI INJAL INJAS INJIL INJIN INJLA IPLMI IPMI LMI PMI",
    "sttc": "ANEUR DIG EL INVT ISC_ ISCAL ISCAN ISCAS ISCIL ISCIN ISCLA LNGQT LOWT NDT NST_ NT_ STD_ STE_ TAB_",
    "other": "ABQRS BIGU HVOLT LVOLT PACE PAC PRC(S) PSVT PVC QWAVE SVARR SVTAC TRIGU",
    "afib": "AFIB AFLT",
    "hyp": "LAO/LAE LVH RVH RAO/RAE SEHYP VCLVH",
}
CLASS_OF = {code: name for name, codes in CORRECTED.items() for code in codes.split()}
SINUS = {"SR", "SARRH", "SBRAD", "STACH"}
PUBLISHED_OF = {code: row["seven_class_published"] for code, row in CODES.items()}


@pytest.fixture(scope="module")
def real(realdata: Path) -> Store:
    return Store(realdata / "ptb-xl")


@pytest.fixture(scope="module")
def real_rows(real: Store) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(real.read("ptbxl_database.csv").decode())))


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ptb-xl")
    ptb_xl.synthesize(folder, 5, 24)
    return folder


def row(ecg_id: int = 1, **cells: str) -> dict[str, str]:
    """A row as published, with some of its cells changed."""
    name = f"{ecg_id:05d}"
    usual = {
        "ecg_id": str(ecg_id),
        "patient_id": "15709.0",
        "age": "56.0",
        "sex": "1",
        "device": "CS-12   E",
        "report": "sinusrhythmus",
        "scp_codes": "{'NORM': 100.0, 'SR': 0.0}",
        "strat_fold": "3",
        "filename_lr": f"records100/00000/{name}_lr",
        "filename_hr": f"records500/00000/{name}_hr",
    }
    return usual | cells


def tree_of(folder: Path, release: Path, *rows: dict[str, str], encoding: str = "utf-8") -> Store:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    (folder / "ptbxl_database.csv").write_bytes(text.getvalue().encode(encoding))
    (folder / "scp_statements.csv").write_bytes((release / "scp_statements.csv").read_bytes())
    return Store(folder)


def items_of(tree: Store, **keys: object) -> pl.DataFrame:
    return scan(tree, Options.model_validate(keys)).collect()


def counts(items: pl.DataFrame, task: str) -> Counter[str]:
    return Counter(label for labels in items[f"answer.{task}"].to_list() for label in labels or [])


# The real rows ------------------------------------------------------------------------------------------------------


def test_superclass_counts_are_those_of_the_official_aggregation(real: Store, real_rows: list[dict[str, str]]) -> None:
    statements = csv.DictReader(io.StringIO(real.read("scp_statements.csv").decode()))
    class_of = {one[""]: one["diagnostic_class"] for one in statements if one["diagnostic"] == "1.0"}
    expected: Counter[str] = Counter()
    without = 0
    for one in real_rows:
        classes = {class_of[code] for code in ast.literal_eval(one["scp_codes"]) if code in class_of}
        expected.update(classes)
        without += not classes
    items = items_of(real)
    assert counts(items, "superclass") == expected
    assert set(expected) == {choice.key for choice in SUPERCLASSES}
    assert items["answer.superclass"].null_count() == without == 12


def test_seven_class_answers_are_those_of_a_plain_computation(real: Store, real_rows: list[dict[str, str]]) -> None:
    expected = {}
    for one in real_rows:
        classes = {CLASS_OF[code] for code in ast.literal_eval(one["scp_codes"]) if code in CLASS_OF}
        expected[f"{int(one['ecg_id']):05d}"] = classes - {"normal"} or classes or None
    items = items_of(real)
    found = {item: set(labels) for item, labels in items.select("item", "answer.seven_class").iter_rows()}
    assert found == expected
    assert counts(items, "seven_class")["normal"] == 271


def test_rhythm_form_and_axis_are_those_of_a_plain_computation(real: Store, real_rows: list[dict[str, str]]) -> None:
    rhythm, form, axis = Counter(), Counter(), Counter()  # type: Counter[str], Counter[str], Counter[str]
    for one in real_rows:
        codes = list(ast.literal_eval(one["scp_codes"]))
        rhythms = [code for code in codes if CODES[code]["rhythm"]]
        rhythm.update(rhythms if len(rhythms) == 1 else [])
        form.update(code for code in codes if CODES[code]["form"])
        axis.update([one["heart_axis"]] if one["heart_axis"] else [])
    items = items_of(real)
    assert counts(items, "rhythm") == rhythm
    assert counts(items, "form") == form
    assert counts(items, "axis") == axis == {"LAD": 44, "MID": 17, "ALAD": 14, "RAD": 8, "AXL": 3, "AXR": 2, "ARAD": 1}


def test_folds_patients_media_and_context_of_the_real_rows(real: Store, real_rows: list[dict[str, str]]) -> None:
    items = items_of(real)
    folds = Counter({"9": "validation", "10": "test"}.get(one["strat_fold"], "train") for one in real_rows)
    assert Counter(items["official_split"]) == folds == {"train": 353, "validation": 81, "test": 66}
    assert items["patient"].n_unique() == 466
    assert items["group"].equals(items["patient"].alias("group"))
    assert items["item"].is_sorted()
    first = items.row(0, named=True)
    assert first["item"] == "00001"
    assert first["patient"] == "15709"
    assert first["media"] == [
        {"role": "ecg", "kind": "wfdb", "path": "records500/00000/00001_hr.hea", "part": ""},
    ]
    assert first["context.age"] == "56 years"
    assert first["context.sex"] == "female"
    assert first["context.recording_device"] == "CS-12 E"
    low_rate = items_of(real, sampling_frequency_hz=100)
    assert low_rate["media"][0][0]["path"] == "records100/00000/00001_lr.hea"
    assert low_rate.drop("media").equals(items.drop("media"))


def test_s03_no_report_code_axis_or_note_stands_in_what_may_be_shown(
    real: Store, real_rows: list[dict[str, str]]
) -> None:
    items = items_of(real)
    shown = {column for column in items.columns if column.startswith("context.")}
    assert shown == {f"context.{name}" for name in SPEC.context_fields} == {
        "context.age", "context.sex", "context.recording_device",
    }  # fmt: skip
    everything = items.write_ndjson().lower()
    for one in real_rows:
        for column in ("report", "extra_beats", "pacemaker", "static_noise", "baseline_drift", "recording_date"):
            assert len(one[column].strip()) < 5 or one[column].strip().lower() not in everything
    values = {str(value) for column in shown for value in items[column].drop_nulls()}
    assert not values & {*CODES, *(choice.key for choice in AXES)}


# What goes wrong with the published conversions ---------------------------------------------------------------------


def test_defect_split_by_record_leaks_patients(real: Store) -> None:
    pairs = items_of(real).select("patient", "official_split").rows()
    by_record = [(patient, random.Random(index).random() < 0.8) for index, (patient, _) in enumerate(pairs)]
    assert len(set(by_record)) > len({patient for patient, _ in pairs})
    assert len(set(pairs)) == len({patient for patient, _ in pairs}) == 466


def test_defect_one_class_at_random_and_a_class_for_records_without_any(tmp_path: Path, release: Path) -> None:
    both, none = "{'IMI': 100.0, 'LAFB': 50.0}", "{'SR': 0.0}"
    drawn = {random.Random(seed).choice(["mi", "cd"]) for seed in range(20)}
    assert drawn == {"mi", "cd"}
    items = items_of(tree_of(tmp_path, release, row(1, scp_codes=both), row(2, scp_codes=none)))
    assert items["answer.seven_class"].to_list() == [["cd", "mi"], None]
    assert items["answer.superclass"].to_list() == [["MI", "CD"], None]


def test_defect_repeated_recordings_of_releases_before_1_0_3(real: Store, real_rows: list[dict[str, str]]) -> None:
    repeats = {int(one["ecg_id"]) for one in data_rows("ptb_xl_repeats.csv")}
    assert len(repeats) == 38
    present = repeats & {int(one["ecg_id"]) for one in real_rows}
    same = Counter((one["patient_id"], one["recording_date"]) for one in real_rows)
    assert max(same.values()) == 2
    assert statistics(real, Options())["withdrawn_repeats"] == len(present) == 12
    every = items_of(real, withdrawn_repeats="leave_out")
    assert every.height == 500
    assert every["skip_reason"].drop_nulls().to_list() == ["withdrawn"] * 12
    kept = every.filter(pl.col("skip_reason").is_null())
    assert not {f"{one:05d}" for one in present} & set(kept["item"])
    left = {f"{int(one['ecg_id']):05d}": (one["patient_id"], one["recording_date"]) for one in real_rows}
    assert max(Counter(left[item] for item in kept["item"]).values()) == 1
    assert statistics(real, Options(withdrawn_repeats="leave_out"))["withdrawn_repeats_left_out"] == 12


@pytest.mark.parametrize(
    ("code", "published", "ours"),
    [
        ("INVT", ["mi"], ["sttc"]),
        ("INJIN", None, ["mi"]),
        ("LOWT", ["other"], ["sttc"]),
        ("SVTAC", ["cd"], ["other"]),
        ("PSVT", ["cd"], ["other"]),
        ("SVARR", ["cd"], ["other"]),
        ("LPR", ["cd"], ["cd"]),
        ("SR", ["normal"], None),
        ("STACH", ["normal"], None),
    ],
)
def test_defect_codes_in_the_wrong_class(
    tmp_path: Path, release: Path, code: str, published: list[str] | None, ours: list[str] | None
) -> None:
    tree = tree_of(tmp_path, release, row(scp_codes=repr({code: 0.0})))
    assert items_of(tree, seven_class="published")["answer.seven_class"].to_list() == [published]
    assert items_of(tree)["answer.seven_class"].to_list() == [ours]


def test_defect_sinus_rhythm_counted_as_normal_beside_other_classes(real: Store) -> None:
    published = items_of(real, seven_class="published")["answer.seven_class"].drop_nulls().to_list()
    ours = items_of(real)["answer.seven_class"].drop_nulls().to_list()
    assert sum("normal" in labels and len(labels) > 1 for labels in published) == 184
    assert sum("normal" in labels and len(labels) > 1 for labels in ours) == 0


def test_defect_sttc_explained_as_sinus_rates(tmp_path: Path, release: Path) -> None:
    assert SEVEN_CLASSES["sttc"] == "ST-segment or T-wave change"
    rows = [row(number, scp_codes=repr({code: 0.0})) for number, code in enumerate(("STACH", "SBRAD", "NST_"), 1)]
    assert items_of(tree_of(tmp_path, release, *rows))["answer.seven_class"].to_list() == [None, None, ["sttc"]]


def test_defect_axis_spelt_with_a_tab_never_matches(tmp_path: Path, release: Path) -> None:
    published = ["ABQRS", "ARAD", "AXL", "AXR\t", "SAG"]
    assert "AXR" not in published
    tree = tree_of(tmp_path, release, row(1, heart_axis="AXR"), row(2, heart_axis="AXR\t"), row(3, heart_axis=" "))
    assert items_of(tree)["answer.axis"].to_list() == [["AXR"], ["AXR"], None]
    assert items_of(tree)["answer.seven_class"].to_list() == [["normal"]] * 3


def test_e09_rhythm_only_records_keep_their_other_tasks_and_are_counted(tmp_path: Path, release: Path) -> None:
    tree = tree_of(
        tmp_path,
        release,
        row(1, scp_codes="{'AFIB': 0.0}"),
        row(2, scp_codes="{'SR': 0.0, 'AFLT': 0.0, 'IMI': 15.0}"),
        row(3, scp_codes="{'IMI': 15.0}"),
    )
    items = items_of(tree)
    assert items["answer.superclass"].to_list() == [None, ["MI"], ["MI"]]
    assert items["answer.rhythm"].to_list() == [["AFIB"], None, None]
    found = statistics(tree, Options())
    assert found["records_in_table"] == 3
    assert found["without_diagnostic_statement"] == 1
    assert found["with_several_rhythm_statements"] == 1
    assert found["without_rhythm_statement"] == 1


def test_e09_t08_the_version_is_the_one_found(tmp_path: Path, release: Path, real: Store) -> None:
    assert detect_version(Store(release)) == "1.0.3"
    assert detect_version(real) == "1.0.1"  # record 137 was withdrawn in 1.0.2
    assert detect_version(tree_of(tmp_path, release, row(1))) == "1.0.3"
    assert detect_version(tree_of(tmp_path, release, row(3801))) == "1.0.2"
    for records, version in ((21_837, "1.0.1"), (21_801, "1.0.2"), (21_799, "1.0.3")):
        numbers = "\n".join(str(number) for number in range(30_000, 30_000 + records))
        (tmp_path / "ptbxl_database.csv").write_text(f"ecg_id\n{numbers}\n")
        assert detect_version(Store(tmp_path)) == version
    tree = tree_of(tmp_path, release, row(137))
    (tmp_path / "ptbxl_v103_changelog.txt").write_text("x\n")
    with pytest.raises(TableError, match=r"is of release 1\.0\.1, but ptbxl_v103_changelog\.txt belongs to 1\.0\.3"):
        detect_version(tree)


# The map ------------------------------------------------------------------------------------------------------------


def test_each_of_the_71_codes_has_a_class_or_a_reason(real: Store) -> None:
    published = csv.DictReader(io.StringIO(real.read("scp_statements.csv").decode()))
    assert list(CODES) == [one[""] for one in published]
    assert len(CODES) == 71
    for code, one in CODES.items():
        assert one["seven_class"] == CLASS_OF.get(code, "")
        assert one["source"]
        if code not in CLASS_OF or one["seven_class"] != one["seven_class_published"]:
            assert len(one["why"]) > 20, code
    assert {code for code in CODES if code not in CLASS_OF} == SINUS
    assert {one["seven_class_published"] for one in CODES.values()} == {*CORRECTED, ""}


def test_wordings_name_units_and_no_answer() -> None:
    assert [task.name for task in SPEC.tasks if task.default] == ["superclass", "seven_class", "rhythm", "form", "axis"]
    for task in SPEC.tasks:
        assert len(set(task.wordings)) >= 4
        for wording in task.wordings:
            assert not any(choice.text.lower() in wording.lower() for choice in task.choices)
            if task.tolerance is not None:
                assert "milliseconds" in wording or "per minute" in wording
        assert len({choice.text for choice in task.choices}) == len(task.choices)


def test_minimum_likelihood_sets_graded_statements_aside_and_keeps_ungraded_ones(tmp_path: Path, release: Path) -> None:
    tree = tree_of(tmp_path, release, row(scp_codes="{'IMI': 15.0, 'LAFB': 50.0, 'NDT': 0.0, 'SR': 0.0}"))
    assert items_of(tree)["answer.superclass"].to_list() == [["MI", "STTC", "CD"]]
    assert items_of(tree, minimum_likelihood=50)["answer.superclass"].to_list() == [["STTC", "CD"]]


def test_ages_and_blank_cells(tmp_path: Path, release: Path) -> None:
    ages = {"300.0": "over 89 years", "95.0": "over 89 years", "89.0": "89 years", "1.0": "1 year", "": None}
    rows = [row(number, age=age) for number, age in enumerate(ages, 1)]
    items = items_of(tree_of(tmp_path, release, *rows, row(6, patient_id="", sex="0", device=" ")))
    assert items["context.age"].to_list()[:5] == list(ages.values())
    blank = items.row(5, named=True)
    assert (blank["patient"], blank["group"]) == (None, "record:00006")
    assert (blank["context.sex"], blank["context.recording_device"]) == ("male", None)


# Bad tables ---------------------------------------------------------------------------------------------------------

BAD_CELLS = [
    ({"scp_codes": "{'NORM': 100.0"}, "row 3: scp_codes is not"),
    ({"scp_codes": "__import__('os').getpid()"}, "row 3: scp_codes is not"),
    ({"scp_codes": "['NORM']"}, "row 3: scp_codes is not"),
    ({"scp_codes": "{'NORM': '100'}"}, "row 3: scp_codes is not"),
    ({"scp_codes": "{'NORM': True}"}, "row 3: scp_codes is not"),
    ({"scp_codes": "{'NORM': 1e999}"}, "row 3: scp_codes is not"),
    ({"scp_codes": "{'NORM': 100.0}" + " " * 5000}, "row 3: scp_codes has more than 4096 characters"),
    ({"scp_codes": "{'NORMAL': 100.0}"}, "row 3: scp_codes has a code that is not in scp_statements.csv"),
    ({"scp_codes": ""}, "row 3: scp_codes is blank"),
    ({"strat_fold": ""}, "row 3: strat_fold is blank or not 1 to 10"),
    ({"strat_fold": "11"}, "row 3: strat_fold is blank or not 1 to 10"),
    ({"strat_fold": "three"}, "line 3: the cell of column 'strat_fold' is no Int64"),
    ({"patient_id": "15709.5"}, "row 3: patient_id is no whole number"),
    ({"patient_id": "inf"}, "line 3: the cell of column 'patient_id' is no Float64"),
    ({"sex": "2"}, "row 3: sex is neither 0 nor 1"),
    ({"age": "-3"}, "row 3: age is no age"),
    ({"heart_axis": "LEFT"}, "row 3: heart_axis is none of the known values"),
    ({"filename_hr": ""}, "row 3: filename_hr is blank"),
    ({"ecg_id": "1"}, "row 3: the record of this ecg_id was already there"),
    ({"ecg_id": ""}, "row 3: ecg_id is blank"),
]


@pytest.mark.parametrize(("cells", "message"), BAD_CELLS)
def test_t07_a_bad_cell_is_one_error_that_names_file_and_row(
    tmp_path: Path, release: Path, cells: dict[str, str], message: str
) -> None:
    tree = tree_of(tmp_path, release, row(1), row(2) | cells)
    with pytest.raises(TableError) as caught:
        items_of(tree)
    text = str(caught.value)
    assert text.startswith("ptbxl_database.csv, ")
    assert message in text
    assert caught.value.__cause__ is None
    assert not any(len(cell.strip()) > 5 and cell.strip() in text for cell in cells.values())
    assert str(tmp_path) not in text


def test_t07_ids_stay_text_and_a_byte_order_mark_changes_nothing(tmp_path: Path, release: Path) -> None:
    rows = [row(number, age="" if number < 200 else "70.0") for number in range(1, 301) if number != 137]
    plain = items_of(tree_of(tmp_path, release, *rows))
    assert plain["item"].to_list()[:2] == ["00001", "00002"]
    assert plain.height == 299
    assert items_of(tree_of(tmp_path, release, *rows, encoding="utf-8-sig")).equals(plain)


def test_t07_bytes_that_are_not_utf8_are_an_error(tmp_path: Path, release: Path) -> None:
    tree = tree_of(tmp_path, release, row(1), row(2, report="kÄltewelle"), encoding="latin-1")
    with pytest.raises(TableError, match="not UTF-8"):
        items_of(tree)


@pytest.mark.parametrize("column", ["scp_codes", "strat_fold", "patient_id", "filename_hr", "filename_lr"])
def test_a_missing_or_renamed_column_is_an_error(tmp_path: Path, release: Path, column: str) -> None:
    tree = tree_of(tmp_path, release, row(1))
    table = tmp_path / "ptbxl_database.csv"
    table.write_text(table.read_text().replace(column, f"{column}_2", 1))
    with pytest.raises(TableError, match=f"lacks the column '{column}'"):
        items_of(tree)


def test_another_source_s_folder_and_a_missing_table_are_errors(tmp_path: Path, release: Path, realdata: Path) -> None:
    with pytest.raises(LayoutError, match=r"ptbxl_database\.csv is not in the raw folder"):
        items_of(Store(realdata / "mimic-iv-ecg"))
    tree = tree_of(tmp_path, release, row(1))
    (tmp_path / "scp_statements.csv").unlink()
    with pytest.raises(LayoutError, match=r"scp_statements\.csv is not in the raw folder"):
        items_of(tree)


@pytest.mark.parametrize(
    ("old", "new"),
    [("\nNORM,", "\nNRM,"), (",1.0,,,MI,", ",1.0,,,INFARCT,"), ("sinus rhythm,,,1.0", "sinus rhythm,,,")],
)
def test_t08_a_statement_table_of_another_kind_is_an_error(tmp_path: Path, release: Path, old: str, new: str) -> None:
    tree = tree_of(tmp_path, release, row(1))
    path = tmp_path / "scp_statements.csv"
    changed = path.read_text().replace(old, new, 1)
    assert changed != path.read_text()
    path.write_text(changed)
    with pytest.raises(TableError, match=r"scp_statements\.csv, row \d+: "):
        items_of(tree)


def test_a_class_of_a_statement_that_is_not_diagnostic_gives_no_superclass(tmp_path: Path, release: Path) -> None:
    tree = tree_of(tmp_path, release, row(scp_codes="{'INVT': 0.0}"))
    path = tmp_path / "scp_statements.csv"
    path.write_text(path.read_text().replace("INVT,inverted T-waves,,1.0,,,", "INVT,inverted T-waves,,1.0,,STTC,"))
    assert "INVT,inverted T-waves,,1.0,,STTC," in path.read_text()
    assert items_of(tree)["answer.superclass"].to_list() == [None]


@settings(derandomize=True, deadline=None, max_examples=150)
@given(st.text(alphabet="{}[]()'\":,. -1e9jNORM\\x\n", max_size=60) | st.text(max_size=30))
def test_any_text_is_codes_or_a_table_error(text: str) -> None:
    try:
        graded = parse_codes(text, 2)
    except TableError as error:
        graded, message = {}, str(error)
    else:
        message = ""
    assert len(text) < 8 or text not in message
    assert all(isinstance(code, str) and 0 <= grade <= 100 for code, grade in graded.items())


@pytest.mark.parametrize(
    "text", ["(" * 4000, "-" * 4000 + "1", "{" * 4000, "[" * 2000 + "]" * 2000, "{'\\q': 1if 1 else 2}"]
)
def test_deeply_nested_codes_are_a_table_error(text: str) -> None:
    with pytest.raises(TableError):
        parse_codes(text, 2)


# The synthetic tree -------------------------------------------------------------------------------------------------


def test_synthetic_tree_is_the_same_bytes_each_time_and_its_sums_hold(tmp_path: Path, release: Path) -> None:
    ptb_xl.synthesize(tmp_path, 5, 24)
    files = {path.relative_to(release).as_posix(): path.read_bytes() for path in release.rglob("*") if path.is_file()}
    again = {path.relative_to(tmp_path).as_posix(): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert files == again
    lines = [line.split(" ", 1) for line in files["SHA256SUMS.txt"].decode().splitlines()]
    sums = {path: digest for digest, path in lines}
    assert sums.keys() == files.keys() - {"SHA256SUMS.txt"}
    assert all(hashlib.sha256(files[path]).hexdigest() == digest for path, digest in sums.items())
    other = tmp_path / "other"
    ptb_xl.synthesize(other, 6, 24)
    assert (other / "ptbxl_database.csv").read_bytes() != files["ptbxl_database.csv"]


def test_synthetic_tree_has_the_published_layout(release: Path, real: Store) -> None:
    published = real.read("ptbxl_database.csv").decode().split("\n", 1)[0]
    assert (release / "ptbxl_database.csv").read_text().split("\n", 1)[0] == published
    assert (release / "scp_statements.csv").read_bytes() == real.read("scp_statements.csv")
    for rate, suffix, size in (("records500", "hr", 120_000), ("records100", "lr", 24_000)):
        ours = (release / f"{rate}/00000/00001_{suffix}.hea").read_text().splitlines()
        theirs = real.read(f"{rate}/00000/00001_{suffix}.hea").decode().splitlines()
        assert ours[0] == theirs[0]
        assert [_without_samples(line) for line in ours] == [_without_samples(line) for line in theirs]
        assert (release / f"{rate}/00000/00001_{suffix}.dat").stat().st_size == size
    for expected in SPEC.expected_files:
        assert (release / expected.path).exists() or not expected.required


def _without_samples(line: str) -> list[str]:
    fields = line.split()
    return fields if len(fields) < 9 else fields[:5] + fields[7:]


def test_synthetic_tree_covers_folds_patients_and_quirks(release: Path) -> None:
    source = source_of(ptb_xl)
    items = scan_items(source, Store(release), Options())
    assert items.height == 32
    assert items["patient"].n_unique() == 24
    assert items.group_by("patient").agg(pl.col("official_split").n_unique())["official_split"].max() == 1
    assert set(items["official_split"]) == {"train", "validation", "test"}
    rows = list(csv.DictReader(io.StringIO((release / "ptbxl_database.csv").read_bytes().decode())))
    assert {int(one["strat_fold"]) for one in rows} == set(range(1, 11))
    assert {"300.0", ""} <= {one["age"] for one in rows}
    assert "CS-12   E" in {one["device"] for one in rows}
    assert counts(items, "superclass").keys() == {choice.key for choice in SUPERCLASSES}
    assert counts(items, "seven_class").keys() == set(SEVEN_CLASSES)
    assert counts(items, "rhythm").keys() == {"SR", "AFIB", "AFLT", "STACH", "SBRAD", "PACE"}
    assert {one["item"] for one in items.iter_rows(named=True)} == {f"{int(one['ecg_id']):05d}" for one in rows}


def test_synthetic_records_are_read_back_as_they_were_drawn(release: Path) -> None:
    wfdb = pytest.importorskip("wfdb")
    fast = wfdb.rdrecord(str(release / "records500/00000/00001_hr"))
    slow = wfdb.rdrecord(str(release / "records100/00000/00001_lr"))
    assert fast.sig_name == ["I", "II", "III", "AVR", "AVL", "AVF", "V1", "V2", "V3", "V4", "V5", "V6"]
    assert (fast.fs, slow.fs, fast.sig_len, slow.sig_len) == (500, 100, 5000, 1000)
    assert abs(fast.p_signal[:, 0] + fast.p_signal[:, 2] - fast.p_signal[:, 1]).max() < 0.0021
    assert 0.3 < abs(fast.p_signal).max() < 6
