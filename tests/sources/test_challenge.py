"""What the three challenge sources share: the table of codes, the rules of its answers, headers, layouts, bad trees."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qoq_data.clinical.seven_class import SEVEN_CLASSES
from qoq_data.errors import LayoutError, RecordError, TableError
from qoq_data.formats.storage import Store
from qoq_data.sources import chapman, cpsc_2018, georgia, mimic_ecg, ptb_xl
from qoq_data.sources._challenge_codes import CODES, Options, answers_to, published_classes
from qoq_data.sources._ptb_xl_tasks import CODES as STATEMENTS
from tests.sources.challenge import (
    CLASSES,
    SINUS,
    answers,
    build,
    counts,
    items_of,
    plain_headers,
    write_record,
)

MODULES = (chapman, georgia, cpsc_2018)
FIRST = {chapman: "JS00001", georgia: "E00001", cpsc_2018: "A0001"}
HOME = {chapman: "WFDBRecords/01/010", georgia: "WFDB_Ga", cpsc_2018: "WFDB_CPSC2018"}

# The corrected map, written out once more and by hand: the test's own copy, by abbreviation or, without one, by code.
CORRECTED = {
    "normal": "NSR",
    "cd": "IAVB RBBB LAnFB IRBBB CRBBB NSIVCB LBBB BBB LPR CLBBB AVB ILBBB LPFB WPW CHB IIAVB AVD MoI SPRI VPEx SAB "
    "IIAVBII CIAHB DIB 164903001 28189009",
    "mi": "MI OldMI AnMI AMI",
    "sttc": "TAb TInv LQT STC NSSTTA STD MIs STIAb LIs IIs STE AnMIs CMI SQT AMIs HTV ISTD",
    "other": "LAD PAC QAb LQRSV PR RAD PVC VPB PRWP SVPB abQRS VEB SVT CVCL/CCVCL ATach ARH TPW CCR ICA AVJR PWC UAb "
    "PVT FB PPW VBig VEsR VF JE CR BPAC VEsB AP VPP VTrig SARR AJR JTach PSVT AVRT VPVC AED AAR AVNRT CD AIVR JPC "
    "VTach RAb WAP VFL SAAWR AB BRU FQRS IR SND BTS SVB 251147008 251148003 251242005 423863005 713423005",
    "afib": "AFL AF AFAFL PAF RAF CAF",
    "hyp": "LVHV LVH LAE RVH RAH VH LAA AH LAH RAHV RAAb LVS",
    "": "SB STach SA Brady ERe ALR HVD TIA HF CHD 251143007 78069008",
}


@pytest.fixture(params=MODULES, ids=lambda module: module.SPEC.name)
def module(request: pytest.FixtureRequest) -> ModuleType:
    found: ModuleType = request.param
    return found


def home(module: ModuleType, tree: Path) -> Path:
    return tree / HOME[module]


# The table ------------------------------------------------------------------------------------------------------------


def test_each_code_has_its_class_or_is_knowingly_left_out() -> None:
    expected = {name: class_name for class_name, names in CORRECTED.items() for name in names.split()}
    assert {row["abbreviation"] or code: row["seven_class"] for code, row in CODES.items()} == expected
    assert len(CODES) == 143
    for code, row in CODES.items():
        published = {name for column in row if column.startswith("published_") for name in row[column].split("+")}
        differs = published - {"", row["seven_class"]} or row["lost_by_case"] or published == {""}
        if differs or not row["seven_class"] or code == "426783006":
            assert len(row["why"]) > 20, code
        assert published <= {*CLASSES, "none", ""}
        assert row["rhythm"] in ("", "asked", "unasked")
        assert row["source"]


def test_every_code_of_the_real_headers_and_tables_is_known(realdata: Path) -> None:
    found = set()
    for folder in ("cinc2021", "cinc2021-wfdb-style-headers"):
        found |= {code for header in plain_headers(realdata / folder).values() for code in header.codes}
    assert len(found) == 38
    tables = realdata / "label-definitions"
    for path, column in (
        ("cinc2021-evaluation/dx_mapping_scored.csv", "SNOMEDCTCode"),
        ("cinc2021-evaluation/dx_mapping_unscored.csv", "SNOMEDCTCode"),
        ("chapman-ecg-arrhythmia/ConditionNames_SNOMED-CT.csv", "Snomed_CT"),
    ):
        with (tables / path).open(encoding="utf-8-sig", newline="") as file:
            found |= {row[column] for row in csv.DictReader(file)}
    assert len(found) == 137
    assert found <= CODES.keys()
    with (tables / "cinc2021-evaluation/dx_mapping_scored.csv").open(newline="") as file:
        scored = {row["SNOMEDCTCode"]: row["Abbreviation"] for row in csv.DictReader(file)}
    assert {code: row["abbreviation"] for code, row in CODES.items() if row["scored"]} == scored
    asked = {code for code, row in CODES.items() if row["rhythm"] == "asked"}
    assert asked == set(chapman.RECORDS.rhythms) < scored.keys()


def test_pairs_that_the_challenge_scores_as_one_have_one_class() -> None:
    for one, other in (
        ("713427006", "59118001"),
        ("284470004", "63593006"),
        ("427172004", "17338001"),
        ("733534002", "164909002"),
    ):
        assert CODES[one]["seven_class"] == CODES[other]["seven_class"] != ""


def test_the_other_ecg_sources_say_the_same() -> None:
    for code, statement in {
        "426177001": "SBRAD", "427084000": "STACH", "427393009": "SARRH", "164889003": "AFIB", "164890007": "AFLT",
        "59931005": "INVT", "67198005": "PSVT", "426761007": "SVTAC", "164917005": "QWAVE", "111975006": "LNGQT",
        "713427006": "CRBBB", "251180001": "TRIGU", "11157007": "BIGU", "427172004": "PVC", "284470004": "PAC",
        "164947007": "LPR", "74390002": "WPW", "10370003": "PACE", "164951009": "ABQRS", "251146004": "LVOLT",
    }.items():  # fmt: skip
        assert CODES[code]["seven_class"] == STATEMENTS[statement]["seven_class"], code
    for name in ("ptb-xl", "mimic-ecg"):
        spec = {"ptb-xl": ptb_xl, "mimic-ecg": mimic_ecg}[name].SPEC
        assert chapman.SPEC.task("seven_class").choices == spec.task("seven_class").choices


def test_the_ten_codes_of_ningbo_that_no_published_map_holds_are_decided_by_meaning() -> None:
    ten = {
        "365413008": "other", "61721007": "other", "106068003": "other", "251223006": "other", "733534002": "cd",
        "251205003": "other", "5609005": "other", "251187003": "other", "233892002": "other", "426183003": "cd",
    }  # fmt: skip
    maps = ("published_ptb_xl", "published_georgia", "published_cpsc", "published_chapman")
    in_no_map = {code for code, row in CODES.items() if not any(row[one] for one in maps)}
    assert ten.keys() <= in_no_map
    assert {code: CODES[code]["seven_class"] for code in ten} == ten


# What codes answer ----------------------------------------------------------------------------------------------------


@given(st.frozensets(st.sampled_from([*SINUS, "999999999"]) | st.sampled_from(list(CODES)), max_size=4))
def test_answers_follow_their_rules_whatever_the_codes(codes: frozenset[str]) -> None:
    rhythms = chapman.RECORDS.rhythms
    seven, rhythm = answers_to(codes, "chapman", rhythms, Options())
    classes = {CODES[code]["seven_class"] for code in codes if code in CODES} - {"", "normal"}
    assert set(seven or ()) - {"normal"} == classes
    assert seven == [name for name in SEVEN_CLASSES if name in (seven or ())] or seven is None
    assert ("normal" in (seven or ())) == (codes == {"426783006"})
    if rhythm is not None:
        assert codes <= CODES.keys()
        assert [code for code in codes if CODES[code]["rhythm"]] == [
            code for code in codes if CODES[code]["abbreviation"] == rhythm[0]
        ]
    strict = answers_to(codes, "chapman", rhythms, Options(unknown_code="no_label"))
    assert strict == ((seven, rhythm) if codes <= CODES.keys() else (None, None))


def test_an_unknown_code_takes_normal_and_the_rhythm_away_and_nothing_else(module: ModuleType, tmp_path: Path) -> None:
    name = FIRST[module][:-1]
    write_record(home(module, tmp_path), f"{name}1", "426783006,999999999")
    write_record(home(module, tmp_path), f"{name}2", "164889003,999999999,59118001")
    write_record(home(module, tmp_path), f"{name}3", "999999999")
    write_record(home(module, tmp_path), f"{name}4", "426783006,what is this")
    for number in range(5, 9):
        write_record(home(module, tmp_path), f"{name}{number}", "426783006,999999999")
    found = answers(module, tmp_path)
    assert list(found.values()) == [None, ["cd", "afib"], *[None] * 6]
    assert set(answers(module, tmp_path, "rhythm").values()) == {None}
    assert set(answers(module, tmp_path, unknown_code="no_label").values()) == {None}
    said = counts(module, tmp_path)
    assert said["with_unknown_code"] == 8
    assert said["unknown_codes"] == 2
    assert said["unknown_code 999999999"] == 7
    assert "what is this" not in str(said)
    assert "what is this" not in items_of(module, tmp_path).write_ndjson()


def test_a_rhythm_is_asked_where_one_code_names_it(module: ModuleType, tmp_path: Path) -> None:
    name = FIRST[module][:-1]
    said = ("426783006", "164889003,59118001", "426783006,164889003", "59118001", "713422000", "426783006,713422000")
    for number, codes in enumerate(said, 1):
        write_record(home(module, tmp_path), f"{name}{number}", codes)
    assert list(answers(module, tmp_path, "rhythm").values()) == [["NSR"], ["AF"], None, None, None, None]
    assert counts(module, tmp_path)["with_several_rhythm_codes"] == 2
    texts = [choice.text for choice in module.SPEC.task("rhythm").choices]
    assert texts[0] == "Sinus rhythm"
    assert "Atrial fibrillation" in texts


def test_sinus_rates_are_neither_normal_nor_a_class_but_a_rhythm(tmp_path: Path) -> None:
    for number, code in enumerate(SINUS, 1):
        write_record(home(georgia, tmp_path), f"E0000{number}", code)
    assert list(answers(georgia, tmp_path).values()) == [["normal"], None, None, None]
    assert [one for one in answers(georgia, tmp_path, "rhythm").values() if one] == [[key] for key in SINUS.values()]
    assert set(map(str, answers(georgia, tmp_path, seven_class="published").values())) == {"['normal']"}


def test_published_maps_as_the_published_code_looks_them_up() -> None:
    assert published_classes("164889003", "cpsc") == ["cd", "afib"]
    assert published_classes("164889003", "georgia") == []
    assert published_classes("164889003", "ptb_xl") == ["afib"]
    assert published_classes("164909002", "cpsc") == []
    lost = [code for code, row in CODES.items() if "georgia" in row["lost_by_case"]]
    assert len(lost) == 18
    assert [code for code, row in CODES.items() if "chapman" in row["lost_by_case"]] == ["59118001"]


# Headers --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("comments", "seven", "age", "sex"),
    [
        (["Age: 74", "Sex: Male", "Dx: 59118001"], ["cd"], "74 years", "male"),
        ([" Age: 74", " Sex: Female", " Dx: 59118001, 164889003 "], ["cd", "afib"], "74 years", "female"),
        (["age:1", "SEX:F", "dx :59118001,59118001"], ["cd"], "1 year", "female"),
        (["Age: 92", "Sex: M", "Dx: 59118001"], ["cd"], "over 89 years", "male"),
        (["Age: -1", "Sex: Unknown", "Dx: 59118001"], ["cd"], None, None),
        (["Age: NaN", "Sex: NaN", "Dx: 59118001"], ["cd"], None, None),
        (["Age: 740", "Sex: 1", "Dx: 59118001,"], ["cd"], None, None),
        (["Age: 7", "Age: 8", "Sex: Male", "Sex: Female", "Dx: 59118001", "Dx: 164889003"], ["cd", "afib"], None, None),
        (["Age: 62.5", "Sex: Male", "Dx: Unknown"], None, "62 years", "male"),
    ],
)
def test_comments_are_read_in_any_spacing_and_case(
    tmp_path: Path, comments: list[str], seven: list[str] | None, age: str | None, sex: str | None
) -> None:
    write_record(home(cpsc_2018, tmp_path), "A0001", comments=comments)
    row = items_of(cpsc_2018, tmp_path).row(0, named=True)
    assert (row["answer.seven_class"], row["context.age"], row["context.sex"]) == (seven, age, sex)


def test_ages_that_are_none_are_counted_apart_from_blank_ones(tmp_path: Path) -> None:
    for number, age in enumerate(("74", "-1", "NaN", "92", "old", ""), 1):
        write_record(home(cpsc_2018, tmp_path), f"A000{number}", comments=[f"Age: {age}", "Sex: Male", "Dx: 59118001"])
    said = counts(cpsc_2018, tmp_path)
    assert (said["without_age"], said["with_an_age_that_is_none"], said["over_89_years"]) == (4, 2, 1)


def test_s03_nothing_else_of_a_header_reaches_the_items(module: ModuleType, tmp_path: Path) -> None:
    said = ["Age: 74", "Sex: Male", "Dx: 59118001", "Rx: aspirin", "Hx: stroke", "Sx: chest pain", "Name: Somebody"]
    write_record(home(module, tmp_path), FIRST[module], comments=said, date_text="05-May-2020 14:50:55")
    items = items_of(module, tmp_path)
    assert not {"aspirin", "stroke", "chest", "somebody", "2020", "59118001"} & set(
        items.write_ndjson().lower().replace('"', " ").split()
    )
    shown = {column for column in items.columns if column.startswith("context.")}
    assert shown == {"context.age", "context.sex"}


@pytest.mark.parametrize("date", ["05-May-2020 09:49:17", "2014-05-08 05:05:15", "2006", "12:04:00 22/09/2182", ""])
def test_e01_a_date_in_any_order_costs_no_record(module: ModuleType, date: str, tmp_path: Path) -> None:
    write_record(home(module, tmp_path / "raw"), FIRST[module], date_text=date, names_extension=True)
    built = build(module, tmp_path / "raw", tmp_path / "out")
    assert built.answers("seven_class") == {FIRST[module]: ["Normal ECG"]}


def test_e03_the_code_for_missing_in_a_mat_file_is_a_gap(module: ModuleType, tmp_path: Path) -> None:
    samples = np.ones((12, 500), np.int16)
    samples[8, 10:13] = -32768
    write_record(home(module, tmp_path / "raw"), FIRST[module], samples=samples)
    signal = build(module, tmp_path / "raw", tmp_path / "out").signal(FIRST[module])
    assert np.argwhere(np.isnan(signal)).tolist() == [[8, 10], [8, 11], [8, 12]]


def test_e09_a_record_that_nothing_is_known_of_is_counted_and_gets_no_class(module: ModuleType, tmp_path: Path) -> None:
    name = FIRST[module][:-1]
    for number, codes in enumerate(("59118001", "84114007", "Unknown"), 1):
        write_record(home(module, tmp_path / "raw"), f"{name}{number}", codes)
    built = build(module, tmp_path / "raw", tmp_path / "out")
    assert built.answers("seven_class") == {f"{name}1": ["Conduction disturbance"]}
    assert built.ledger == {f"{name}2": "no_label", f"{name}3": "no_label"}
    assert built.manifest.sources[0].skipped == {"no_label": 2}
    said = counts(module, tmp_path / "raw")
    assert (said["records"], said["without_code"], said["without_seven_class"]) == (3, 1, 2)


# Trees that are not right ---------------------------------------------------------------------------------------------


def test_headers_and_samples_that_cannot_be_right_are_ledger_lines(module: ModuleType, tmp_path: Path) -> None:
    name, folder = FIRST[module][:-1], home(module, tmp_path / "raw")
    paths = [write_record(folder, f"{name}{number}") for number in range(1, 9)]
    paths[1].write_bytes(paths[1].read_bytes().replace(b"\n", b" ", 1))
    paths[2].write_bytes(b"<!DOCTYPE html><html><body>Sign in</body></html>\n")
    paths[3].write_bytes(b"")
    paths[4].unlink()
    paths[5].with_suffix(".mat").unlink()
    paths[6].with_suffix(".mat").write_bytes(paths[6].with_suffix(".mat").read_bytes()[:-2])
    paths[7].write_bytes(paths[0].read_bytes())
    built = build(module, tmp_path / "raw", tmp_path / "out")
    assert set(built.answers("seven_class")) == {f"{name}1"}
    assert built.ledger == {
        f"{name}2": "header_mismatch",
        f"{name}3": "header_invalid",
        f"{name}4": "header_invalid",
        f"{name}5": "file_missing",
        f"{name}6": "file_missing",
        f"{name}7": "file_truncated",
        f"{name}8": "header_mismatch",
    }
    assert counts(module, tmp_path / "raw")["records_that_cannot_be_read"] == 5


def test_a_renamed_label_line_is_one_clear_error_and_no_empty_corpus(module: ModuleType, tmp_path: Path) -> None:
    name = FIRST[module][:-1]
    for number in (1, 2):
        write_record(home(module, tmp_path), f"{name}{number}", comments=["Age: 74", "Diagnosis: 59118001"])
    with pytest.raises(TableError, match=rf"none of 2 headers has a line '#Dx: …', .*{name}1\.hea first"):
        items_of(module, tmp_path)
    write_record(home(module, tmp_path), f"{name}3")
    assert counts(module, tmp_path)["without_dx_line"] == 2


def test_a_record_in_two_folders_is_one_clear_error(module: ModuleType, tmp_path: Path) -> None:
    write_record(home(module, tmp_path), FIRST[module])
    write_record(home(module, tmp_path) / "again", FIRST[module])
    with pytest.raises(TableError, match=f"the item {FIRST[module]} stands more than once"):
        items_of(module, tmp_path)


def test_an_empty_folder_a_strange_one_and_none_are_clear_errors(module: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(
        LayoutError, match=f"none of {HOME[module].split('/', maxsplit=1)[0]}/, .* is in the raw folder"
    ):
        items_of(module, tmp_path)
    home(module, tmp_path).mkdir(parents=True)
    (home(module, tmp_path) / "RECORDS").touch()
    with pytest.raises(LayoutError, match="holds no header like"):
        items_of(module, tmp_path)
    with pytest.raises(LayoutError):
        module.detect_version(Store(tmp_path / "nowhere"))


def test_files_of_other_names_are_counted_and_not_read(module: ModuleType, tmp_path: Path) -> None:
    path = write_record(home(module, tmp_path), FIRST[module])
    for name in ("RECORDS", "index.html", f"._{path.name}", "HR00001.hea", f"{path.stem}.hea.txt"):
        (path.parent / name).touch()
    assert items_of(module, tmp_path).height == 1
    assert counts(module, tmp_path)["files_of_unknown_name"] == 5


def test_an_unreadable_folder_is_told(module: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_record(home(module, tmp_path), FIRST[module])

    def refuse(path: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("qoq_data.formats.storage.os.scandir", refuse)
    with pytest.raises(RecordError, match="permission denied"):
        items_of(module, tmp_path)


# Synthetic trees ------------------------------------------------------------------------------------------------------


def test_synthetic_records_hold_every_class_and_their_oddities(module: ModuleType, tmp_path: Path) -> None:
    module.synthesize(tmp_path, 5, 60)
    items = items_of(module, tmp_path)
    assert items.height == 60
    found = {name for labels in items["answer.seven_class"].drop_nulls() for name in labels}
    assert found == ({*CLASSES} - {"mi", "hyp"} if module is cpsc_2018 else {*CLASSES})
    assert any(len(labels) == 2 for labels in items["answer.seven_class"].drop_nulls())
    said = counts(module, tmp_path)
    assert said["with_unknown_code"] == 1
    assert said["records_that_cannot_be_read"] == (module is chapman)
    assert (said["of_another_length_than_10_s"] > 0) == (module is not chapman)
    assert said["without_age"] > 0


def test_synthetic_records_are_read_by_other_readers_as_they_were_drawn(tmp_path: Path) -> None:
    wfdb = pytest.importorskip("wfdb")
    loadmat = pytest.importorskip("scipy.io").loadmat
    chapman.synthesize(tmp_path, 5, 3)
    for path in sorted(tmp_path.rglob("*.hea")):
        record = wfdb.rdrecord(str(path.with_suffix("")))
        matrix = loadmat(path.with_suffix(".mat"))["val"]
        assert record.sig_name == ["I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6"]
        assert (record.fs, matrix.shape, matrix.dtype) == (500, (12, 5000), np.int16)
        assert np.abs(record.p_signal.T * 1000 - matrix).max() < 1e-6
        assert 0.3 < np.abs(record.p_signal).max() < 6


def test_a_tree_of_the_physionet_folders_is_the_same_items(module: ModuleType, tmp_path: Path) -> None:
    module.synthesize(tmp_path / "flat", 5, 20)
    to = {chapman: "ningbo", georgia: "georgia", cpsc_2018: "cpsc_2018"}[module]
    for path in (tmp_path / "flat").rglob("*"):
        if path.suffix in (".hea", ".mat"):
            group = tmp_path / "grouped/training" / to / f"g{1 + int(path.stem[-1]) % 3}"
            group.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, group)
            (group / "RECORDS").touch()
    one, two = (items_of(module, tmp_path / name).drop("media", "label_file") for name in ("flat", "grouped"))
    assert one.equals(two)
    assert module.detect_version(Store(tmp_path / "grouped")) == "challenge-2021"
    shutil.copytree(tmp_path / "flat" / HOME[module].split("/")[0], tmp_path / "grouped" / HOME[module].split("/")[0])
    with pytest.raises(LayoutError, match="the same records in two layouts"):
        items_of(module, tmp_path / "grouped")
