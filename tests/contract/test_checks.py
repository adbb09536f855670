"""Each check of the contract can fail: a source is spoilt in one way, and the check for it says so."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from qoq_data.contract import CHECKS, starting_source
from qoq_data.contract.features import MeasuredRow, separation
from qoq_data.contract.workspace import built_corpus, synthetic_tree
from qoq_data.errors import SourceError
from qoq_data.formats.storage import Store
from qoq_data.record import AnswerType
from qoq_data.source import Choice, ExpectedFile, Source, SyntheticTask, Task
from qoq_data.sources import source_of

SOUND = source_of(starting_source)
FINDING = SOUND.spec.tasks[0]


def spec(**changed: Any) -> Source:
    return replace(SOUND, spec=replace(SOUND.spec, **changed))


def task(**changed: Any) -> Source:
    return spec(tasks=(replace(FINDING, **changed),))


def scanning(change: Callable[[pl.DataFrame], pl.DataFrame]) -> Source:
    """The sound source with its item table changed."""
    return replace(SOUND, scan=lambda tree, options: change(SOUND.scan(tree, options).collect()).lazy())


def rejects(check: str, source: Source, folder: Path, said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        CHECKS[check](source, folder)


SPOILT_SPECS: dict[str, tuple[Source, str]] = {
    "name": (spec(name="Starting_Source"), "not lower case"),
    "citation": (spec(citation=" "), "citation is blank"),
    "homepage": (spec(homepage="http://example.org"), "homepage"),
    "steps": (spec(access_steps=()), "access_steps"),
    "grouping": (spec(grouping="patient"), "grouping"),
    "versions": (spec(versions=()), "versions"),
    "licence": (spec(licences={"media": starting_source.LICENCE}), "no entry for labels"),
    "licence text": (
        spec(licences=dict.fromkeys(("media", "labels"), replace(starting_source.LICENCE, url=""))),
        "https",
    ),
    "layout": (spec(expected_files=()), "no required file"),
    "outside": (spec(expected_files=(ExpectedFile("../labels.csv"),)), "no path below the root"),
    "checksums": (spec(checksums_file="SHA256SUMS.txt"), "checksums_file"),
    "inspector": (spec(inspectors=("palm",)), "no inspector palm"),
    "no synthetic": (spec(synthetic=()), "synthetic names no task"),
    "feature": (spec(synthetic=(SyntheticTask("finding", ("aura",)),)), "not all measures"),
}

SPOILT_TASKS: dict[str, tuple[Source, str]] = {
    "wordings": (task(wordings=("What is it?", "what  is it?", "Name it.", "Which?")), "fewer than 4 distinct"),
    "gives away": (task(wordings=(*FINDING.wordings, "Where is the dark lesion?")), "wording 5 names the answer"),
    "one choice": (task(choices=FINDING.choices[:1]), "fewer than two"),
    "same key": (task(choices=(*FINDING.choices, Choice("dark", "Dim lesion"))), "key dark stands twice"),
    "same text": (task(choices=(*FINDING.choices, Choice("dim", "dark lesion"))), "stands twice"),
    "tolerance": (task(tolerance=1.0), "has a tolerance"),
    "no tolerance": (spec(tasks=(Task("rate", AnswerType.NUMBER, FINDING.wordings),)), "no tolerance"),
    "none": (spec(tasks=()), "no task"),
}


@pytest.mark.parametrize("defect", SPOILT_SPECS)
def test_an_incomplete_spec(defect: str, tmp_path: Path) -> None:
    rejects("spec_is_complete", SPOILT_SPECS[defect][0], tmp_path, SPOILT_SPECS[defect][1])


@pytest.mark.parametrize("defect", SPOILT_TASKS)
def test_an_ill_put_task(defect: str, tmp_path: Path) -> None:
    rejects("tasks_are_well_put", SPOILT_TASKS[defect][0], tmp_path, SPOILT_TASKS[defect][1])


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sound source's folder with its tree and one corpus, to be read only."""
    folder = tmp_path_factory.mktemp("built")
    built_corpus(SOUND, folder)
    return folder


