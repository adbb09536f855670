"""CPSC 2018: real records against plain Python, the published defects, and records of every length."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from qoq_data.sources import cpsc_2018
from qoq_data.sources._challenge_codes import CODES
from tests.sources.challenge import (
    CLASSES,
    answers,
    bits_of,
    build,
    check_real,
    counts,
    items_of,
    plain_headers,
    published_bits,
    write_record,
)


def home(tree: Path) -> Path:
    return tree / "WFDB_CPSC2018"


@pytest.mark.slow
def test_e11_real_records_are_built_verified_and_traced(realdata: Path, tmp_path: Path) -> None:
    tree = realdata / "cinc2021"
    headers = plain_headers(home(tree))
    assert len(headers) == 4
    built = check_real(cpsc_2018, tree, headers, tmp_path / "out")
    lengths = {name: built.signal(name).shape for name in headers}
    assert lengths == {"A0689": (12, 5000), "A1041": (12, 8500), "A2712": (12, 6000), "A5215": (12, 10_000)}


def test_the_published_option_is_what_was_published(realdata: Path) -> None:
    published = published_bits(realdata, "CPSC")
    found = answers(cpsc_2018, realdata / "cinc2021", seven_class="published")
    assert len(found) == 4
    assert found == {name: bits_of(published[name]) for name in found}


def test_the_nine_labels_and_what_they_answer(tmp_path: Path) -> None:
    nine = {code: row for code, row in CODES.items() if row["published_cpsc"]}
    assert {row["abbreviation"]: row["seven_class"] for row in nine.values()} == {
        "NSR": "normal", "AF": "afib", "IAVB": "cd", "RBBB": "cd", "LBBB": "cd", "PAC": "other", "VEB": "other",
        "STD": "sttc", "STE": "sttc",
    }  # fmt: skip
    for number, code in enumerate(nine, 1):
        write_record(home(tmp_path), f"A{number:04d}", code)
    assert None not in answers(cpsc_2018, tmp_path).values()
    assert [one for one in answers(cpsc_2018, tmp_path, "rhythm").values() if one] == [["NSR"], ["AF"]]
    assert [choice.text for choice in cpsc_2018.SPEC.task("rhythm").choices] == ["Sinus rhythm", "Atrial fibrillation"]


# What goes wrong with the published conversion ------------------------------------------------------------------------


def test_defect_atrial_fibrillation_is_in_two_classes(realdata: Path, tmp_path: Path) -> None:
    published = published_bits(realdata, "CPSC")
    fibrillating = [row for row in published.values() if row["afib"] == "1"]
    assert len(fibrillating) == 1221
    assert all(row["cd"] == "1" for row in fibrillating)
    assert Counter(CLASSES[int(row["label"])] for row in fibrillating)["cd"] > 500
    write_record(home(tmp_path), "A0001", "164889003")
    assert answers(cpsc_2018, tmp_path, seven_class="published") == {"A0001": ["cd", "afib"]}
    assert answers(cpsc_2018, tmp_path) == {"A0001": ["afib"]}
    real = answers(cpsc_2018, realdata / "cinc2021")
    assert real["A0689"] == ["afib"]
    assert bits_of(published["A0689"]) == ["cd", "afib"]


def test_defect_left_bundle_branch_block_is_in_no_class(tmp_path: Path) -> None:
    write_record(home(tmp_path), "A0001", "164909002")
    assert answers(cpsc_2018, tmp_path, seven_class="published") == {"A0001": None}
    assert answers(cpsc_2018, tmp_path) == {"A0001": ["cd"]}


def test_defect_records_without_a_class_are_given_one_at_random(realdata: Path, tmp_path: Path) -> None:
    silent = [row for row in published_bits(realdata, "CPSC").values() if bits_of(row) is None]
    assert len(silent) == 179
    assert {CLASSES[int(row["label"])] for row in silent} == {*CLASSES}
    write_record(home(tmp_path / "raw"), "A0001", "368009")
    write_record(home(tmp_path / "raw"), "A0002", "164909002")
    built = build(cpsc_2018, tmp_path / "raw", tmp_path / "out")
    assert built.ledger == {"A0001": "no_label"}
    assert built.answers("seven_class") == {"A0002": ["Conduction disturbance"]}


def test_defect_ectopic_beats_count_as_conduction(tmp_path: Path) -> None:
    write_record(home(tmp_path), "A0001", "164884008")
    assert answers(cpsc_2018, tmp_path, seven_class="published") == {"A0001": ["cd"]}
    assert answers(cpsc_2018, tmp_path) == {"A0001": ["other"]}


def test_defect_records_of_other_lengths_are_dropped(realdata: Path, tmp_path: Path) -> None:
    headers = plain_headers(home(realdata / "cinc2021"))
    kept_by_the_published_way = [name for name, one in headers.items() if one.first_line.split()[3] == "5000"]
    assert kept_by_the_published_way == ["A0689"]
    built = build(cpsc_2018, realdata / "cinc2021", tmp_path / "out")
    assert {row_id.split("/")[1] for row_id in built.rows} == headers.keys()
    assert built.ledger == {}


def test_a_recipes_window_keeps_the_first_10_s_and_pads_shorter_records_with_gaps(tmp_path: Path) -> None:
    cpsc_2018.synthesize(tmp_path / "raw", 5, 9)
    native = build(cpsc_2018, tmp_path / "raw", tmp_path / "native")
    fixed = build(cpsc_2018, tmp_path / "raw", tmp_path / "fixed", signals={"window_s": 10})
    lengths = Counter()  # type: Counter[str]
    for item in items_of(cpsc_2018, tmp_path / "raw")["item"]:
        whole, window = native.signal(item), fixed.signal(item)
        length = min(5000, whole.shape[1])
        lengths["longer" if whole.shape[1] > 5000 else "shorter" if length < 5000 else "of 10 s"] += 1
        assert window.shape == (12, 5000)
        assert np.isnan(window[:, length:]).all()
        assert not np.isnan(window[:, :length]).any()
        assert np.abs(window[:, :length] - whole[:, :length]).max() < 1e-3
    assert lengths == {"longer": 4, "shorter": 2, "of 10 s": 3}
    assert counts(cpsc_2018, tmp_path / "raw")["of_another_length_than_10_s"] == 6
    taken = {one["taken"] for row in fixed.rows.values() for one in row["provenance"] if one["role"] == "ecg"}
    assert any("first 10 s" in text for text in taken)


def test_defect_division_by_the_range_takes_the_voltage_away(realdata: Path, tmp_path: Path) -> None:
    path = home(realdata / "cinc2021") / "A0689.mat"
    samples = np.frombuffer(path.read_bytes()[24:], "<i2").reshape(-1, 12).T.astype(np.float64)
    divided = samples / (samples.max() - samples.min())
    assert divided.max() - divided.min() == pytest.approx(1)
    signal = build(cpsc_2018, realdata / "cinc2021", tmp_path / "out").signal("A0689")
    assert signal.max() - signal.min() == pytest.approx((samples.max() - samples.min()) / 1000)


def test_records_that_clip_stay_with_their_finding(tmp_path: Path) -> None:
    samples = np.zeros((12, 5000), np.int16)
    samples[:] = (200 * np.sin(np.arange(5000) / 50)).astype(np.int16)
    samples[6, 1000:1100] = 32767
    write_record(home(tmp_path / "raw"), "A0001", samples=samples)
    built = build(cpsc_2018, tmp_path / "raw", tmp_path / "out")
    assert built.signal("A0001").max() == pytest.approx(32.767)
    codes = {one["code"] for one in next(iter(built.rows.values()))["quality"] if one["where"] == "V1"}
    assert codes >= {"clipped", "amplitude_implausible"}


def test_ages_of_physionets_copy(tmp_path: Path) -> None:
    cpsc_2018.synthesize(tmp_path, 5, 8)
    printed = [header.age for header in plain_headers(tmp_path).values()]
    assert (printed[2], printed[4], printed[7]) == ("92", "-1", "NaN")
    ages = items_of(cpsc_2018, tmp_path)["context.age"].to_list()
    assert (ages[2], ages[4], ages[7]) == ("over 89 years", None, None)
