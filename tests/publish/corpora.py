"""A small finished corpus made of rows: two sources, sides that one of them lacks, a gap in a signal, a box."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

import numpy as np

from qoq_data.clinical.leads import STANDARD_12
from qoq_data.corpus.manifest import MANIFEST, Manifest, ShardEntry, SourceEntry
from qoq_data.corpus.shard import Row, rows_to_table, table_to_parquet
from qoq_data.formats.image import encode_image
from qoq_data.formats.storage import Store
from qoq_data.licence import strictest
from qoq_data.record import MISSING, BoxOnImage, Media, Provenance, QualityFinding, Signal, View
from qoq_data.source import Source
from qoq_data.sources import busi, ptb_xl, source_of

PTB_XL = source_of(ptb_xl)
BUSI = source_of(busi)
SAMPLES = 500
GAP = slice(100, 140)


def ecg_row(number: int, split: str, task: str = "superclass", answer: tuple[str, ...] = ("Normal ECG",)) -> Row:
    time_s = np.arange(SAMPLES) / 100
    beats = np.exp(-(((time_s % 0.8) - 0.4) ** 2) / 0.0008)
    samples = np.stack([np.round(800 * (lead + 1) / 12 * beats) for lead in range(12)]).astype(np.int16)
    samples[3, GAP] = MISSING
    signal = Signal(STANDARD_12, 100.0, "mV", samples, (0.001,) * 12, (0.0,) * 12)
    provenance = Provenance("ecg", f"records100/{number:05d}_lr.dat", "0" * 64, "the whole recording")
    media = Media(
        signals=(signal,), quality=(QualityFinding("missing_samples", "aVR", 40.0),), provenance=(provenance,)
    )
    choices = tuple(choice.text for choice in PTB_XL.spec.task(task).choices)
    return _row(PTB_XL, number, split, task, choices, answer, media, "Age: 56 years; sex: male")


def picture_row(number: int, split: str, label: str = "Benign") -> Row:
    pixels = np.full((60, 90, 3), 40, np.uint8)
    pixels[20:40, 30:70] = 200
    provenance = Provenance("image", f"{label.lower()} ({number}).png", "0" * 64, "the whole picture")
    media = Media(
        images=(encode_image(pixels, "PNG"),),
        views=(View(),),
        boxes=(BoxOnImage("lesion", 0, (30, 20, 70, 40)),),
        provenance=(provenance,),
    )
    return _row(BUSI, number, split, "diagnosis", ("Normal", "Benign", "Malignant"), (label,), media, "")


def _row(
    source: Source,
    number: int,
    split: str,
    task: str,
    choices: tuple[str, ...],
    answer: tuple[str, ...],
    media: Media,
    context: str,
) -> Row:
    spec = source.spec
    licence, redistribution = strictest(spec.licences.values())
    text = {
        "id": f"{spec.name}/{number:05d}/{task}",
        "source": spec.name,
        "source_version": spec.versions[0].name,
        "domain": str(spec.domain),
        "modality": spec.modality,
        "task": task,
        "split": split,
        "patient": None,
        "study": None,
        "question": spec.task(task).wordings[0],
        "choices": list(choices),
        "answer": list(answer),
        "answer_type": str(spec.task(task).answer_type),
        "tolerance": None,
        "context": context,
        "licence": licence,
        "redistribution": str(redistribution),
    }
    return Row(text, media)


def default_rows() -> list[Row]:
    ecgs = [
        ecg_row(1, "train"),
        ecg_row(2, "train", answer=("Myocardial infarction", "Hypertrophy")),
        ecg_row(3, "train", "rhythm", ("atrial fibrillation",)),
        ecg_row(4, "test"),
    ]
    return [*ecgs, picture_row(1, "train"), picture_row(2, "train", "Malignant"), picture_row(3, "validation")]


def write_corpus(folder: Path, rows: list[Row], synthetic: tuple[str, ...] = ()) -> Manifest:
    """Shards and manifest of the rows, as a build leaves them, without a card."""
    corpus = Store(folder)
    shards = []
    for source, split in sorted({(row.text["source"], row.text["split"]) for row in rows}):
        mine = [row for row in rows if (row.text["source"], row.text["split"]) == (source, split)]
        data = table_to_parquet(rows_to_table(mine), "lz4")
        path = f"data/{source}/{split}-0123456789abcdef.parquet"
        corpus.write(path, data)
        shards.append(ShardEntry(path, source, split, len(mine), len(data), hashlib.sha256(data).hexdigest()))
    entries = [_entry(name, rows, name in synthetic) for name in dict.fromkeys(row.text["source"] for row in rows)]
    recipe = {"name": "small", "sample": 1.0, "signals": {"paper": None}, "patient_key": "a-secret-key"}
    manifest = Manifest("small", "0.0.1", recipe, tuple(entries), tuple(shards))
    corpus.write(MANIFEST, manifest.to_json().encode())
    return manifest


def _entry(name: str, rows: list[Row], synthetic: bool) -> SourceEntry:
    mine = [row for row in rows if row.text["source"] == name]
    labels: dict[str, Counter[str]] = {}
    for row in mine:
        labels.setdefault(row.text["task"], Counter()).update(row.text["answer"])
    return SourceEntry(
        name=name,
        version=mine[0].text["source_version"],
        items=len(mine) + 7,
        patients=len(mine),
        rows=len(mine),
        skipped={"file_missing": 7},
        splits=dict(Counter(row.text["split"] for row in mine)),
        tasks=dict(Counter(row.text["task"] for row in mine)),
        labels={task: dict(counts) for task, counts in labels.items()},
        quality={"missing_samples": len(mine)} if name == "ptb-xl" else {},
        moved=1234,
        synthetic=synthetic,
        statistics={f"unknown statement: a|b *{place}*": place for place in range(40)} if name == "ptb-xl" else {},
    )
