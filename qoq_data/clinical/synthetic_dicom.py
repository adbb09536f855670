"""Generated DICOM files: complete and valid, and the same bytes for the same arguments.

They stand for no patient: UIDs follow from a text, and no clock, host or random number goes into a file.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

Attributes = Mapping[str, Any]
"""Values by DICOM keyword: text, a number, several of either, bytes, or for a sequence a list of ``Attributes``."""

EXPLICIT_LITTLE_ENDIAN: Final = "1.2.840.10008.1.2.1"

SOP_CLASSES: Final[Mapping[str, tuple[str, str]]] = {
    "CT": ("1.2.840.10008.5.1.4.1.1.2", "CT"),
    "MR": ("1.2.840.10008.5.1.4.1.1.4", "MR"),
    "CR": ("1.2.840.10008.5.1.4.1.1.1", "CR"),
    "DX": ("1.2.840.10008.5.1.4.1.1.1.1", "DX"),
    "MG": ("1.2.840.10008.5.1.4.1.1.1.2", "MG"),
    "SC": ("1.2.840.10008.5.1.4.1.1.7", "OT"),
    "SEG": ("1.2.840.10008.5.1.4.1.1.66.4", "SEG"),
}
"""SOP class UID and modality of a kind of image."""

VIEW_CODES: Final[Mapping[str, tuple[str, str, str]]] = {
    "CC": ("399162004", "SCT", "cranio-caudal"),
    "MLO": ("399368009", "SCT", "medio-lateral oblique"),
}
"""Code, scheme and meaning of mammographic views (PS3.16 CID 4014)."""

_UID: Final = re.compile(r"[0-9]+(\.[0-9]+)+")
_SLOTS: Final = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID")


def uid_of(text: str) -> str:
    """A UID that follows from a text, under the root that PS3.5 B.2 keeps for numbers of 128 bits."""
    return f"2.25.{int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], 'big')}"


def code_item(code: str, scheme: str, meaning: str) -> Attributes:
    """An item of a sequence of codes (PS3.3 8.8)."""
    return {"CodeValue": code, "CodingSchemeDesignator": scheme, "CodeMeaning": meaning}


def view_attributes(view: str) -> Attributes:
    """ViewPosition and ViewCodeSequence of a mammogram, ``view`` being CC or MLO."""
    return {"ViewPosition": view, "ViewCodeSequence": [code_item(*VIEW_CODES[view])]}


def write_dicom(
    pixels: NDArray[Any],
    *,
    study: str,
    series: str,
    instance: str,
    kind: str = "SC",
    photometric: str = "",
    bits_stored: int | None = None,
    attributes: Attributes | None = None,
    transfer_syntax: str = EXPLICIT_LITTLE_ENDIAN,
    frames: Sequence[bytes] | None = None,
    preamble: bool = True,
) -> bytes:
    """A file of ``pixels``: uint8, int8, uint16, int16, uint32 or bool [rows, columns] or [frames, rows, columns], or
    uint8 [rows, columns, 3] with ``photometric`` RGB.

    ``study``, ``series`` and ``instance`` are UIDs, or texts that UIDs are made from. ``kind`` is one of
    ``SOP_CLASSES``. ``attributes`` come last, so that any that follow from the pixels may be overwritten, or left out
    by None. ``transfer_syntax`` is a UID; with ``frames`` these are the compressed frames in the place of the pixels.
    bool is written as words of one bit.
    """
    from pydicom.dataset import FileMetaDataset
    from pydicom.encaps import encapsulate
    from pydicom.filewriter import dcmwrite
    from pydicom.uid import UID

    colour = photometric not in ("", "MONOCHROME1", "MONOCHROME2", "PALETTE COLOR")
    shape = pixels.shape[:-1] if colour else pixels.shape
    allocated = 1 if pixels.dtype == np.bool_ else pixels.dtype.itemsize * 8
    stored = bits_stored or allocated
    sop_class, modality = SOP_CLASSES[kind]
    uids = dict(zip(_SLOTS, (study, series, instance, study), strict=True))
    values: dict[str, Any] = {
        "SOPClassUID": sop_class,
        **{slot: text if _UID.fullmatch(text) else uid_of(f"{slot} {text}") for slot, text in uids.items()},
        "Modality": modality,
        "SamplesPerPixel": 3 if colour else 1,
        "PhotometricInterpretation": photometric or "MONOCHROME2",
        "Rows": shape[-2],
        "Columns": shape[-1],
        "BitsAllocated": allocated,
        "BitsStored": stored,
        "HighBit": stored - 1,
        "PixelRepresentation": int(pixels.dtype.kind == "i"),
    }
    if colour:
        values["PlanarConfiguration"] = 0
    if len(shape) == 3:
        values["NumberOfFrames"] = shape[0]
    syntax = UID(transfer_syntax)
    values |= attributes or {}
    data_set = _data_set(values)
    data_set.file_meta = FileMetaDataset()
    data_set.file_meta.TransferSyntaxUID = syntax
    data_set.file_meta.MediaStorageSOPClassUID = data_set.SOPClassUID
    data_set.file_meta.MediaStorageSOPInstanceUID = data_set.SOPInstanceUID
    data_set.file_meta.ImplementationClassUID = UID(uid_of("qoq synthetic DICOM"))
    data_set.file_meta.ImplementationVersionName = "QOQ_SYNTHETIC"
    if frames is not None:
        data_set.PixelData = encapsulate(list(frames))
        data_set["PixelData"].VR = "OB"
    else:
        data_set.PixelData = _native(pixels, little_endian=syntax.is_little_endian)
        data_set["PixelData"].VR = "OB" if allocated <= 8 and not syntax.is_implicit_VR else "OW"
    data_set["PixelData"].is_undefined_length = frames is not None
    buffer = io.BytesIO()
    dcmwrite(buffer, data_set, enforce_file_format=True)
    return buffer.getvalue() if preamble else buffer.getvalue()[132:]


def _native(pixels: NDArray[Any], *, little_endian: bool) -> bytes:
    if pixels.dtype == np.bool_:
        data = np.packbits(pixels.ravel(), bitorder="little").tobytes()
    else:
        data = pixels.astype(pixels.dtype.newbyteorder("<" if little_endian else ">"), copy=False).tobytes()
    return data + b"\0" * (len(data) % 2)


def _data_set(values: Attributes) -> Dataset:
    from pydicom.datadict import dictionary_VR, tag_for_keyword
    from pydicom.dataelem import DataElement
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence as Items

    data_set = Dataset()
    for keyword, value in values.items():
        if value is None:
            continue
        tag = tag_for_keyword(keyword)
        if tag is None:
            raise KeyError(f"{keyword} is no DICOM keyword")
        first, _, others = dictionary_VR(tag).partition(" or ")
        vr = first
        if isinstance(value, bytes) and "OW" in others:
            vr = "OW"
        elif "SS" in others and _lowest(value) < 0:
            vr = "SS"
        written = list(value) if isinstance(value, list | tuple) else value
        if vr == "SQ":
            written = Items([_data_set(item) for item in value])
        elif vr == "DS":
            written = [_decimal(one) for one in written] if isinstance(written, list) else _decimal(written)
        data_set[tag] = DataElement(tag, vr, written)
    return data_set


def _lowest(value: Any) -> float:
    return min(value) if isinstance(value, list | tuple) else value if isinstance(value, int | float) else 0


def _decimal(value: float | str) -> str:
    """A number in the 16 characters that a decimal string has (PS3.5 6.2)."""
    from pydicom.valuerep import format_number_as_ds

    return value if isinstance(value, str) else format_number_as_ds(float(value))
