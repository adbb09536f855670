"""The contract of a source as plain functions of the source and a folder to work in.

Each raises ``AssertionError`` with what is wrong and where. They share the synthetic tree and the corpora in the
folder, so one folder serves all checks of a source; ``CHECKS`` has them by name:

    @pytest.mark.parametrize("check", CHECKS)
    def test_contract(check, folder):
        CHECKS[check](source_of(my_module), folder)
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl

from qoq_data.contract.features import LEAST_ROWS, measure_rows, separation
from qoq_data.contract.spec_checks import (
    check_spec_is_complete,
    check_tasks_are_well_put,
    holds_phrase,
    require,
)
from qoq_data.contract.tree_checks import TREE_CHECKS
from qoq_data.contract.workspace import (
    PATIENTS,
    SEED,
    build,
    built_corpus,
    first_snapshot,
    item_of,
    planned_answers,
    scanned_item,
    snapshot,
    synthetic_tree,
    tables,
    write_synthetic,
)
from qoq_data.corpus.items import scan_items
from qoq_data.corpus.ledger import from_lines
from qoq_data.corpus.manifest import LEDGER, MANIFEST
from qoq_data.errors import RecordError
from qoq_data.formats.storage import RecordingStore, Store
from qoq_data.record import AnswerType
from qoq_data.source import Source

Check = Callable[[Source, Path], None]

LONGEST_CONTEXT = 80
NEARLY_ALL = 0.95
MOST_PATIENTS = 8 * PATIENTS
_SHORTEST_ID = 4
"""Ids of fewer characters are left out of the search for leaks: an age or a number of leads would match them."""


def check_scan_obeys(source: Source, folder: Path) -> None:
    """The synthetic tree scans into an item table as the contract has it, twice the same, and no medium is opened."""
    tree = RecordingStore(synthetic_tree(source, folder))
    items = scan_items(source, tree, source.options_model())
    again = scan_items(source, tree, source.options_model())
    require(condition=items.equals(again), message=f"{source.name}: two scans of one tree differ")
    version = source.version(tree)
    known = [one.name for one in source.spec.versions]
    require(condition=version in known, message=f"{source.name}: the version found, {version}, is none of its SPEC")
    media = items.explode("media").unnest("media")
    opened = sorted(set(media["path"]) & set(tree.seen) - set(items["label_file"]))
    require(condition=not opened, message=f"{source.name}: scan opens media, {opened[:1]} first")


def check_synthesis_follows_its_seed(source: Source, folder: Path) -> None:
    """The same seed and number of patients write the same bytes, another seed writes others."""
    synthetic_tree(source, folder)
    first = {path: digest for path, (digest, _) in first_snapshot(folder).items()}
    with TemporaryDirectory(dir=folder) as scratch:
        for seed, same in ((SEED, True), (SEED + 1, False)):
            tree = Path(scratch) / str(seed)
            write_synthetic(source, tree, seed, PATIENTS)
            found = {path: digest for path, (digest, _) in snapshot(tree).items()}
            differing = sorted(path for path in {*first, *found} if first.get(path) != found.get(path))
            if same:
                require(
                    condition=not differing,
                    message=f"{source.name}: synthesize wrote {len(differing)} files that differ the second time, "
                    f"{differing[:1]} first",
                )
            else:
                require(condition=bool(differing), message=f"{source.name}: synthesize does not heed its seed")


def check_answers_are_in_the_vocabulary(source: Source, folder: Path) -> None:
    """Every row's choices are its task's, its answer is among them in their order, and numbers have their tolerance."""
    for table in tables(built_corpus(source, folder), ["id", "task", "question", "choices", "answer", "tolerance"]):
        for row in table.to_pylist():
            task = source.spec.task(row["task"])
            texts = [choice.text for choice in task.choices]
            where = f"{row['id']}:"
            require(condition=row["choices"] == texts, message=f"{where} its choices are not those of the SPEC")
            require(condition=row["question"] in task.wordings, message=f"{where} its question is no wording")
            if task.answer_type is AnswerType.NUMBER:
                number = len(row["answer"]) == 1 and re.fullmatch(r"-?\d+(\.\d+)?", row["answer"][0])
                require(condition=bool(number), message=f"{where} its answer is no number")
                require(condition=row["tolerance"] == task.tolerance, message=f"{where} it has another tolerance")
                continue
            ordered = [text for text in texts if text in row["answer"]]
            require(condition=row["answer"] == ordered, message=f"{where} its answer is not among its choices in order")
            several = task.answer_type is AnswerType.SEVERAL
            enough = len(row["answer"]) >= 1 if several else len(row["answer"]) == 1
            require(condition=enough, message=f"{where} it has {len(row['answer'])} answers")


def check_context_gives_nothing_away(source: Source, folder: Path) -> None:
    """Context holds the fields that the SPEC allows, in short, and never an answer of its row."""
    allowed = [name.replace("_", " ") for name in source.spec.context_fields]
    items = _items(source, folder)
    for name in source.spec.context_fields:
        values = items[f"context.{name}"].drop_nulls() if f"context.{name}" in items.columns else pl.Series([""])
        longest = max((len(value) for value in values), default=0)
        require(
            condition=longest <= LONGEST_CONTEXT,
            message=f"{source.name}: a context.{name} has {longest} characters: is it a report?",
        )
    for table in tables(built_corpus(source, folder), ["id", "context", "choices", "answer"]):
        for row in table.to_pylist():
            context = row["context"]
            named = not context or any(context.lower().startswith(f"{name}: ") for name in allowed)
            require(condition=named, message=f"{row['id']}: its context begins with no field of the SPEC")
            told = [text for text in row["answer"] if row["choices"] and holds_phrase(context, text)]
            require(condition=not told, message=f"{row['id']}: its context names its answer")


def check_patients_do_not_cross_splits(source: Source, folder: Path) -> None:
    """No patient, no group and no stored medium stands on two sides of the built corpus."""
    groups = dict(_items(source, folder).select("item", "group").iter_rows())
    sides: dict[tuple[str, str], set[str]] = {}
    for table in tables(built_corpus(source, folder), ["id", "split", "patient", "provenance"]):
        for row in table.to_pylist():
            same = [("group", groups[scanned_item(item_of(row["id"], source.name), groups)])]
            same += [("patient", row["patient"])] if row["patient"] else []
            same += [("file", one["sha256"]) for one in row["provenance"] if one["role"] in ("image", "ecg")]
            for key in same:
                sides.setdefault(key, set()).add(row["split"])
    crossing = Counter(kind for (kind, _), found in sides.items() if len(found) > 1)
    require(condition=not crossing, message=f"{source.name}: these stand in two splits: {dict(crossing)}")


def check_worker_count_changes_nothing(source: Source, folder: Path) -> None:
    """Builds with one and with two workers are the same, byte for byte."""
    one, two = (_published(built_corpus(source, folder, workers)) for workers in (1, 2))
    differing = sorted(path for path in {*one, *two} if one.get(path) != two.get(path))
    require(condition=not differing, message=f"{source.name}: 1 and 2 workers differ in {differing[:3]}")


def check_provenance_resolves(source: Source, folder: Path) -> None:
    """Every input of every row is a file of the raw tree whose sha256 agrees, and the label's file is one of them."""
    tree = Store(synthetic_tree(source, folder))
    digests: dict[str, str] = {}
    for table in tables(built_corpus(source, folder), ["id", "provenance"]):
        for row in table.to_pylist():
            roles = [one["role"] for one in row["provenance"]]
            where = f"{row['id']}:"
            require(condition="label" in roles, message=f"{where} its provenance has no label")
            require(condition=len(roles) > 1, message=f"{where} its provenance has no medium")
            for one in row["provenance"]:
                path = one["path"]
                try:
                    digest = digests.setdefault(path, "") or tree.sha256(path)
                except RecordError as error:
                    raise AssertionError(f"{where} {path} of its provenance is not there: {error.detail}") from error
                digests[path] = digest
                require(condition=one["sha256"] == digest, message=f"{where} {path} has another sha256 than it says")


