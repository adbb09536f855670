"""A generated DICOM file as VinDr's publisher leaves one: the tags of their list alone, and ids that are no UIDs.

Their scripts keep a list of tags, replace UIDs by md5 digests in hexadecimal, and write 1.2.3.4 for the implementation.
"""

from __future__ import annotations

import io
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qoq_data.clinical.synthetic_dicom import write_dicom


@dataclass(frozen=True, slots=True)
class Encoding:
    """How the same picture is stored: bits, which end of the values is white, and its windows, which may be none."""

    bits: int
    is_inverted: bool
    windows: int


def stored_values(grey: NDArray[np.uint8], how: Encoding) -> NDArray[np.uint16]:
    """Values of ``how.bits`` bits that are seen as ``grey`` through ``window_attributes``, uint16 [rows, columns]."""
    full = (1 << how.bits) - 1
    values = np.rint(grey.astype(np.float64) * (full / 255)).astype(np.uint16)
    return full - values if how.is_inverted else values


def window_attributes(how: Encoding) -> dict[str, Any]:
    """The whole range as the first window; where there are several, the others would show next to nothing."""
    width = 1 << how.bits
    if not how.windows:
        return {}
    narrow = [(width // 64, 2)] * (how.windows - 1)
    centres, widths = zip((width // 2, width), *narrow, strict=True)
    several = how.windows > 1
    return {
        "WindowCenter": list(centres) if several else centres[0],
        "WindowWidth": list(widths) if several else widths[0],
    }


def published_film(
    grey: NDArray[np.uint8],
    how: Encoding,
    image: str,
    kept: Collection[str],
    attributes: Mapping[str, Any],
) -> bytes:
    """The file of a film, with no tags but those that are in ``kept``."""
    from pydicom import dcmread, dcmwrite
    from pydicom.config import disable_value_validation
    from pydicom.datadict import tag_for_keyword
    from pydicom.uid import UID

    with disable_value_validation():
        written = write_dicom(
            stored_values(grey, how),
            study=image,
            series=image,
            instance=image,
            kind="DX",
            photometric="MONOCHROME1" if how.is_inverted else "MONOCHROME2",
            bits_stored=how.bits,
            attributes={**window_attributes(how), **attributes},
        )
        data_set = dcmread(io.BytesIO(written))
        for tag in data_set.keys() - {tag_for_keyword(keyword) for keyword in kept}:
            del data_set[tag]
        data_set.file_meta.ImplementationClassUID = UID("1.2.3.4")
        data_set.file_meta.MediaStorageSOPInstanceUID = UID(image)
        dcmwrite(buffer := io.BytesIO(), data_set)
    return buffer.getvalue()
