"""E11: where any row came from can be shown, derived again, and compared, down to the raw file."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from qoq_data.corpus.manifest import read_manifest
from qoq_data.corpus.trace import Trace, trace_row
from qoq_data.engines.local import LocalEngine
from qoq_data.errors import UnknownNameError
from qoq_data.formats.storage import Store
from qoq_data.recipe import Recipe
from qoq_data.record import COLUMNS
from tests.corpus.building import MODULES, build, contents, make_inputs, make_recipe, record_path, rows_of, touch_later

Trees = Callable[[str], Path]


def trace(out: Path, trees: dict[str, Path], row_id: str) -> Trace:
    manifest = read_manifest(Store(out))
    recipe = Recipe.model_validate(manifest.recipe)
    return trace_row(Store(out), manifest, recipe, row_id, make_inputs(recipe, trees), LocalEngine())


@pytest.fixture
def trees(copied: Trees) -> dict[str, Path]:
    return {name: copied(name) for name in MODULES}


@pytest.fixture
def out(trees: dict[str, Path], tmp_path: Path) -> Path:
    keys = {"signals": {"resample_hz": 120, "window_s": 4, "paper": {"pixels_per_mm": 1}}, "masks": True}
    build(tmp_path / "out", make_recipe(*trees, shards={"rows": 8}, **keys), trees)
    return tmp_path / "out"


def test_e11_ten_random_rows_agree_with_their_raw_files(trees: dict[str, Path], out: Path) -> None:
    rows = rows_of(out)
    drawn = random.Random(11).sample(sorted(rows), 10)
    for name in MODULES:
        drawn.append(next(row_id for row_id in rows if row_id.startswith(f"{name}/")))
    before = contents(out)
    for row_id in drawn:
        found = trace(out, trees, row_id)
        assert found.agrees
        assert found.differing == ()
        assert set(found.files.values()) == {"agrees"}
        assert set(found.files) == {one["path"] for one in rows[row_id]["provenance"]}
        assert not any(Path(path).is_absolute() for path in found.files)
        assert (out / found.shard).is_file()
        taken = [one["taken"] for one in found.row["provenance"]]
        assert all(taken)
        if not row_id.startswith("busi/"):
            assert any("leads I II III" in one and "first 4 s" in one for one in taken)
    assert contents(out) == before


def test_a_changed_raw_file_is_named(trees: dict[str, Path], out: Path) -> None:
    data = record_path(trees["ptb-xl"], 5).with_suffix(".dat")
    spoilt = bytearray(data.read_bytes())
    spoilt[100] ^= 1
    data.write_bytes(spoilt)
    touch_later(data)
    row_id = next(row_id for row_id in rows_of(out) if row_id.startswith("ptb-xl/00005/"))
    found = trace(out, trees, row_id)
    assert not found.agrees
    assert [path for path, state in found.files.items() if state == "differs"] == ["records100/00000/00005_lr.dat"]
    assert found.differing == COLUMNS  # the checksum no longer holds, so there is no such row any more
    other = next(row_id for row_id in rows_of(out) if row_id.startswith("ptb-xl/00006/"))
    assert trace(out, trees, other).agrees


def test_a_changed_picture_differs_in_its_own_columns(trees: dict[str, Path], out: Path) -> None:
    from PIL import Image

    path = trees["busi"] / "Dataset_BUSI_with_GT/benign/benign (3)_mask.png"
    with Image.open(path) as image:
        shifted = image.convert("L").transform(image.size, Image.Transform.AFFINE, (1, 0, 3, 0, 1, 0))
    shifted.save(path)
    touch_later(path)
    found = trace(out, trees, "busi/benign-3/diagnosis")
    assert found.files["Dataset_BUSI_with_GT/benign/benign (3)_mask.png"] == "differs"
    assert found.differing == ("boxes", "masks", "provenance")


def test_a_changed_label_table_differs_in_the_answer(trees: dict[str, Path], out: Path) -> None:
    table = trees["ptb-xl"] / "ptbxl_database.csv"
    text = table.read_text()
    assert "{'AFIB': 0.0}" in text
    table.write_text(text.replace("{'AFIB': 0.0}", "{'AFLT': 0.0}"))
    touch_later(table)
    row_id = next(
        row_id
        for row_id, row in rows_of(out).items()
        if row_id.endswith("/rhythm") and row["answer"] == ["Atrial fibrillation"] and row_id.startswith("ptb-xl")
    )
    found = trace(out, trees, row_id)
    assert found.differing == ("answer", "provenance")
    assert found.files["ptbxl_database.csv"] == "differs"


def test_an_absent_raw_file_is_said(trees: dict[str, Path], out: Path) -> None:
    record_path(trees["ptb-xl"], 5).with_suffix(".dat").unlink()
    row_id = next(row_id for row_id in rows_of(out) if row_id.startswith("ptb-xl/00005/"))
    found = trace(out, trees, row_id)
    assert found.files["records100/00000/00005_lr.dat"] == "absent"
    assert found.differing is None
    assert not found.agrees
    shutil.rmtree(trees["busi"])
    assert trace(out, trees, "busi/benign-3/diagnosis").differing is None


def test_trace_writes_nothing(trees: dict[str, Path], out: Path) -> None:
    """A corpus may be read-only, or be building: what the inspect step finds on the way is not kept."""
    from tests.corpus.building import every_file

    touch_later(trees["busi"] / "Dataset_BUSI_with_GT/benign/benign (3).png")
    before = every_file(out)
    assert trace(out, trees, "busi/benign-3/diagnosis").agrees
    assert every_file(out) == before


@pytest.mark.parametrize("row_id", ["nothing/1/2", "ptb-xl/99999/rhythm", "", "ptb-xl", "busi/benign-3/form"])
def test_an_unknown_id_is_a_usage_error(row_id: str, trees: dict[str, Path], out: Path) -> None:
    with pytest.raises(UnknownNameError, match="There is no row"):
        trace(out, trees, row_id)
