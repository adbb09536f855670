"""One picture, or one set of named structures on it, out of whatever file it is published in.

The one place that knows which reader a kind of medium has. Rendering and the inspect step both read through it, so that
what was compared is what is stored.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from qoq_data.clinical.boxes import align_mask
from qoq_data.clinical.dicom_picture import decode_dicom
from qoq_data.clinical.label_maps import named_masks, parse_names
from qoq_data.clinical.tiling import Window
from qoq_data.clinical.volume_boxes import InstanceMap, find_instances, parse_volume_names, sections
from qoq_data.clinical.volumes import NORMAL_AXIS, VIEWS, check_agreement, grey_slice, slice_spacing, to_canonical
from qoq_data.corpus.references import MediaReference
from qoq_data.errors import Reason, RecordError
from qoq_data.formats.dicom import decode_dicom_mask
from qoq_data.formats.dicom_file import read_dicom_file, read_header
from qoq_data.formats.dicom_segments import (
    PLACE_KEYWORDS,
    Segmentation,
    is_segmentation,
    picture_place,
    read_segmentation,
)
from qoq_data.formats.image import MAX_PIXELS, DecodedImage, Fit, decode_image, decode_label_map, decode_mask
from qoq_data.formats.nifti import Volume, read_labels, read_volume
from qoq_data.formats.storage import FileIdentity, Store

IMAGE_FILE_LIMIT = 1 << 29
VOLUME_FILE_LIMIT = 1 << 30

TILED_PIXELS = 89_478_485
"""Most pixels of a picture that is read in windows, and of its label map: what Pillow allows at most."""

Mask = NDArray[np.bool_]
Kept = TypeVar("Kept")


@dataclass(frozen=True, slots=True)
class ReadPicture:
    """A picture, the sha256 of its file, and the file's bytes where they may stand for the picture."""

    decoded: DecodedImage
    sha256: str
    original: bytes | None


@dataclass(frozen=True, slots=True)
class Layer:
    """Where one structure is in the part of the picture that is rendered.

    ``instances`` are the parts of it that belong to one thing each, where more is known of that than what touches in
    the picture: the cross-section of a kidney may be two pieces.
    """

    label: str
    mask: Mask
    instances: tuple[Mask, ...] = ()


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
    if reference.kind == "volume":
        return _slice_picture(tree, reference)
    data = tree.read(reference.path, IMAGE_FILE_LIMIT)
    digest = hashlib.sha256(data).hexdigest()
    if reference.kind == "dicom":
        decoded = decode_dicom(data, reference.path, frame=reference.frame, display=reference.display)
    elif reference.window is not None:
        decoded = _tiled_picture(data, reference.path)
    else:
        decoded = decode_image(data, reference.path, fit=fit)
    return ReadPicture(decoded, digest, data if decoded.untouched else None)


def read_layers(
    tree: Store,
    reference: MediaReference,
    full: tuple[int, int],
    window: Window | None,
    picture: MediaReference | None = None,
) -> ReadLayers:
    """The structures that a mask or label map marks on a picture of ``full`` size (width, height), in its ``window``.

    ``volume_labels`` are cut where their ``picture`` is, and of a DICOM segmentation come the frames that lie on it.
    Raises ``RecordError``: what the readers raise, and MASK_SHAPE_MISMATCH.
    """
    if reference.kind == "volume_labels":
        return _slice_layers(tree, reference, full, picture)
    if reference.kind == "dicom_mask":
        mask, digest = _dicom_mask(tree, reference, picture)
        return _mask_layers(mask, digest, reference, full, window)
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
    return _mask_layers(decode_mask(data, reference.path), digest, reference, full, window)


def _mask_layers(
    mask: Mask, digest: str, reference: MediaReference, full: tuple[int, int], window: Window | None
) -> ReadLayers:
    cut = window or (0, 0, *full)
    taken = f"the window {span(window)}" if window else "the whole mask"
    try:
        aligned, note = align_mask(mask, full)
    except RecordError as error:
        raise RecordError(error.reason, error.detail, reference.path) from error
    layer = Layer(reference.part, aligned[cut[1] : cut[3], cut[0] : cut[2]])
    return ReadLayers((layer,), digest, ((note, taken) if window else (note,)) if note else (taken,))


def _dicom_mask(tree: Store, reference: MediaReference, picture: MediaReference | None) -> tuple[Mask, str]:
    """The mask in a DICOM file for a picture, and the sha256 of the file."""
    (data, segmentation), digest = _last_segmentation.read(tree, reference.path)
    if segmentation is None:
        return decode_dicom_mask(data, reference.path, frame=reference.frame), digest
    if picture is None or picture.kind != "dicom" or reference.frame:
        detail = "a segmentation belongs to a DICOM picture, and no frame of it is named"
        raise RecordError(Reason.FORMAT_UNSUPPORTED, detail, reference.path)
    place = picture_place(read_header(tree, picture.path, PLACE_KEYWORDS), picture.frame)
    return segmentation.mask(reference.part, place), digest


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


