"""Georgia: its real records against plain Python, and the defects of the published conversion."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from qoq_data.sources import georgia
from qoq_data.sources._challenge_codes import CODES
from tests.sources.challenge import (
    CLASSES,
    answers,
    bits_of,
    build,
    check_real,
    counts,
    plain_headers,
    published_bits,
    write_record,
)


def home(tree: Path) -> Path:
    return tree / "WFDB_Ga"


# The real records -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("folder", "records"), [("cinc2021", 11), ("cinc2021-wfdb-style-headers", 4)])
def test_e11_real_records_are_built_verified_and_traced(
    folder: str, records: int, realdata: Path, tmp_path: Path
) -> None:
    tree = realdata / folder
    headers = plain_headers(home(tree))
    assert len(headers) == records
    built = check_real(georgia, tree, headers, tmp_path / "out")
    assert built.manifest.sources[0].version == "challenge-2021"
    assert built.manifest.sources[0].items == records


def test_e01_real_record_lines_name_the_record_with_its_ending(realdata: Path) -> None:
    headers = plain_headers(home(realdata / "cinc2021"))
    assert all(header.first_line.startswith(f"{name}.mat 12 500 5000 ") for name, header in headers.items())
    assert len({header.first_line.split(maxsplit=4)[4] for header in headers.values()}) > 1
    assert answers(georgia, realdata / "cinc2021").keys() == headers.keys()


@pytest.mark.parametrize("folder", ["cinc2021", "cinc2021-wfdb-style-headers"])
def test_the_published_option_is_what_was_published(folder: str, realdata: Path) -> None:
    published = published_bits(realdata, "Ga")
    found = answers(georgia, realdata / folder, seven_class="published")
    assert found == {name: bits_of(published[name]) for name in found}


# What goes wrong with the published conversion ------------------------------------------------------------------------


def test_defect_letter_case_loses_atrial_fibrillation(realdata: Path, tmp_path: Path) -> None:
    published = published_bits(realdata, "Ga")
    assert len(published) == 10_344
    assert sum(row["afib"] == "1" for row in published.values()) == 0
    names = {"164889003": "atrial fibrillation", "251170000": "blocked premature atrial contraction\u00a0"}
    listed = {"afib": ["Atrial fibrillation"], "other": ["Blocked premature atrial contraction"]}
    for code, name in names.items():
        assert [key for key, of_class in listed.items() if name in of_class] == []
        write_record(home(tmp_path), f"E0{code[-4:]}", code)
    found = answers(georgia, tmp_path)
    assert found == {"E00000": ["other"], "E09003": ["afib"]}
    assert answers(georgia, tmp_path, seven_class="published") == dict.fromkeys(found)
    real = answers(georgia, realdata / "cinc2021")
    assert [name for name, labels in real.items() if "afib" in (labels or ())] == ["E09657"]
    assert published["E09657"]["afib"] == "0"


def test_defect_all_18_codes_lost_to_letter_case_have_a_class_or_a_reason(tmp_path: Path) -> None:
    lost = sorted(code for code, row in CODES.items() if "georgia" in row["lost_by_case"])
    for number, code in enumerate(lost):
        write_record(home(tmp_path), f"E{number:05d}", code)
    assert set(answers(georgia, tmp_path, seven_class="published").values()) == {None}
    silent = [lost[int(name[1:])] for name, labels in answers(georgia, tmp_path).items() if labels is None]
    assert len(lost) == 18
    assert silent == ["426627000"]  # a slow rate of no named rhythm
    assert "rate" in CODES["426627000"]["why"]


def test_defect_a_record_without_a_class_is_given_one_at_random(realdata: Path, tmp_path: Path) -> None:
    published = published_bits(realdata, "Ga")
    silent = {name: row for name, row in published.items() if bits_of(row) is None}
    assert len(silent) == 107
    assert {CLASSES[int(row["label"])] for row in silent.values()} == {*CLASSES}
    assert {name for name, row in published.items() if row["label"] == "5"} <= silent.keys()
    write_record(home(tmp_path / "raw"), "E00001", "428417006")
    write_record(home(tmp_path / "raw"), "E00002", "59118001")
    built = build(georgia, tmp_path / "raw", tmp_path / "out")
    assert set(built.answers("seven_class")) == {"E00002"}
    assert built.ledger == {"E00001": "no_label"}


def test_defect_one_class_is_drawn_where_several_hold(realdata: Path) -> None:
    published = published_bits(realdata, "Ga")["E09657"]
    assert len(bits_of(published) or ()) > 1
    assert published["label"] in "0123456"
    assert answers(georgia, realdata / "cinc2021")["E09657"] == ["sttc", "afib", "hyp"]


def test_defect_normal_beside_other_classes(realdata: Path) -> None:
    published = answers(georgia, realdata / "cinc2021", seven_class="published").values()
    assert any(labels and "normal" in labels and len(labels) > 1 for labels in published)
    ours = answers(georgia, realdata / "cinc2021").values()
    assert {tuple(labels) for labels in ours if labels and "normal" in labels} == {("normal",)}


@pytest.mark.parametrize(
    ("code", "published", "ours"),
    [
        ("425623009", ["mi"], ["sttc"]),
        ("425419005", ["mi"], ["sttc"]),
        ("426434006", None, ["sttc"]),
        ("698252002", ["other"], ["cd"]),
        ("111975006", ["other"], ["sttc"]),
        ("17338001", ["cd"], ["other"]),
        ("39732003", ["hyp"], ["other"]),
        ("54329005", None, ["mi"]),
        ("233917008", None, ["cd"]),
        ("713422000", None, ["other"]),
    ],
)
def test_defect_codes_in_the_wrong_class(
    tmp_path: Path, code: str, published: list[str] | None, ours: list[str] | None
) -> None:
    write_record(home(tmp_path), "E00001", code)
    assert answers(georgia, tmp_path, seven_class="published") == {"E00001": published}
    assert answers(georgia, tmp_path) == {"E00001": ours}


def test_defect_records_of_5_s_are_dropped(tmp_path: Path) -> None:
    georgia.synthesize(tmp_path / "raw", 3, 18)
    lengths = {name: int(header.first_line.split()[3]) for name, header in plain_headers(tmp_path / "raw").items()}
    dropped = {name for name, length in lengths.items() if length != 5000}
    assert len(dropped) == counts(georgia, tmp_path / "raw")["of_another_length_than_10_s"] == 2
    native = build(georgia, tmp_path / "raw", tmp_path / "native")
    fixed = build(georgia, tmp_path / "raw", tmp_path / "fixed", signals={"window_s": 10})
    for name in dropped:
        assert native.signal(name).shape == (12, 2500)
        padded = fixed.signal(name)
        assert padded.shape == (12, 5000)
        assert np.isnan(padded[:, 2500:]).all()
        assert np.abs(padded[:, :2500] - native.signal(name)).max() < 1e-3


def test_defect_division_by_the_range_takes_the_voltage_away(tmp_path: Path) -> None:
    low = np.tile(np.arange(500, dtype=np.int16), (12, 1))
    write_record(home(tmp_path / "raw"), "E00001", "251146004", low)
    write_record(home(tmp_path / "raw"), "E00002", "164873001", low * np.int16(10))
    one, two = (samples / (samples.max() - samples.min()) for samples in (low, low * np.int16(10)))
    assert np.array_equal(one, two)
    built = build(georgia, tmp_path / "raw", tmp_path / "out")
    assert built.signal("E00001").max() == pytest.approx(0.499)
    assert built.signal("E00002").max() == pytest.approx(4.99)


def test_defect_the_published_total_is_twice_the_records_and_one(realdata: Path) -> None:
    assert georgia.SPEC.published_items == 2 * 10_344 + 1
    assert georgia.SPEC.versions[0].items == len(published_bits(realdata, "Ga")) == 10_344
