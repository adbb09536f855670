"""``nifti_read``: gzipped volumes a second from file to array, beside nibabel's ``get_fdata``.

A CT of 100 slices of 512 x 512 in int16 and its label volume in uint8, compressed as most writers do (gzip, level 6).
Ours checks what the header claims, inflates with ISA-L and keeps the stored integers; the peer gives float64, as most
conversions read. The limit is inflating the same bytes and nothing else.
"""

from __future__ import annotations

import gzip
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.ndimage import gaussian_filter

from benchmarks.harness import Result, seconds_in_turn
from qoq_data.formats.nifti import read_labels, read_volume
from qoq_data.formats.nifti_write import nifti_bytes
from qoq_data.formats.storage import Store

if TYPE_CHECKING:
    from numpy.typing import NDArray

SHAPE, SHAPE_QUICK = (512, 512, 100), (128, 128, 20)
ROUNDS, ROUNDS_QUICK = 5, 1
_AFFINE = np.diag([-0.8, -0.8, 5.0, 1.0])


def run(quick: bool) -> Result:
    shape, rounds = (SHAPE_QUICK, ROUNDS_QUICK) if quick else (SHAPE, ROUNDS)
    rows, totals = [], dict.fromkeys(("ours", "dataobj", "get_fdata", "limit"), 0.0)
    with tempfile.TemporaryDirectory(prefix="qoq-bench-") as name:
        folder = Path(name)
        for kind, values in (("image, int16", ct(shape)), ("labels, uint8", labels(shape))):
            path = folder / f"{kind.split(',')[0]}.nii.gz"
            path.write_bytes(gzip.compress(nifti_bytes(values, _AFFINE, compressed=False), 6, mtime=0))
            seconds = _seconds(path, rounds)
            for way, spent in seconds.items():
                totals[way] += spent
            rows.append((kind, f"{path.stat().st_size / 1e6:.1f}", *_figures(seconds)))
    rows.append(("both", "", *_figures(totals)))
    return Result(
        name="nifti_read",
        ours=2 / totals["ours"],
        peer=2 / totals["get_fdata"],
        limit=2 / totals["limit"],
        ratio=totals["get_fdata"] / totals["ours"],
        unit="volumes/s",
        columns=("volume", "MB", "ours ms", "dataobj ms", "get_fdata ms", "inflating ms", "times get_fdata"),
        rows=tuple(rows),
    )


def _figures(seconds: dict[str, float]) -> tuple[str, ...]:
    each = [f"{1000 * seconds[way]:.1f}" for way in ("ours", "dataobj", "get_fdata", "limit")]
    return (*each, f"{seconds['get_fdata'] / seconds['ours']:.2f}")


def ct(shape: tuple[int, int, int]) -> NDArray[np.int16]:
    """Noise of CT round smooth shapes, in Hounsfield units."""
    rng = np.random.default_rng(4)
    values = rng.normal(0, 12, shape)
    values += gaussian_filter(rng.normal(0, 1, shape), (12, 12, 2)) * 4000
    values[np.hypot(*np.meshgrid(*(np.linspace(-1, 1, side) for side in shape[:2]), indexing="ij")) > 0.9] = -1024
    return np.clip(values, -1024, 3071).astype(np.int16)


def labels(shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Three kinds of structure in a tenth of the volume."""
    field = gaussian_filter(np.random.default_rng(5).normal(0, 1, shape), (20, 20, 3))
    return np.asarray(np.digitize(field, np.quantile(field, (0.9, 0.97, 0.99))), np.uint8)


def _seconds(path: Path, rounds: int) -> dict[str, float]:
    import nibabel as nib
    from isal import igzip_lib

    tree, data = Store(path.parent), path.read_bytes()
    reader = read_labels if path.name.startswith("labels") else read_volume

    def peer() -> NDArray[Any]:
        return np.asarray(nib.Nifti1Image.from_filename(path).get_fdata())

    def inflate() -> None:
        stream = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
        stream.decompress(data, max_length=1 << 20)
        while not stream.eof:
            stream.decompress(b"", max_length=1 << 20)

    ours = reader(tree.read(path.name), path.name).values
    assert np.array_equal(ours, peer())
    return seconds_in_turn(
        {
            "ours": lambda: reader(tree.read(path.name), path.name),
            "dataobj": lambda: np.asarray(nib.Nifti1Image.from_filename(path).dataobj),
            "get_fdata": peer,
            "limit": inflate,
        },
        rounds,
    )
