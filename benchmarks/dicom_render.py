"""``dicom_render``: films a second from DICOM files to stored JPEGs, beside the plain way and beside decoding alone.

The film has 2544 x 3056 pixels of 12 bits with a window, as digital mammography and radiography have them. Ours is
what a build does for a row: read, hash, check, window by a table, scale, encode. The plain way is
``pydicom.pixel_array``, ``apply_modality_lut``, ``apply_voi_lut``, scaling to 8 bits, Pillow's ``thumbnail`` and
``save``; the limit is reading the file and ``pixel_array`` alone. Compressed syntaxes stand in further rows, where
decoding rules; ours decodes them in a process of its own. The figure is that of the uncompressed films.
"""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

from benchmarks.harness import Result, seconds_in_turn
from qoq_data.clinical.synthetic_dicom import write_dicom
from qoq_data.corpus.references import MediaReference
from qoq_data.corpus.render import render_media
from qoq_data.formats.storage import Store
from qoq_data.recipe import Recipe, SourceRecipe

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

WIDTH, HEIGHT = 2544, 3056
FILMS, FILMS_QUICK = 4, 1
ROUNDS, ROUNDS_QUICK = 5, 1
COMPRESSED_ROUNDS = 2
_SYNTAXES = {
    "rle": "1.2.840.10008.1.2.5",
    "jpeg lossless": "1.2.840.10008.1.2.4.70",
    "jpeg-ls": "1.2.840.10008.1.2.4.80",
    "jpeg 2000 lossless": "1.2.840.10008.1.2.4.90",
}


def run(quick: bool) -> Result:
    films, rounds = (FILMS_QUICK, ROUNDS_QUICK) if quick else (FILMS, ROUNDS)
    rows = []
    with tempfile.TemporaryDirectory(prefix="qoq-bench-") as name:
        folder = Path(name)
        names = [f"film-{number}.dcm" for number in range(films)]
        for number, film in enumerate(names):
            (folder / film).write_bytes(film_file(draw_film(number)))
        uncompressed = _seconds(folder, names, rounds)
        rows.append(("uncompressed", *_figures(uncompressed, films)))
        for kind, syntax in _SYNTAXES.items():
            one = f"{kind.replace(' ', '-')}.dcm"
            (folder / one).write_bytes(compressed(folder / names[0], syntax))
            seconds = _seconds(folder, [one], min(rounds, COMPRESSED_ROUNDS))
            rows.append((kind, *_figures(seconds, 1)))
    return Result(
        name="dicom_render",
        ours=films / uncompressed["ours"],
        peer=films / uncompressed["plain"],
        limit=films / uncompressed["limit"],
        ratio=uncompressed["plain"] / uncompressed["ours"],
        unit="films/s",
        columns=("films", "ours ms", "plain ms", "decoding ms", "times plain", "of the limit"),
        rows=tuple(rows),
    )


def _figures(seconds: dict[str, float], films: int) -> tuple[str, ...]:
    each = [f"{1000 * seconds[way] / films:.1f}" for way in ("ours", "plain", "limit")]
    return (*each, f"{seconds['plain'] / seconds['ours']:.2f}", f"{seconds['limit'] / seconds['ours']:.2f}")


def _seconds(folder: Path, names: list[str], rounds: int) -> dict[str, float]:
    ways: dict[str, Callable[[], object]] = {
        "ours": lambda: ours(folder, names),
        "plain": lambda: plain(folder, names),
        "limit": lambda: decode(folder, names),
    }
    return seconds_in_turn(ways, rounds)


def draw_film(number: int) -> NDArray[np.uint16]:
    """uint16 [height, width] of 12 bits: broad shades and the noise of a detector."""
    rng = np.random.default_rng(number)
    shades = gaussian_filter(rng.random((HEIGHT // 16, WIDTH // 16)), 12)
    shades = (shades - shades.min()) / np.ptp(shades)
    film = np.kron(shades, np.ones((16, 16))) * 3600 + rng.normal(200, 12, (HEIGHT, WIDTH))
    return np.clip(film, 0, 4095).astype(np.uint16)


def film_file(film: NDArray[np.uint16]) -> bytes:
    """An uncompressed file of a film, with a rescale and a window."""
    window = {"WindowCenter": 2048, "WindowWidth": 3600, "RescaleSlope": 1, "RescaleIntercept": 0}
    attributes = {**window, "ImagerPixelSpacing": [0.1, 0.1]}
    return write_dicom(film, study="s", series="e", instance="i", kind="DX", bits_stored=12, attributes=attributes)


def compressed(path: Path, syntax: str) -> bytes:
    """The same film compressed: by gdcm where pydicom has no encoder."""
    import pydicom

    data_set = pydicom.dcmread(path)
    buffer = io.BytesIO()
    if syntax != _SYNTAXES["jpeg lossless"]:
        data_set.compress(syntax)
        data_set.save_as(buffer)
        return buffer.getvalue()
    import gdcm  # type: ignore[import-untyped]

    target = path.with_suffix(".gdcm")
    reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
    reader.SetFileName(str(path))
    assert reader.Read()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer.SetFileName(str(target))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    return target.read_bytes()


def ours(folder: Path, names: list[str]) -> None:
    tree, recipe = Store(folder), Recipe(name="made", sources=(SourceRecipe(name="made"),))
    for name in names:
        render_media(tree, [MediaReference("image", "dicom", name, "")], recipe)


def plain(folder: Path, names: list[str]) -> None:
    from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut

    for name in names:
        data_set, values = _decoded(folder / name)
        levels = apply_voi_lut(apply_modality_lut(values, data_set), data_set)
        levels -= levels.min()
        image = Image.fromarray((levels / levels.max() * 255).astype(np.uint8))
        image.thumbnail((1024, 1024))
        image.save(io.BytesIO(), "JPEG", quality=95)


def decode(folder: Path, names: list[str]) -> None:
    for name in names:
        _decoded(folder / name)


def _decoded(path: Path) -> tuple[Any, NDArray[Any]]:
    import pydicom

    data_set = pydicom.dcmread(path)
    return data_set, data_set.pixel_array