def check_every_item_is_accounted_for(source: Source, folder: Path) -> None:
    """Every item is a row, or one line of the ledger, and never both: with one row a record their sum is the items.

    Of a source that makes several of one, each part is one of these, and no scanned item is without any.
    """
    expected = Counter(_items(source, folder)["item"])
    with TemporaryDirectory(dir=folder) as scratch:
        corpus = Path(scratch) / "corpus"
        build(source, synthetic_tree(source, folder), corpus, rows_per_record="one")
        found = Counter(
            item_of(one, source.name) for table in tables(corpus, ["id"]) for one in table["id"].to_pylist()
        )
        found.update(skip.item for skip in from_lines((corpus / LEDGER).read_text(encoding="utf-8")))
    if source.expand is not None:
        twice = sorted(item for item, count in found.items() if count > 1)
        require(condition=not twice, message=f"{source.name}: these are several rows or ledger lines: {twice[:3]}")
        found = Counter({scanned_item(item, expected): 1 for item in found})
    lost, extra = sorted(expected - found), sorted(found - expected)
    require(condition=not lost, message=f"{source.name}: {len(lost)} items are no row and no ledger line: {lost[:3]}")
    require(condition=not extra, message=f"{source.name}: rows and ledger lines too many: {extra[:3]}")


def check_raw_tree_is_left_alone(source: Source, folder: Path) -> None:
    """Scanning and building wrote nothing into the raw tree."""
    tree = synthetic_tree(source, folder)
    built_corpus(source, folder)
    before, now = first_snapshot(folder), snapshot(tree)
    changed = sorted(path for path in {*before, *now} if before.get(path) != now.get(path))
    require(condition=not changed, message=f"{source.name}: a build changes the raw tree: {changed[:3]}")


