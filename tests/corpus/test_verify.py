"""Verify: every defect planted in a sound corpus is named, and a sound corpus has none."""

from __future__ import annotations

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qoq_data.corpus.ledger import Skip, to_lines
from qoq_data.corpus.manifest import LEDGER, MANIFEST, Manifest, ShardEntry, SourceEntry, read_manifest
from qoq_data.corpus.planning import SourceInput
from qoq_data.corpus.shard import Row, rows_to_table, table_to_parquet
from qoq_data.corpus.verify import Verified, verify_corpus
from qoq_data.errors import CorpusError
from qoq_data.formats.storage import Store
from qoq_data.recipe import SourceRecipe
from qoq_data.record import BoxOnImage, Media, Provenance, QualityFinding
from qoq_data.sources import registry

PICTURE = b"what stands for a picture"
SKIPS = [Skip("busi", "x1", "mask_missing", "a.png", "no mask"), Skip("busi", "x2", "no_label", "b.png", "no label")]
SHARDS = {"train": ("aa", [0, 1, 2]), "validation": ("bb", [3]), "test": ("cc", [4, 5])}


def row(number: int, split: str) -> Row:
    text = {
        "id": f"busi/{number}/diagnosis", "source": "busi", "source_version": "1.0", "domain": "ultrasound",
        "modality": "ultrasound", "task": "diagnosis", "split": split, "patient": f"patient {number}", "study": None,
        "question": "Which?", "choices": ["Benign", "Malignant"], "answer": [("Benign", "Malignant")[number % 2]],
        "answer_type": "one", "tolerance": None, "context": "", "licence": "CC-BY-4.0", "redistribution": "open",
    }  # fmt: skip
    media = Media(
        images=(PICTURE,),
        boxes=(BoxOnImage("Tumour", 0, (1, 2, 3, 4)),),
        quality=(QualityFinding("small", "image", 1.0),) * (number % 2),
        provenance=(Provenance("image", f"{number}.png", hashlib.sha256(PICTURE).hexdigest(), "all of it"),),
    )
    return Row(text, media)


