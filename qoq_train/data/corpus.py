"""A built corpus as training sees it: its rows as examples, in an order, their media read when they are needed.

What is small of every row (ids, texts, boxes) is held in memory, texts once however many rows share them: some 100 to
150 bytes a row. Media are read by row group, and the groups of one shuffle window are kept, some 32 MB each.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import count
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from PIL import Image

from qoq_data.corpus.draws import draws
from qoq_data.corpus.manifest import MANIFEST, Manifest, ShardEntry, read_manifest
from qoq_data.errors import CorpusError, Reason, RecordError, UnknownNameError, UsageError
from qoq_data.formats.storage import Store
from qoq_data.licence import Redistribution
from qoq_data.recipe_text import nearest
from qoq_data.record import AnswerType, BoxOnImage, Domain, Split
from qoq_train.answers import AnswerKey
from qoq_train.data.label_maps import marked_pixels, read_label_maps
from qoq_train.data.order import TrainingOrder
from qoq_train.data.pictures import drawn_signals, stored_pictures
from qoq_train.data.shards import (
    DAMAGED,
    LISTS,
    Kept,
    RowGroupCache,
    ShardSurvey,
    read_media,
    read_small_columns,
    split_texts,
    survey_shard,
)
from qoq_train.recipe import DataRecipe

_TEXT_DOMAINS = (Domain.EHR, Domain.MULTIMODAL)  # in which a row may be text alone
_HINTS = {
    Reason.LEAD_MISSING: "Set data.ecg_layout to column.",
    Reason.MASK_CONFLICT: "Set rewards.box_truth to boxes.",
}


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """One row: what is asked, what is shown and what is true.

    ``boxes`` are in pixels of ``pictures``, which are as stored. ``boxes_known`` tells a picture without anything to
    mark (True, no boxes) from one where nobody looked: a mask was read for the row, or it has boxes.
    ``source_has_boxes`` says that this holds of any row of its source in the corpus. ``masks`` [height, width] say for
    each picture which of its pixels are marked; none where the row stores no label maps, or they were not asked for.
    """

    row_id: str
    source: str
    domain: Domain
    task: str
    patient: str
    question: str
    context: str
    choices: tuple[str, ...]
    answer: tuple[str, ...]
    answer_type: AnswerType
    tolerance: float | None
    boxes: tuple[BoxOnImage, ...]
    boxes_known: bool
    source_has_boxes: bool
    licence: str
    redistribution: Redistribution
    pictures: tuple[Image.Image, ...] = ()
    masks: tuple[NDArray[np.bool_], ...] = ()

    @property
    def key(self) -> AnswerKey:
        """What completions are judged by."""
        return AnswerKey(self.choices, self.answer, self.answer_type, self.tolerance)


class Corpus:
    """A folder that ``qoq-data`` built, filtered by a recipe's ``sources`` and ``tasks``.

    ``with_masks`` reads the label maps of its rows beside their pictures.
    Raises ``CorpusError`` where it is missing, unfinished or damaged, and ``UnknownNameError`` for a source or a task
    that it does not hold.
    """

    def __init__(self, recipe: DataRecipe, *, with_masks: bool = False) -> None:
        self.recipe = recipe
        self.with_masks = with_masks
        self.store = Store(recipe.corpus)
        self.manifest: Manifest = read_manifest(self.store)
        self.manifest_sha256 = hashlib.sha256(self.store.read(MANIFEST)).hexdigest()
        sources = {entry.name: entry for entry in self.manifest.sources}
        _check_names("source", recipe.sources, list(sources))
        self.sources = tuple(name for name in sources if recipe.sources is None or name in recipe.sources)
        tasks = sorted({task for name in self.sources for task in sources[name].tasks})
        _check_names("task", recipe.tasks, tasks)
        self.tasks = tuple(task for task in tasks if recipe.tasks is None or task in recipe.tasks)

    def rows(self, split: Split) -> SplitRows:
        """The rows of a split that pass the filters; there may be none."""
        return SplitRows(self, split)

    @property
    def licence(self) -> str:
        """Every licence of the rows of the chosen sources, the strictest first, joined by SPDX's ``AND``."""
        names = [name for expression, _ in self._terms for name in expression.split(" AND ")]
        return " AND ".join(dict.fromkeys(names))

    @property
    def redistribution(self) -> Redistribution:
        """What may be passed on of something made from the chosen sources: as little as of their strictest row."""
        return self._terms[0][1] if self._terms else Redistribution.NONE

    @property
    def sources_with_boxes(self) -> frozenset[str]:
        """The chosen sources of which any row, in any split, has boxes or a mask."""
        return frozenset(source for source, survey in self._surveys if survey.has_known_boxes)

    @cached_property
    def _surveys(self) -> list[tuple[str, ShardSurvey]]:
        return [(shard.source, survey_shard(self.store, shard)) for shard in self.shards()]

    @cached_property
    def _terms(self) -> list[tuple[str, Redistribution]]:
        """Licence expressions, the strictest first."""
        strictest_first = list(Redistribution)
        found = {term for _, survey in self._surveys for term in survey.terms}
        return sorted(found, key=lambda term: (strictest_first.index(term[1]), term[0]))

    def shards(self, split: Split | None = None) -> list[ShardEntry]:
        """The shards of the chosen sources."""
        return [s for s in self.manifest.shards if s.source in self.sources and split in (None, s.split)]


