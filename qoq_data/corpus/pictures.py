"""One picture, or one set of named structures on it, out of whatever file it is published in.

The one place that knows which reader a kind of medium has. Rendering and the inspect step both read through it, so that
what was compared is what is stored.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qoq_data.clinical.boxes import align_mask
from qoq_data.clinical.label_maps import named_masks, parse_names
from qoq_data.clinical.tiling import Window
from qoq_data.corpus.references import MediaReference
from qoq_data.errors import Reason, RecordError
from qoq_data.formats.image import MAX_PIXELS, DecodedImage, Fit, decode_image, decode_label_map, decode_mask
from qoq_data.formats.storage import Store

IMAGE_FILE_LIMIT = 1 << 29

TILED_PIXELS = 89_478_485
"""Most pixels of a picture that is read in windows, and of its label map: what Pillow allows at most."""

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class ReadPicture:
    """A picture, the sha256 of its file, and the file's bytes where they may stand for the picture."""

    decoded: DecodedImage
    sha256: str
    original: bytes | None


@dataclass(frozen=True, slots=True)
class Layer:
    """Where one structure is in the part of the picture that is rendered."""

    label: str
    mask: Mask


@dataclass(frozen=True, slots=True)
class ReadLayers:
    """The structures of a mask or label map, the sha256 of its file, and what was done to it in words."""

    layers: tuple[Layer, ...]
    sha256: str
    taken: tuple[str, ...]


def read_picture(tree: Store, reference: MediaReference, fit: Fit | None = None) -> ReadPicture:
    """The picture that a medium of one of ``source.PICTURE_KINDS`` holds; ``fit`` as for ``decode_image``.

    Raises ``RecordError``: what the reader of its kind raises.
    """
    data = tree.read(reference.path, IMAGE_FILE_LIMIT)
    digest = hashlib.sha256(data).hexdigest()
    if reference.window is not None:
        decoded = _tiled_picture(data, reference.path)
    else:
        decoded = decode_image(data, reference.path, fit=fit)
    return ReadPicture(decoded, digest, data if decoded.untouched else None)


def read_layers(tree: Store, reference: MediaReference, full: tuple[int, int], window: Window | None) -> ReadLayers:
    """The structures that a mask or label map marks on a picture of ``full`` size (width, height), in its ``window``.

    Raises ``RecordError``: what the readers raise, and MASK_SHAPE_MISMATCH.
    """
    data = tree.read(reference.path, IMAGE_FILE_LIMIT)
    digest = hashlib.sha256(data).hexdigest()
    cut = window or (0, 0, *full)
    part = np.s_[cut[1] : cut[3], cut[0] : cut[2]]
    taken = f"the window {span(window)}" if window else "the whole mask"
    if reference.kind == "label_map":
        labels = decode_label_map(data, reference.path) if window is None else _tiled_labels(data, reference.path)
        if labels.shape != full[::-1]:
            detail = f"the label map is {labels.shape[1]} x {labels.shape[0]}, its picture {full[0]} x {full[1]}"
            raise RecordError(Reason.MASK_SHAPE_MISMATCH, detail, reference.path)
        named = named_masks(labels[part], parse_names(reference.part))
        layers = tuple(Layer(name, mask) for name, mask in named)
        return ReadLayers(layers, digest, (taken, f"values {reference.part}"))
    try:
        aligned, note = align_mask(decode_mask(data, reference.path), full)
    except RecordError as error:
        raise RecordError(error.reason, error.detail, reference.path) from error
    if note:
        return ReadLayers((Layer(reference.part, aligned[part]),), digest, (note, taken) if window else (note,))
    return ReadLayers((Layer(reference.part, aligned[part]),), digest, (taken,))


def span(window: Window) -> str:
    """A window in words."""
    return f"{window[0]},{window[1]} to {window[2]},{window[3]}"


@lru_cache(maxsize=1)
def _tiled_picture(data: bytes, path: str) -> DecodedImage:
    """The last picture that was read in windows: those of one stand one after the other in a shard."""
    return decode_image(data, path, max_pixels=max(MAX_PIXELS, TILED_PIXELS))


def read_tiled_labels(data: bytes, path: str) -> NDArray[np.integer[Any]]:
    """Values [height, width] of a label map as large as a tiled picture, in a byte each where they fit."""
    labels = decode_label_map(data, path, max_pixels=max(MAX_PIXELS, TILED_PIXELS))
    return labels.astype(np.uint8) if labels.max(initial=0) <= 255 else labels


_tiled_labels = lru_cache(maxsize=1)(read_tiled_labels)