class Corpus:
    """A sound corpus in a folder, built row by row, that a test may spoil and seal again."""

    def __init__(self, folder: Path) -> None:
        self.store = Store(folder / "corpus")
        self.raw = folder / "raw"
        self.raw.mkdir()
        self.rows = {split: [row(number, split) for number in numbers] for split, (_, numbers) in SHARDS.items()}
        for number in range(6):
            (self.raw / f"{number}.png").write_bytes(PICTURE)
        self.manifest = Manifest("test", "0", {}, (), ())
        self.seal()

    def path(self, split: str) -> str:
        return f"data/busi/{split}-{SHARDS[split][0]}.parquet"

    def seal(self) -> None:
        """Write every shard, the ledger and a manifest that agrees with them."""
        shards = []
        for split, rows in self.rows.items():
            data = table_to_parquet(rows_to_table(rows), "lz4")
            self.store.write(self.path(split), data)
            digest = hashlib.sha256(data).hexdigest()
            shards.append(ShardEntry(self.path(split), "busi", split, len(rows), len(data), digest))
        every = [one for rows in self.rows.values() for one in rows]
        entry = SourceEntry(
            name="busi", version="1.0", items=8, patients=6, rows=len(every),
            skipped={"mask_missing": 1, "no_label": 1}, splits={split: len(rows) for split, rows in self.rows.items()},
            tasks=dict(Counter(one.text["task"] for one in every)),
            labels={"diagnosis": dict(Counter(label for one in every for label in one.text["answer"]))},
            quality=dict(Counter(finding.code for one in every for finding in one.media.quality)),
            moved=0, synthetic=True,
        )  # fmt: skip
        self.store.write(LEDGER, to_lines(SKIPS).encode())
        self.set_manifest(dataclasses.replace(self.manifest, sources=(entry,), shards=tuple(shards)))

    def set_manifest(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self.store.write(MANIFEST, manifest.to_json().encode())

    def change_source(self, **changes: Any) -> None:
        entry = dataclasses.replace(self.manifest.sources[0], **changes)
        self.set_manifest(dataclasses.replace(self.manifest, sources=(entry,)))

    def change_shard(self, **changes: Any) -> None:
        first, *rest = self.manifest.shards
        self.set_manifest(dataclasses.replace(self.manifest, shards=(dataclasses.replace(first, **changes), *rest)))

    def replace_shard(self, data: bytes) -> None:
        self.store.write(self.path("train"), data)
        self.change_shard(sha256=hashlib.sha256(data).hexdigest(), bytes=len(data))

    def change_row(self, side: str, position: int, media: dict[str, Any] | None = None, **text: Any) -> None:
        old = self.rows[side][position]
        self.rows[side][position] = Row({**old.text, **text}, dataclasses.replace(old.media, **(media or {})))
        self.seal()

    def verify(self, deep: bool = False) -> Verified:
        raw = [SourceInput(registry()["busi"], SourceRecipe(name="busi"), Store(self.raw))] if deep else []
        return verify_corpus(self.store, read_manifest(self.store), raw)


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    return Corpus(tmp_path)


@pytest.mark.parametrize("deep", [False, True])
def test_a_sound_corpus_has_no_problem(corpus: Corpus, deep: bool) -> None:
    assert corpus.verify(deep) == Verified(shards=3, rows=6, files=6 if deep else 0, problems=())


def flip_byte(corpus: Corpus, position: int) -> None:
    data = bytearray(corpus.store.read(corpus.path("train")))
    data[position] ^= 1
    corpus.store.write(corpus.path("train"), bytes(data))


@pytest.mark.parametrize("position", [0, 300, -300, -1])
def test_a_flipped_byte_is_named_with_its_shard(corpus: Corpus, position: int) -> None:
    flip_byte(corpus, position)
    (problem,) = corpus.verify().problems
    assert problem.startswith("data/busi/train-aa.parquet has other bytes than were written")


BOX = BoxOnImage("Tumour", 0, (1, 2, 3, 4))

PLANTED: dict[str, tuple[Callable[[Corpus], Any], list[str]]] = {
    "deleted shard": (lambda c: c.store.remove(c.path("test")), ["test-cc.parquet: ", "not there"]),
    "extra shard": (
        lambda c: c.store.write("data/busi/train-zz.parquet", b""),
        ["data/busi/train-zz.parquet is not in the manifest"],
    ),
    "another file": (lambda c: c.store.write("data/x/notes.txt", b""), ["data/x/notes.txt is not in the manifest"]),
    "truncated shard": (
        lambda c: c.store.write(c.path("train"), c.store.read(c.path("train"))[:-5]),
        ["train-aa.parquet has other bytes"],
    ),
    "shard that is no parquet": (
        lambda c: c.replace_shard(b"x"),
        ["train-aa.parquet", "absent or damaged"],
    ),
    "shard of a path that leads out": (lambda c: c.change_shard(path="../x.parquet"), ["leads out"]),
    "rows of a shard": (lambda c: c.change_shard(rows=4), ["train-aa.parquet has 3 rows and not 4"]),
    "bytes of a shard": (lambda c: c.change_shard(bytes=5), ["train-aa.parquet has another size"]),
    "split of a shard": (lambda c: c.change_shard(split="test"), ["rows of another split stand in it"]),
    "source of a shard": (lambda c: c.change_shard(source="ptb-xl"), ["rows of another source stand in it"]),
    "rows of a source": (lambda c: c.change_source(rows=7), ["busi: there are 6 rows and not 7"]),
    "splits of a source": (
        lambda c: c.change_source(splits={"train": 2, "validation": 2, "test": 2}),
        ["busi: rows by split are"],
    ),
    "tasks of a source": (lambda c: c.change_source(tasks={"diagnosis": 5}), ["busi: the rows' tasks are not counted"]),
    "labels of a source": (
        lambda c: c.change_source(labels={"diagnosis": {"Benign": 4, "Malignant": 2}}),
        ["busi: the rows' labels of diagnosis are not counted"],
    ),
    "labels of no task": (
        lambda c: c.change_source(labels={**c.manifest.sources[0].labels, "x": {"y": 1}}),
        ["busi: the rows' labels of x are not counted"],
    ),
    "findings of a source": (lambda c: c.change_source(quality={}), ["busi: the rows' quality are not counted"]),
    "reasons of a source": (lambda c: c.change_source(skipped={"no_label": 2}), ["busi: the ledger counts"]),
    "line of the ledger removed": (
        lambda c: c.store.write(LEDGER, to_lines(SKIPS[:1]).encode()),
        ["busi: the ledger counts"],
    ),
    "ledger removed": (lambda c: c.store.remove(LEDGER), ["skipped.jsonl is absent or damaged"]),
    "ledger damaged": (lambda c: c.store.write(LEDGER, b"{"), ["skipped.jsonl is absent or damaged"]),
    "ledger line of a stranger": (
        lambda c: c.store.write(LEDGER, to_lines([*SKIPS, Skip("x", "1", "no_label", "", "")]).encode()),
        ["skipped.jsonl has lines of x"],
    ),
    "answer outside its choices": (
        lambda c: c.change_row("train", 0, answer=["Normal"]),
        ["busi/0/diagnosis has an answer that is none of its choices"],
    ),
    "no answer": (lambda c: c.change_row("train", 0, answer=[]), ["busi/0/diagnosis lacks a question, an answer"]),
    "no question": (lambda c: c.change_row("train", 0, question=""), ["busi/0/diagnosis lacks a question"]),
    "no provenance": (lambda c: c.change_row("train", 0, {"provenance": ()}), ["busi/0/diagnosis lacks"]),
    "id twice in a shard": (
        lambda c: c.change_row("train", 1, id="busi/0/diagnosis"),
        ["the id busi/0/diagnosis stands twice"],
    ),
    "id twice in two shards": (
        lambda c: c.change_row("test", 0, id="busi/3/diagnosis"),
        ["the id busi/3/diagnosis stands twice"],
    ),
    "patient on two sides": (
        lambda c: c.change_row("test", 1, patient="patient 0"),
        ["the patient of busi/5/diagnosis stands in two splits"],
    ),
    "row of another split": (lambda c: c.change_row("train", 2, split="test"), ["rows of another split stand in it"]),
    "domain that is none": (lambda c: c.change_row("train", 0, domain="dentistry"), ["a value of domain is outside"]),
    "split that is none": (lambda c: c.change_row("train", 0, split="dev"), ["a value of split is outside"]),
    "answer type that is none": (lambda c: c.change_row("train", 0, answer_type="x"), ["a value of answer_type is"]),
    "redistribution that is none": (
        lambda c: c.change_row("train", 0, redistribution="x"),
        ["a value of redistribution is outside"],
    ),
    "redistribution that is blank": (
        lambda c: c.change_row("train", 0, redistribution=None),
        ["a value of redistribution is outside"],
    ),
    "empty box": (
        lambda c: c.change_row("test", 0, {"boxes": (dataclasses.replace(BOX, xyxy=(3, 2, 3, 4)),)}),
        ["busi/4/diagnosis has an empty box"],
    ),
    "box upside down": (
        lambda c: c.change_row("test", 0, {"boxes": (dataclasses.replace(BOX, xyxy=(1, 4, 3, 2)),)}),
        ["busi/4/diagnosis has an empty box"],
    ),
    "box left of the picture": (
        lambda c: c.change_row("test", 0, {"boxes": (dataclasses.replace(BOX, xyxy=(-1, 2, 3, 4)),)}),
        ["busi/4/diagnosis has an empty box"],
    ),
    "box of an image that is not there": (
        lambda c: c.change_row("test", 0, {"boxes": (dataclasses.replace(BOX, image=1),)}),
        ["busi/4/diagnosis has an empty box, or one of an image that is not there"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("defect", list(PLANTED))
def test_a_planted_defect_is_named(corpus: Corpus, defect: str) -> None:
    plant, said = PLANTED[defect]
    plant(corpus)
    problems = corpus.verify().problems
    assert problems
    assert any(all(part in problem for part in said) for problem in problems), problems
    assert not any("patient 0" in problem or str(corpus.raw.parent) in problem for problem in problems)


def test_defects_of_several_kinds_are_all_named(corpus: Corpus) -> None:
    flip_byte(corpus, 50)
    corpus.store.remove(corpus.path("test"))
    corpus.store.write("data/extra.parquet", b"")
    corpus.store.write(LEDGER, b"")
    assert len(corpus.verify().problems) == 4


def test_raw_files_that_changed_or_went_are_named_when_looked_at(corpus: Corpus) -> None:
    (corpus.raw / "1.png").write_bytes(PICTURE + b"!")
    (corpus.raw / "5.png").unlink()
    assert corpus.verify().problems == ()
    assert corpus.verify(deep=True).problems == (
        "busi: the raw file 1.png is not the one that was read",
        "busi: the raw file 5.png: the file is not there",
    )


def test_a_manifest_comes_back_as_it_was(corpus: Corpus) -> None:
    assert read_manifest(corpus.store) == corpus.manifest
    assert corpus.manifest.rows == 6


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "3", "null", "{}", '{"format": 1}', '{"format": 1, "sources": 3, "shards": []}', "\xff"]
)
def test_a_manifest_that_is_damaged_is_said_so(corpus: Corpus, text: str) -> None:
    corpus.store.write(MANIFEST, text.encode("latin-1"))
    with pytest.raises(CorpusError, match=r"manifest\.json is damaged"):
        read_manifest(corpus.store)


def test_a_manifest_of_another_format_is_not_read(corpus: Corpus) -> None:
    corpus.set_manifest(dataclasses.replace(corpus.manifest, format=99))
    with pytest.raises(CorpusError, match="format 99; this version reads 1"):
        read_manifest(corpus.store)


def test_an_unfinished_build_is_told_from_no_corpus_at_all(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="There is no corpus here"):
        read_manifest(Store(tmp_path))
    (tmp_path / ".qoq").mkdir()
    with pytest.raises(CorpusError, match="not finished"):
        read_manifest(Store(tmp_path))