@pytest.fixture
def own(built: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may spoil, modification times and all."""
    return Path(shutil.copytree(built, tmp_path / "own"))


def test_a_scan_that_opens_media(built: Path) -> None:
    def scan(tree: Store, options: Any) -> pl.LazyFrame:
        tree.read("images/picture00003.png")
        return SOUND.scan(tree, options)

    rejects("scan_obeys", replace(SOUND, scan=scan), built, "opens media")


def test_a_scan_that_differs_from_time_to_time(built: Path) -> None:
    turns = count()
    source = scanning(lambda items: items.with_columns(pl.format("{}-{}", "item", pl.lit(next(turns))).alias("item")))
    rejects("scan_obeys", source, built, "two scans of one tree differ")


@pytest.mark.parametrize(
    ("part", "value", "said"),
    [("kind", "film", "of a kind that is none"), ("kind", "mask", "begins with a mask"), ("path", "", "or a path")],
)
def test_media_that_cannot_be_rendered(part: str, value: str, said: str, built: Path) -> None:
    changed = pl.col("media").list.eval(pl.element().struct.with_fields(pl.lit(value).alias(part)))
    with pytest.raises(SourceError, match=said):
        CHECKS["scan_obeys"](scanning(lambda items: items.with_columns(changed)), built)


def test_an_item_without_a_medium(built: Path) -> None:
    source = scanning(lambda items: items.with_columns(pl.lit([], items.schema["media"]).alias("media")))
    with pytest.raises(SourceError, match="has no medium"):
        CHECKS["scan_obeys"](source, built)


def test_a_version_outside_the_spec(built: Path) -> None:
    rejects("scan_obeys", replace(SOUND, detect_version=lambda tree: "9"), built, "version found, 9")


def test_a_synthesis_without_its_seed(built: Path) -> None:
    ignoring = replace(SOUND, synthesize=lambda folder, seed, patients: SOUND.synthesize(folder, 7, patients))
    rejects("synthesis_follows_its_seed", ignoring, built, "does not heed its seed")


def test_a_synthesis_that_differs_from_time_to_time(built: Path) -> None:
    turns = count()
    drifting = replace(SOUND, synthesize=lambda folder, seed, patients: SOUND.synthesize(folder, next(turns), patients))
    rejects("synthesis_follows_its_seed", drifting, built, "differ the second time")


def test_an_answer_outside_the_vocabulary(built: Path) -> None:
    other = task(choices=(*FINDING.choices[:2], Choice("dark", "Shadow")))
    rejects("answers_are_in_the_vocabulary", other, built, "not those of the SPEC")


def test_a_context_that_names_the_answer(tmp_path: Path) -> None:
    source = scanning(lambda items: items.with_columns(pl.lit("a dark lesion, no lesion or so").alias("context.age")))
    rejects("context_gives_nothing_away", source, tmp_path, "names its answer")


def test_a_context_as_long_as_a_report(built: Path) -> None:
    source = scanning(lambda items: items.with_columns(pl.lit("word " * 40).alias("context.age")))
    rejects("context_gives_nothing_away", source, built, "is it a report")


def test_a_group_that_crosses_splits(built: Path) -> None:
    source = scanning(lambda items: items.with_columns(pl.lit("all one").alias("group")))
    rejects("patients_do_not_cross_splits", source, built, "two splits.*group")


def test_a_corpus_that_depends_on_workers(own: Path) -> None:
    shutil.copytree(own / "corpus-1", own / "corpus-2")
    CHECKS["worker_count_changes_nothing"](SOUND, own)
    (own / "corpus-2" / "skipped.jsonl").write_text("{}\n")
    rejects("worker_count_changes_nothing", SOUND, own, "skipped.jsonl")


def test_a_provenance_that_does_not_agree(own: Path) -> None:
    (own / "raw" / "images" / "picture00003.png").write_bytes(b"other")
    rejects("provenance_resolves", SOUND, own, "another sha256")
    (own / "raw" / "images" / "picture00003.png").unlink()
    rejects("provenance_resolves", SOUND, own, "is not there")


def test_an_item_that_is_lost(own: Path) -> None:
    turns = count()
    losing = scanning(lambda items: items if next(turns) == 0 else items.tail(-1))
    rejects("every_item_is_accounted_for", losing, own, "1 items are no row and no ledger line")


def test_a_build_that_writes_into_the_raw_tree(tmp_path: Path) -> None:
    def scan(tree: Store, options: Any) -> pl.LazyFrame:
        tree.write("index.json", b"{}")
        return SOUND.scan(tree, options)

    rejects("raw_tree_is_left_alone", replace(SOUND, scan=scan), tmp_path, "index.json")


@pytest.mark.parametrize(
    "leak", [pl.col("patient"), pl.col("item"), pl.lit("images: 30 years")], ids=["id", "file", "folder"]
)
def test_an_id_or_a_name_that_leaks(leak: pl.Expr, tmp_path: Path) -> None:
    source = scanning(lambda items: items.with_columns(leak.alias("context.age")))
    rejects("no_name_of_the_tree_leaks", source, tmp_path, "stands in what is shown")


def test_labels_that_cannot_be_seen(tmp_path: Path) -> None:
    def synthesize(folder: Path, seed: int, patients: int) -> None:
        SOUND.synthesize(folder, seed, patients)
        table = folder / starting_source.TABLE
        header, *rows = table.read_text().splitlines()
        findings = np.random.default_rng(seed).permutation([row.rpartition(",")[2] for row in rows])
        shuffled = [f"{row.rpartition(',')[0]},{finding}" for row, finding in zip(rows, findings, strict=True)]
        table.write_text("\n".join([header, *shuffled]) + "\n")

    rejects("labels_can_be_seen", replace(SOUND, synthesize=synthesize), tmp_path, "under 0.67, twice chance")


def test_a_required_file_that_nothing_reads(tmp_path: Path) -> None:
    def synthesize(folder: Path, seed: int, patients: int) -> None:
        SOUND.synthesize(folder, seed, patients)
        (folder / "notes.csv").write_text("a\n1\n")

    unread = spec(expected_files=(ExpectedFile("notes.csv", columns=("a",)),))
    unread = replace(unread, synthesize=synthesize)
    rejects("missing_files_are_told", unread, tmp_path, "notes.csv removed: a corpus is built all the same")
    rejects("missing_columns_are_told", unread, tmp_path, "column 'a' removed: it scans without an error")


def test_an_error_of_another_kind(built: Path) -> None:
    def scan(tree: Store, options: Any) -> pl.LazyFrame:
        header = (Path(tree.address) / starting_source.TABLE).read_text().splitlines()[0].split(",")
        header.index("finding")
        return SOUND.scan(tree, options)

    careless = replace(SOUND, scan=scan)
    rejects("missing_files_are_told", careless, built, "FileNotFoundError, which is no SourceError")
    rejects("missing_columns_are_told", careless, built, "ValueError, which is no SourceError")
    rejects("other_sources_trees_are_told", careless, built, "FileNotFoundError, which is no SourceError")


def test_a_scan_that_takes_any_tree(built: Path) -> None:
    blind = replace(SOUND, scan=lambda tree, options: SOUND.scan(Store(built / "raw"), options))
    rejects("other_sources_trees_are_told", blind, built, "it scans without an error")


def test_checks_leave_their_folder_as_it_was(built: Path) -> None:
    before = sorted(path.name for path in built.iterdir())
    CHECKS["missing_files_are_told"](SOUND, built)
    CHECKS["raw_tree_is_left_alone"](SOUND, built)
    assert sorted(path.name for path in built.iterdir()) == before
    assert synthetic_tree(SOUND, built) == built / "raw"


def test_separation_by_hand() -> None:
    """Two labels 10 apart on one feature, four patients each of one row, and a label too rare to take part."""
    rows = [MeasuredRow(f"a{i}", "low", (float(i),)) for i in range(4)]
    rows += [MeasuredRow(f"b{i}", "high", (10.0 + i,)) for i in range(4)]
    found = separation([*rows, MeasuredRow("c", "rare", (5.0,))])
    assert (found.balanced_accuracy, found.classes, found.rows, found.chance) == (1.0, ("high", "low"), 8, 0.5)
    crossed = [replace(row, features=(rows[-1 - i].features[0],)) for i, row in enumerate(rows)]
    assert separation(crossed).balanced_accuracy == 1.0
    constant = [replace(row, features=(float("nan"),)) for row in rows]
    assert separation(constant).balanced_accuracy == 0.5


def test_a_label_of_one_patient_takes_no_part() -> None:
    rows = [MeasuredRow("a", "low", (float(i),)) for i in range(6)]
    rows += [MeasuredRow(f"b{i}", "high", (10.0 + i,)) for i in range(6)]
    assert separation(rows).classes == ("high",)