class SplitRows:
    """The rows of one split: ``len``, any one of them by its place, or batches of them in training order."""

    def __init__(self, corpus: Corpus, split: Split) -> None:
        self.split = split
        self._recipe = corpus.recipe
        self._sources_with_boxes = corpus.sources_with_boxes
        self._groups: list[tuple[ShardEntry, int, Kept | None]] = []
        tables = []
        for shard in corpus.shards(split):
            table, sizes = read_small_columns(corpus.store, shard)
            first = 0
            for group, size in enumerate(sizes):
                of_group = table.slice(first, size)
                first += size
                kept = np.flatnonzero(pc.is_in(of_group["task"], pa.array(corpus.tasks, pa.string())))
                if kept.size:
                    whole = kept.size == of_group.num_rows
                    tables.append(of_group if whole else of_group.take(kept))
                    self._groups.append((shard, group, None if whole else kept.astype(np.int32)))
        held = pa.concat_tables(tables).unify_dictionaries().combine_chunks() if tables else None
        self._table: pa.Table | None = held
        self._ends = np.cumsum([table.num_rows for table in tables], dtype=np.int64)
        self._media = RowGroupCache(corpus.store, corpus.recipe.shuffle_window, read_media)
        self._label_maps = (
            RowGroupCache(corpus.store, corpus.recipe.shuffle_window, read_label_maps) if corpus.with_masks else None
        )

    def __len__(self) -> int:
        return int(self._ends[-1]) if self._ends.size else 0

    @property
    def nbytes(self) -> int:
        """Memory that the rows take without their media."""
        return self._table.nbytes if self._table is not None else 0

    def example(self, place: int) -> Example:
        """The row at a place, with its pictures; raises ``CorpusError`` naming the row for what cannot be right."""
        example = self._without_pictures(place)
        try:
            pictures = self._pictures(place)
            if not pictures and example.domain not in _TEXT_DOMAINS:
                raise RecordError(Reason.FILE_MISSING, "it has neither an image nor a signal")
            masks = self._masks(place, pictures)
        except RecordError as error:
            hint = _HINTS.get(error.reason, DAMAGED)
            raise CorpusError(f"{example.row_id}: {error.detail} ({error.reason}). {hint}") from error
        return replace(_with_pictures(example, pictures), masks=masks)

    def batches(
        self, size: int, start_step: int = 0, *, seed: int, rank: int = 0, ranks: int = 1
    ) -> Iterator[list[Example]]:
        """The share of ``rank`` in the batch of step ``start_step`` and of every later one, without end.

        Every row comes once an epoch; a batch in which an epoch ends is filled up from the next. What came before
        ``start_step`` is not read. The shares of all ranks, one after the other, are the same for any ``ranks``.
        Raises ``UsageError`` where there is no row.
        """
        order = self.order(seed)
        shares = (order.batch(step, size, rank, ranks) for step in count(start_step))
        return ([self.example(place) for place in share.tolist()] for share in shares)

    def order(self, seed: int) -> TrainingOrder:
        """The training order of a seed; raises ``UsageError`` where there is no row."""
        if not len(self):
            raise UsageError(f"The corpus has no row in {self.split} that passes data.sources and data.tasks.")
        return TrainingOrder(np.diff(self._ends, prepend=0).tolist(), seed, self._recipe.shuffle_window)

    def steps(self, size: int, epochs: float = 1.0) -> int:
        """Steps of ``size`` rows in which every row has come ``epochs`` times."""
        return int(np.ceil(len(self) * epochs / size))

    def sample(self, most: int | None, seed: int) -> NDArray[np.int64]:
        """Places of at most so many rows, in the order in which they lie; which ones follows from seed and ids."""
        if most is None or most >= len(self) or self._table is None:
            return np.arange(len(self))
        drawn = draws(seed, "evaluation rows", self._table["id"].to_pylist())
        return np.sort(np.argsort(drawn, kind="stable")[:most])

    def texts(self, column: str) -> list[str]:
        """The distinct texts of ``question``, ``choices``, ``answer``, ``task`` or of the boxes' labels, sorted."""
        if self._table is None:
            return []
        if column == "boxes":
            return sorted(pc.unique(pc.struct_field(pc.list_flatten(self._table["boxes"]), "label")).to_pylist())
        found = self._table[column].unique().to_pylist()
        return sorted({text for texts in found for text in (split_texts(texts) if column in LISTS else (texts,))})

    def choice_lists(self) -> list[tuple[str, ...]]:
        """The distinct lists of choices."""
        return [] if self._table is None else [split_texts(t) for t in self._table["choices"].unique().to_pylist()]

    def _without_pictures(self, place: int) -> Example:
        if self._table is None or not 0 <= place < len(self):
            raise ValueError(f"there is no row {place} of {len(self)}")
        row = self._table.slice(place, 1).to_pylist()[0]
        try:
            example = Example(
                row_id=row["id"],
                source=row["source"],
                domain=Domain(row["domain"]),
                task=row["task"],
                patient=row["patient"] or "",
                question=row["question"],
                context=row["context"] or "",
                choices=split_texts(row["choices"]),
                answer=split_texts(row["answer"]),
                answer_type=AnswerType(row["answer_type"]),
                tolerance=row["tolerance"],
                boxes=_boxes(row["boxes"]),
                boxes_known=row["boxes_known"],
                source_has_boxes=row["source"] in self._sources_with_boxes,
                licence=row["licence"],
                redistribution=Redistribution(row["redistribution"]),
            )
            if not (example.question or "").strip():
                raise ValueError("it has no question")
            _ = example.key
        except ValueError as error:
            raise CorpusError(f"{row['id']}: {error}. {DAMAGED}") from error
        return example

    def _pictures(self, place: int) -> tuple[Image.Image, ...]:
        """Stored images as they are; a signal only where there is none, for then it is drawn."""
        group, inside = self._group_of(place)
        media = self._media.get(*group)
        images = media["images"][inside].as_py()
        if images:
            return stored_pictures(images)
        return drawn_signals(media["signals"][inside], self._recipe)

    def _masks(self, place: int, pictures: Sequence[Image.Image]) -> tuple[NDArray[np.bool_], ...]:
        if self._label_maps is None:
            return ()
        group, inside = self._group_of(place)
        return marked_pixels(self._label_maps.get(*group)[inside].as_py(), [picture.size for picture in pictures])

    def _group_of(self, place: int) -> tuple[tuple[ShardEntry, int, Kept | None], int]:
        """The row group of a row, and its number in what is kept of it."""
        group = int(np.searchsorted(self._ends, place, side="right"))
        return self._groups[group], place - (int(self._ends[group - 1]) if group else 0)


def _check_names(kind: str, wanted: Sequence[str] | None, known: list[str]) -> None:
    for name in wanted or ():
        if name not in known:
            raise UnknownNameError(f"data.{kind}s: the corpus has no {kind} {name!r}.{nearest(name, known)}")


def _boxes(stored: Sequence[Mapping[str, Any]] | None) -> tuple[BoxOnImage, ...]:
    boxes = stored or ()
    if any(box is None or box["label"] is None or box["image"] is None or box["xyxy"] is None for box in boxes):
        raise ValueError("a box lacks its label or its place")
    return tuple(BoxOnImage(b["label"], b["image"], tuple(b["xyxy"]), b["agreement"]) for b in boxes)


def _with_pictures(example: Example, pictures: tuple[Image.Image, ...]) -> Example:
    for box in example.boxes:
        x0, y0, x1, y1 = box.xyxy
        size = pictures[box.image].size if 0 <= box.image < len(pictures) else (0, 0)
        if not (0 <= x0 < x1 <= size[0] and 0 <= y0 < y1 <= size[1]):
            raise CorpusError(f"{example.row_id}: a box is empty or leaves its picture. {DAMAGED}")
    return replace(example, pictures=pictures)