@dataclass(frozen=True, slots=True, eq=False)
class LabelVolume:
    """A label volume along canonical axes, and its instances."""

    volume: Volume
    instances: InstanceMap


class _Last(Generic[Kept]):
    """The last file that was read, let go before the next is: slices of a volume stand one after the other."""

    def __init__(self, decode: Callable[[bytes, str], Kept]) -> None:
        self._decode = decode
        self._key: tuple[str, str, FileIdentity] | None = None
        self._kept: tuple[Kept, str] | None = None

    def read(self, tree: Store, path: str) -> tuple[Kept, str]:
        """What the file decodes to and its sha256, both from memory where it is still the same file."""
        key = (tree.address, path, tree.identity(path))
        if self._kept is None or key != self._key:
            self._key = self._kept = None
            data = tree.read(path, VOLUME_FILE_LIMIT)
            self._kept, self._key = (self._decode(data, path), hashlib.sha256(data).hexdigest()), key
        return self._kept


def _canonical_volume(data: bytes, path: str) -> Volume:
    return to_canonical(read_volume(data, path))


def _canonical_labels(data: bytes, path: str) -> LabelVolume:
    labels = to_canonical(read_labels(data, path))
    try:
        return LabelVolume(labels, find_instances(labels.values))
    except RecordError as error:
        raise RecordError(error.reason, error.detail, path) from error


def _segmentation(data: bytes, path: str) -> tuple[bytes, Segmentation | None]:
    """A DICOM file with what it is as a segmentation, if it is one: its frames are of many pictures."""
    file = read_dicom_file(data, path)
    return data, read_segmentation(file) if is_segmentation(file) else None


_last_volume = _Last(_canonical_volume)
_last_labels = _Last(_canonical_labels)
_last_segmentation = _Last(_segmentation)


def read_label_volume(tree: Store, path: str) -> LabelVolume:
    """The label volume in a file and its instances; raises as ``read_labels`` and ``find_instances``."""
    return _last_labels.read(tree, path)[0]


def _slice_picture(tree: Store, reference: MediaReference) -> ReadPicture:
    plane, index = _slice(reference)
    volume, digest = _last_volume.read(tree, reference.path)
    pixels = volume.values.size // volume.values.shape[NORMAL_AXIS[plane]]
    if pixels > MAX_PIXELS:
        detail = f"a slice of {pixels} pixels is more than the limit of {MAX_PIXELS}"
        raise RecordError(Reason.OVER_BUDGET, detail, reference.path)
    grey, window = grey_slice(volume, plane, index, reference.display, reference.path)
    row_mm, column_mm = slice_spacing(volume.spacing_mm, plane)
    decoded = DecodedImage(
        image=Image.fromarray(grey),
        full_size=(grey.shape[1], grey.shape[0]),
        orientation_applied=1,
        source_mode=str(volume.values.dtype),
        source_format="NIfTI",
        bit_depth=8 * volume.values.dtype.itemsize,
        conversions=(f"{plane} slice {index}, {VIEWS[plane]}", *volume.taken, f"window {window}"),
        untouched=False,
        pixel_aspect=row_mm / column_mm,
        spacing_mm=(row_mm, column_mm),
        window=window,
    )
    return ReadPicture(decoded, digest, None)


def _slice_layers(
    tree: Store, reference: MediaReference, full: tuple[int, int], picture: MediaReference | None
) -> ReadLayers:
    """A layer a name, its instances those of the volume that the slice cuts; instances that are too small are left out
    of both, and counted."""
    if picture is None or picture.kind != "volume":
        detail = "a label volume belongs to a volume and no other picture"
        raise RecordError(Reason.FORMAT_UNSUPPORTED, detail, reference.path)
    plane, index = _slice(picture)
    labels, digest = _last_labels.read(tree, reference.path)
    check_agreement(_last_volume.read(tree, picture.path)[0], labels.volume, reference.path)
    names, least_mm3 = parse_volume_names(reference.part)
    voxel_mm3 = math.prod(labels.volume.spacing_mm)
    nothing = np.zeros(full[::-1], np.bool_)
    named = [one for one in sections(labels.instances, plane, index) if one[0].value in names]
    kept = [one for one in named if one[0].voxels * voxel_mm3 >= least_mm3]
    layers = []
    for name in dict.fromkeys(names.values()):
        masks = tuple(mask for instance, mask in kept if names[instance.value] == name)
        layers.append(Layer(name, np.logical_or.reduce([nothing, *masks]), masks))
    taken = [f"{plane} slice {index}", *labels.volume.taken, f"values {reference.part}"]
    if len(kept) < len(named):
        taken.append(f"{len(named) - len(kept)} instances under {least_mm3:g} mm3 left out")
    return ReadLayers(tuple(layers), digest, tuple(taken))


def _slice(reference: MediaReference) -> tuple[str, int]:
    if reference.slice is None:
        raise RecordError(Reason.FORMAT_UNSUPPORTED, "a whole volume is no picture: no slice is named", reference.path)
    return reference.slice