def check_no_name_of_the_tree_leaks(source: Source, folder: Path) -> None:
    """No raw id and no name of a file or its folder stands in what a model reads, and columns of ids hold hashes.

    Questions are the SPEC's own words, and ``check_tasks_are_well_put`` looks at them; folders are named by class.
    """
    items = _items(source, folder)
    ids = {text for column in ("patient", "study") for text in items[column].drop_nulls()}
    media = items.explode("media")["media"].struct.field("path")
    names = {Path(path).stem for path in media} | {Path(path).parent.name for path in media}
    told = {text.lower() for text in ids | names if len(text) >= _SHORTEST_ID}
    columns = ["id", "patient", "study", "context", "views", "boxes", "quality", "images.list.element.path"]
    for table in tables(built_corpus(source, folder), columns):
        for row in table.to_pylist():
            bare = [name for name in ("patient", "study") if row[name] in ids]
            require(condition=not bare, message=f"{row['id']}: its {bare} holds an id of the raw tree")
            texts = [row["context"], *(str(one["path"] or "") for one in row["images"])]
            texts += [view["view"] for view in row["views"]] + [box["label"] for box in row["boxes"]]
            words = {word for text in texts for word in re.split(r"[\s;:,]+", text.lower())}
            require(condition=not words & told, message=f"{row['id']}: a name of the raw tree stands in what is shown")


def check_labels_can_be_seen(source: Source, folder: Path) -> None:
    """A nearest-centroid classifier on the features of SPEC.synthetic reaches twice chance on patients it never saw.

    Where twice chance is no error at all, as with two labels, ``NEARLY_ALL`` will do.
    """
    corpus = built_corpus(source, _with_rows_enough(source, folder))
    for seen in source.spec.synthetic:
        where = f"{source.name}, task {seen.task}:"
        found = separation(measure_rows(corpus, source.name, seen.task, seen.features))
        require(condition=len(found.classes) > 1, message=f"{where} fewer than two labels have rows enough")
        enough = min(2 * found.chance, NEARLY_ALL)
        require(
            condition=found.balanced_accuracy >= enough,
            message=f"{where} balanced accuracy {found.balanced_accuracy:.2f} over {', '.join(found.classes)} is under "
            f"{enough:.2f}, twice chance, on {', '.join(seen.features)}",
        )


def _with_rows_enough(source: Source, folder: Path) -> Path:
    """A folder whose synthetic tree is so large that each label standing in it alone has rows enough, if any is."""
    patients, place = PATIENTS, folder
    while patients < MOST_PATIENTS and _has_rare_labels(source, place):
        patients *= 2
        place = folder / f"patients-{patients}"
        place.mkdir(exist_ok=True)
        synthetic_tree(source, place, patients)
    return place


def _has_rare_labels(source: Source, folder: Path) -> bool:
    if source.expand is not None:
        planned = planned_answers(source, synthetic_tree(source, folder))
        answers = [pl.Series(planned.get(seen.task, []), dtype=pl.List(pl.String)) for seen in source.spec.synthetic]
    else:
        items = _items(source, folder)
        answers = [items[f"answer.{seen.task}"].drop_nulls() for seen in source.spec.synthetic]
    alone = [answer.filter(answer.list.len() == 1).list.first() for answer in answers]
    return any(one.len() == 0 or bool((one.value_counts()["count"] < LEAST_ROWS).any()) for one in alone)


def _items(source: Source, folder: Path) -> pl.DataFrame:
    return scan_items(source, Store(synthetic_tree(source, folder)), source.options_model())


def _published(corpus: Path) -> dict[str, bytes]:
    """Every file of a corpus that leaves with it."""
    paths = [*(path for path in (corpus / "data").rglob("*") if path.is_file()), corpus / MANIFEST, corpus / LEDGER]
    return {path.relative_to(corpus).as_posix(): path.read_bytes() for path in paths}


CHECKS: dict[str, Check] = {
    check.__name__.removeprefix("check_"): check
    for check in (
        check_spec_is_complete,
        check_tasks_are_well_put,
        check_scan_obeys,
        check_synthesis_follows_its_seed,
        check_answers_are_in_the_vocabulary,
        check_context_gives_nothing_away,
        check_patients_do_not_cross_splits,
        check_worker_count_changes_nothing,
        check_provenance_resolves,
        check_every_item_is_accounted_for,
        check_raw_tree_is_left_alone,
        check_no_name_of_the_tree_leaks,
        check_labels_can_be_seen,
    )
} | TREE_CHECKS
"""Every check by its name."""
