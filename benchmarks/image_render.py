"""``image_render``: pictures a second from raw files to a finished shard, beside plain Pillow with ``datasets``.

Kinds of picture as the sources ship them: a grey JPEG and a colour JPEG within the budget, a PNG with a mask, a JPEG
nearly four times over the budget and a chest film of twelve times, which are scaled and encoded again. Ours checks,
hashes, makes boxes and writes the rows as a build does; the plain way opens with Pillow, scales, saves, and writes with
``datasets``; the limit is decoding the same files in full and nothing else. All files are read from memory; nothing is
synced.
"""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from benchmarks.harness import Result, seconds_in_turn
from qoq_data.clinical.synthetic_image import Scene, Spot, draw_scene
from qoq_data.corpus.references import MediaReference
from qoq_data.corpus.render import render_media
from qoq_data.corpus.shard import Row, rows_to_table, write_table
from qoq_data.formats.image import encode_image
from qoq_data.formats.storage import Store
from qoq_data.recipe import Recipe, SourceRecipe

if TYPE_CHECKING:
    from collections.abc import Callable

COPIES, COPIES_QUICK = 16, 2
ROUNDS, ROUNDS_QUICK = 5, 1
_SIZES = {
    "grey jpeg": (390, 320),
    "colour jpeg": (600, 450),
    "png and mask": (500, 400),
    "large jpeg": (1600, 1200),
    "grey film": (2320, 2828),
}
_TEXT: dict[str, Any] = {
    "id": "made/0/kind", "source": "made", "source_version": "1", "domain": "dermatology", "modality": "picture",
    "task": "kind", "split": "train", "patient": None, "study": None, "question": "Which?", "choices": ["a", "b"],
    "answer": ["a"], "answer_type": "one", "tolerance": None, "context": "", "licence": "CC0-1.0",
    "redistribution": "open",
}  # fmt: skip


def run(quick: bool) -> Result:
    copies, rounds = (COPIES_QUICK, ROUNDS_QUICK) if quick else (COPIES, ROUNDS)
    with tempfile.TemporaryDirectory(prefix="qoq-bench-") as name:
        folder = Path(name)
        kinds = write_pictures(folder, copies)
        seconds = {kind: _seconds(folder, items, rounds) for kind, items in kinds.items()}
    rows = []
    totals = dict.fromkeys(("ours", "plain", "limit"), 0.0)
    for kind, of_kind in seconds.items():
        for way, spent in of_kind.items():
            totals[way] += spent
        rows.append((kind, *_figures(of_kind, copies)))
    pictures = copies * len(kinds)
    rows.append(("all of them", *_figures(totals, pictures)))
    return Result(
        name="image_render",
        ours=pictures / totals["ours"],
        peer=pictures / totals["plain"],
        limit=pictures / totals["limit"],
        ratio=totals["plain"] / totals["ours"],
        unit="pictures/s",
        columns=("pictures", "ours ms", "plain ms", "decoding ms", "times plain", "of the limit"),
        rows=tuple(rows),
    )


def _figures(seconds: dict[str, float], pictures: int) -> tuple[str, ...]:
    each = [f"{1000 * seconds[way] / pictures:.2f}" for way in ("ours", "plain", "limit")]
    ours = seconds["ours"]
    return (*each, f"{seconds['plain'] / ours:.2f}", f"{seconds['limit'] / ours:.2f}")


def write_pictures(folder: Path, copies: int) -> dict[str, list[list[MediaReference]]]:
    """Generated pictures on disk, ``copies`` of each kind, as the media of items."""
    kinds: dict[str, list[list[MediaReference]]] = {}
    for kind, (width, height) in _SIZES.items():
        items = kinds.setdefault(kind, [])
        for number in range(copies):
            rng = np.random.default_rng([number, width])
            scene = Scene(0.5, (1.1, 0.95, 0.9), spots=(Spot((0.5, 0.5), (0.2, 0.15)),))
            pixels, masks = draw_scene(scene, width, height, rng)
            stem = f"{kind.replace(' ', '-')}-{number}"
            if kind.startswith("grey"):
                pixels = np.ascontiguousarray(pixels[..., 0])
            suffix = "png" if kind == "png and mask" else "jpg"
            data = encode_image(pixels, "PNG" if suffix == "png" else "JPEG", 90)
            (folder / f"{stem}.{suffix}").write_bytes(data)
            item = [MediaReference("image", "image", f"{stem}.{suffix}", "")]
            if suffix == "png":
                Image.fromarray(masks[0]).save(folder / f"{stem}-mask.png")
                item.append(MediaReference("mask", "mask", f"{stem}-mask.png", "lesion"))
            items.append(item)
    return kinds


def _seconds(folder: Path, items: list[list[MediaReference]], rounds: int) -> dict[str, float]:
    ways: dict[str, Callable[[], object]] = {
        "ours": lambda: ours(folder, items),
        "plain": lambda: plain(folder, items),
        "limit": lambda: decode(folder, items),
    }
    return seconds_in_turn(ways, rounds)


def ours(folder: Path, items: list[list[MediaReference]]) -> None:
    tree, recipe = Store(folder), Recipe(name="made", sources=(SourceRecipe(name="made"),))
    rows = [Row(_TEXT, render_media(tree, item, recipe)) for item in items]
    with (folder / "ours.parquet").open("wb") as file:
        write_table(rows_to_table(rows), file, "lz4")


def plain(folder: Path, items: list[list[MediaReference]]) -> None:
    import datasets

    rows = []
    for item in items:
        image = Image.open(folder / item[0].path).convert("RGB")
        image.thumbnail((1024, 1024))
        data = io.BytesIO()
        image.save(data, "JPEG", quality=95)
        rows.append({**_TEXT, "images": [{"bytes": data.getvalue(), "path": None}]})
    features = datasets.Features(
        {
            name: datasets.List(datasets.Value("string")) if isinstance(value, list) else datasets.Value("string")
            for name, value in _TEXT.items()
        }
        | {"images": datasets.List(datasets.Image())}
    )
    datasets.Dataset.from_list(rows, features=features).to_parquet(str(folder / "plain.parquet"))


def decode(folder: Path, items: list[list[MediaReference]]) -> None:
    for item in items:
        for reference in item:
            with Image.open(folder / reference.path) as image:
                image.load()
