"""Compressed frames by pydicom's decoders, in the process that ``python -m`` starts: see ``isolated``.

Which plugin for which stream goes by measured speed; the next one is tried where one fails. Words come back as the
stream has them: pydicom's corrections of sign and colour go by the data set, and are left to who knows both.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from pydicom import uid
from pydicom.encaps import encapsulate
from pydicom.pixels.decoders.base import get_decoder

from qoq_data.formats.isolated import Message, serve

PLUGINS: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "jpeg": (uid.JPEGBaseline8Bit, ("pillow", "gdcm")),
    "jpeg_12bit": (uid.JPEGBaseline8Bit, ("gdcm",)),
    "jpeg_lossless": (uid.JPEGLossless, ("gdcm",)),
    "jpeg_ls": (uid.JPEGLSLossless, ("pyjpegls", "gdcm")),
    "jpeg_2000": (uid.JPEG2000, ("gdcm", "pylibjpeg")),
    "htj2k": (uid.HTJ2K, ("pylibjpeg",)),
    "rle": (uid.RLELossless, ("pylibjpeg", "pydicom")),
}
"""The decoder and its plugins for a kind of stream. JPEG 2000 of a film: gdcm 415 ms, pylibjpeg 624. JPEG-LS: pyjpegls
108, others 180. Under its own syntax pydicom keeps 12-bit JPEG from gdcm, which decodes it."""

_WITHOUT_SIGN: Final[Mapping[str, Any]] = {
    "number_of_frames": 1,
    "pixel_representation": 0,
    "apply_j2k_sign_correction": False,
    "correct_unused_bits": False,
}


def answer(fields: Mapping[str, Any], data: bytes) -> Message:
    """The frame, or which plugins failed."""
    syntax, plugins = PLUGINS[fields["kind"]]
    failures: list[str] = []
    for plugin in plugins:
        try:
            words, _ = get_decoder(syntax).as_array(
                encapsulate([data], has_bot=False),
                index=0,
                raw=True,
                decoding_plugin=plugin,
                **_WITHOUT_SIGN,
                **fields["options"],
            )
        except BaseException as error:  # noqa: BLE001 - a panic of a library in Rust is no Exception
            failures.append(f"{plugin}: {type(error).__name__}")
            continue
        reply = {"decoder": plugin, "failures": failures, "size": words.dtype.itemsize}
        in_order = np.ascontiguousarray(words).astype(words.dtype.newbyteorder("<"), copy=False)
        return reply, in_order.data.cast("B")
    return {"decoder": "", "failures": failures}, b""


if __name__ == "__main__":
    serve(answer)
