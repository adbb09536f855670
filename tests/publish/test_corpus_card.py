"""The card of a corpus: what ``datasets`` makes of its header, and that its numbers are the manifest's."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from qoq_data.corpus.manifest import Manifest
from qoq_data.errors import UnknownNameError
from qoq_data.formats.storage import Store
from qoq_data.licence import ODBL_1
from qoq_data.publish.corpus_card import corpus_card_text, write_corpus_card
from qoq_data.record import COLUMNS, FEATURES_JSON, millivolts
from tests.publish.corpora import BUSI, GAP, PTB_XL, SAMPLES, default_rows, ecg_row, write_corpus

SOURCES = (PTB_XL, BUSI)


def header(text: str) -> Any:
    return yaml.safe_load(text.split("---\n")[1])


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    return write_corpus(tmp_path / "corpus", default_rows())


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("card") / "corpus"
    write_corpus_card(write_corpus(folder, default_rows()), SOURCES, Store(folder))
    return folder


@pytest.fixture
def load(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    for variable in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY"):
        monkeypatch.setenv(variable, "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    import datasets

    return lambda *names, **keys: datasets.load_dataset(str(built), *names, cache_dir=str(tmp_path / "cache"), **keys)


def test_datasets_finds_all_splits_by_default_and_a_configuration_a_source(load: Any) -> None:
    every = load()
    assert {split: rows.num_rows for split, rows in every.items()} == {"train": 5, "validation": 1, "test": 1}
    assert {split: rows.num_rows for split, rows in load("ptb-xl").items()} == {"train": 3, "test": 1}
    assert {split: rows.num_rows for split, rows in load("busi").items()} == {"train": 2, "validation": 1}


def test_datasets_reads_the_features_of_the_schema(load: Any) -> None:
    rows = load("busi", split="train")
    assert tuple(rows.column_names) == COLUMNS
    assert rows.features.to_dict() == json.loads(FEATURES_JSON)["info"]["features"]


def test_datasets_decodes_images(load: Any) -> None:
    row = load("busi", split="validation")[0]
    assert row["images"][0].size == (90, 60)
    assert row["images"][0].getpixel((35, 25)) == (200, 200, 200)
    assert row["boxes"][0]["xyxy"] == [30, 20, 70, 40]


def test_datasets_gives_samples_as_an_array_and_millivolts_with_gaps(load: Any) -> None:
    signal = load("ptb-xl", split="train").with_format("numpy")[0]["signals"][0]
    assert np.asarray(signal["samples"]).shape == (12, SAMPLES)
    volts = millivolts(signal)
    assert volts.shape == (12, SAMPLES)
    expected = np.zeros((12, SAMPLES), bool)
    expected[3, GAP] = True
    assert np.array_equal(np.isnan(volts), expected)
    assert volts[11].max() == pytest.approx(0.8, abs=1e-6)


def test_a_split_that_does_not_exist_is_in_no_configuration(tmp_path: Path) -> None:
    manifest = write_corpus(tmp_path, [ecg_row(1, "test")])
    for config in header(corpus_card_text(manifest, SOURCES))["configs"]:
        assert [one["split"] for one in config["data_files"]] == ["test"]


def test_the_configuration_of_all_sources_is_the_default(manifest: Manifest) -> None:
    configs = header(corpus_card_text(manifest, SOURCES))["configs"]
    assert [(one["config_name"], one.get("default")) for one in configs] == [
        ("default", True),
        ("busi", None),
        ("ptb-xl", None),
    ]


def test_one_licence_stands_by_the_hubs_name_and_several_as_other(manifest: Manifest, tmp_path: Path) -> None:
    several = header(corpus_card_text(manifest, SOURCES))
    assert (several["license"], several["license_name"]) == ("other", "licenseref-busi-and-cc-by-4.0")
    alone = write_corpus(tmp_path / "alone", [ecg_row(1, "train")])
    assert header(corpus_card_text(alone, SOURCES))["license"] == "cc-by-4.0"
    shared = replace(PTB_XL, spec=replace(PTB_XL.spec, licences={"media": ODBL_1}))
    assert header(corpus_card_text(alone, [shared]))["license"] == "odbl"


def test_a_corpus_that_may_not_be_passed_on_says_so(manifest: Manifest, tmp_path: Path) -> None:
    warning = "goes to nobody else"
    assert warning in corpus_card_text(manifest, SOURCES)
    alone = write_corpus(tmp_path / "alone", [ecg_row(1, "train")])
    assert warning not in corpus_card_text(alone, SOURCES)


def test_synthetic_rows_are_said_to_be_so_at_the_top_and_in_the_tags(tmp_path: Path) -> None:
    half = corpus_card_text(write_corpus(tmp_path / "half", default_rows(), synthetic=("busi",)), SOURCES)
    assert half.index("SYNTHETIC. Every row of busi") < half.index("## ")
    assert "synthetic" in header(half)["tags"]
    whole = write_corpus(tmp_path / "whole", default_rows(), synthetic=("busi", "ptb-xl"))
    assert "SYNTHETIC. Every row was generated" in corpus_card_text(whole, SOURCES)
    assert "as their publishers ship them" not in corpus_card_text(whole, SOURCES)
    real = corpus_card_text(write_corpus(tmp_path / "real", default_rows()), SOURCES)
    assert "synthetic" not in real.lower()


def test_numbers_are_those_of_the_manifest(manifest: Manifest) -> None:
    text = corpus_card_text(manifest, SOURCES)
    assert "7 rows in 4 shards" in text
    assert "| `ptb-xl` | 1.0.3 | 11 | 4 | 4 | 3 | 0 | 1 | 7 | 1,234 | from the publisher |" in text
    assert "| `busi` | `file_missing` | 7 |" in text
    assert "| `superclass` | Myocardial infarction | 1 |" in text
    assert "| `ptb-xl` | `missing_samples` | 4 |" in text
    assert header(text)["size_categories"] == ["n<1K"]


def test_statistics_are_escaped_and_cut(manifest: Manifest) -> None:
    text = corpus_card_text(manifest, SOURCES)
    assert r"| unknown statement: a\|b \*24\* | 24 |" in text
    assert r"\*25\*" not in text
    assert "15 more counts" in text


def test_the_key_of_the_patients_hash_is_not_on_the_card(manifest: Manifest) -> None:
    assert "a-secret-key" not in corpus_card_text(manifest, SOURCES)


def test_a_sample_is_said_to_be_one(manifest: Manifest) -> None:
    whole = corpus_card_text(manifest, SOURCES)
    part = corpus_card_text(replace(manifest, recipe={**manifest.recipe, "sample": 0.25}), SOURCES)
    assert "share of 0.25" in part
    assert "seeded share" not in whole


def test_every_source_is_cited_and_one_that_is_unknown_is_an_error(manifest: Manifest) -> None:
    text = corpus_card_text(manifest, SOURCES)
    assert PTB_XL.spec.citation in text
    assert BUSI.spec.citation in text
    with pytest.raises(UnknownNameError, match="busi"):
        corpus_card_text(manifest, [PTB_XL])


def test_the_card_follows_from_the_manifest_alone(manifest: Manifest, built: Path) -> None:
    assert (built / "README.md").read_text(encoding="utf-8") == corpus_card_text(manifest, SOURCES[::-1])
