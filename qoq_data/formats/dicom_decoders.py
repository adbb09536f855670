"""Compressed frames by native libraries, in the process that ``python -m`` starts: see ``isolated``.

Which library for which stream goes by measured speed; the next one is tried where one fails. What they return is
brought to one form: unsigned words of 8 or 16 bits, colour by pixel, undone as far as the stream says.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qoq_data.formats.isolated import Message, serve

Frame = tuple[NDArray[Any], str]
"""Words [rows, columns] or [rows, columns, samples], and their colour: RGB or YBR_FULL where it was settled here."""


def answer(fields: Mapping[str, Any], data: bytes) -> Message:
    """The frame, or which libraries failed and how."""
    failures = []
    for name in DECODERS[fields["kind"]]:
        try:
            words, colour = name(data, fields)
            expected = (fields["rows"], fields["columns"], fields["samples"])
            words = words.reshape(expected if fields["samples"] > 1 else expected[:2])
        except BaseException as error:  # noqa: BLE001 - a panic of a library in Rust is no Exception
            failures.append(f"{name.__name__}: {type(error).__name__}")
            continue
        reply = {"decoder": name.__name__, "failures": failures, "size": words.dtype.itemsize, "colour": colour}
        in_order = np.ascontiguousarray(words).astype(f"<u{words.dtype.itemsize}", copy=False)
        return reply, in_order.data.cast("B")
    return {"decoder": "", "failures": failures}, b""


def pillow(data: bytes, fields: Mapping[str, Any]) -> Frame:
    """Lossy JPEG of 8 bits; colour is turned into RGB by libjpeg itself, which spreads shared colour smoothly."""
    from PIL import Image

    if fields["samples"] == 3:
        place = fields["frame_at"]
        data = data[:place] + _adobe_marker(transformed=fields["colour"] != "RGB") + data[place:]
    with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
        words = np.asarray(image)
    return words, "RGB" if fields["samples"] == 3 else ""


def gdcm(data: bytes, fields: Mapping[str, Any]) -> Frame:
    """JPEG of all processes up to 16 bits, JPEG-LS and JPEG 2000."""
    import gdcm as library  # type: ignore[import-untyped]

    allocated = 8 if fields["bits"] <= 8 else 16
    fragment = library.Fragment()
    fragment.SetByteStringValue(data)
    fragments = library.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = library.DataElement(library.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = library.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((fields["columns"], fields["rows"], 1))
    image.SetDataElement(element)
    colour = "RGB" if fields["samples"] == 3 else "MONOCHROME2"
    kind = library.PhotometricInterpretation.GetPIType(colour)
    image.SetPhotometricInterpretation(library.PhotometricInterpretation(kind))
    syntax = library.TransferSyntax.GetTSType(_GDCM_SYNTAXES[fields["kind"]])
    image.SetTransferSyntax(library.TransferSyntax(syntax))
    sign = int(fields["kind"] == "jpeg_2000" and fields["signed"])
    image.SetPixelFormat(library.PixelFormat(fields["samples"], allocated, fields["bits"], fields["bits"] - 1, sign))
    buffer = image.GetBuffer().encode("utf-8", "surrogateescape")
    return np.frombuffer(buffer, f"<u{allocated // 8}"), ""


def openjpeg(data: bytes, fields: Mapping[str, Any]) -> Frame:
    """JPEG 2000 and HTJ2K."""
    from openjpeg.utils import decode_pixel_data

    size = 1 if fields["bits"] <= 8 else 2
    return np.frombuffer(decode_pixel_data(data, version=2), f"<u{size}"), ""


def charls(data: bytes, fields: Mapping[str, Any]) -> Frame:
    """JPEG-LS."""
    from jpeg_ls import decode_pixel_data  # type: ignore[import-untyped]

    buffer, found = decode_pixel_data(data)
    words = np.frombuffer(buffer, f"<u{1 if fields['bits'] <= 8 else 2}")
    if fields["samples"] > 1 and found["interleave_mode"] == 0:
        words = np.moveaxis(words.reshape(fields["samples"], fields["rows"], fields["columns"]), 0, 2)
    return words, ""


def rle(data: bytes, fields: Mapping[str, Any]) -> Frame:
    """RLE Lossless (PS3.5 G)."""
    from rle.utils import decode_pixel_data

    options = {name: fields[name] for name in ("rows", "columns")} | {"bits_allocated": fields["bits"]}
    words = np.frombuffer(decode_pixel_data(data, version=2, **options), f"<u{max(1, fields['bits'] // 8)}")
    return np.moveaxis(words.reshape(fields["samples"], fields["rows"], fields["columns"]), 0, 2), ""


Decoder = Callable[[bytes, Mapping[str, Any]], Frame]

DECODERS: Final[Mapping[str, tuple[Decoder, ...]]] = {
    "jpeg": (pillow, gdcm),
    "jpeg_12bit": (gdcm,),
    "jpeg_lossless": (gdcm,),
    "jpeg_ls": (charls, gdcm),
    "jpeg_2000": (gdcm, openjpeg),
    "htj2k": (openjpeg,),
    "rle": (rle,),
}
"""JPEG 2000 of a film: gdcm 415 ms, openjpeg 624. JPEG-LS: charls 108, others 180."""

_GDCM_SYNTAXES: Final = {
    **dict.fromkeys(("jpeg", "jpeg_12bit"), "1.2.840.10008.1.2.4.51"),
    "jpeg_lossless": "1.2.840.10008.1.2.4.57",
    "jpeg_ls": "1.2.840.10008.1.2.4.80",
    "jpeg_2000": "1.2.840.10008.1.2.4.90",
}


def _adobe_marker(*, transformed: bool) -> bytes:
    return b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00" + bytes([int(transformed)])


if __name__ == "__main__":
    serve(answer)
