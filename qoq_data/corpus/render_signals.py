"""One recording's files into the signal of a row: leads by name, rate and window by the recipe, findings beside."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from qoq_data.clinical.ecg_paper import column_layout, draw_ecg_paper, picture_layout, standard_layout
from qoq_data.clinical.leads import complete_limb_leads
from qoq_data.clinical.resampling import fixed_window, resample
from qoq_data.clinical.signal_quality import signal_findings
from qoq_data.errors import Reason, RecordError
from qoq_data.formats.storage import Store
from qoq_data.formats.wfdb import (
    MAX_VALUES,
    DigitalRecord,
    Empty,
    check_budget,
    decode,
    empty_int16,
    signal_file_sizes,
    signal_files,
)
from qoq_data.formats.wfdb_header import Header, parse_header
from qoq_data.formats.wfdb_packing import SignalFile
from qoq_data.recipe import PaperRecipe, SignalRecipe
from qoq_data.record import MISSING, Provenance, QualityFinding, Signal, millivolts

HEADER_LIMIT = 1 << 20
SIGNAL_FILE_LIMIT = 4 * MAX_VALUES + (1 << 16)
"""Bytes of a signal file: those of the budget in the widest format. A larger one is not read at all."""
_MILLIVOLTS_PER_UNIT = {"mv": 1.0, "uv": 1e-3, "µv": 1e-3, "μv": 1e-3, "nv": 1e-6, "v": 1e3}


@dataclass(frozen=True, slots=True)
class RenderedSignal:
    signal: Signal
    quality: tuple[QualityFinding, ...]
    provenance: tuple[Provenance, ...]


def render_signal(
    tree: Store, path: str, role: str, recipe: SignalRecipe, empty: Empty = empty_int16
) -> RenderedSignal:
    """Read, check and convert the recording whose header stands at ``path``; ``empty`` gives its samples a place.

    Raises ``RecordError`` for whatever cannot be right: see ``formats.wfdb``, and LEAD_MISSING, UNIT_UNKNOWN,
    SAMPLES_OUT_OF_RANGE and SIGNAL_ALL_MISSING.
    """
    header_bytes = tree.read(path, HEADER_LIMIT)
    header = parse_header(header_bytes, path)
    check_budget(header)
    layout = signal_files(header)
    files = _read_signal_files(tree, path, header, layout)
    record, checksum_findings = _decode(header, files, layout, recipe, empty)
    signal = _signal(record, path)
    if bool(np.maximum.reduce(signal.samples, axis=None) == MISSING):
        raise RecordError(Reason.SIGNAL_ALL_MISSING, "no lead holds a single sample", path)
    findings = signal_findings(
        signal.samples,
        np.asarray(signal.scale, dtype=np.float32),
        np.asarray(signal.offset, dtype=np.float32),
        signal.lead_names,
        signal.sampling_frequency_hz,
    )
    signal, taken = _as_asked(signal, recipe)
    quality = (*checksum_findings, *(QualityFinding(str(f.code), f.lead, round(f.value, 6)) for f in findings))
    folder = path.rpartition("/")[0]
    provenance = (
        Provenance(
            f"{role} header", path, hashlib.sha256(header_bytes).hexdigest(), "lead names, gain, baseline, rate"
        ),
        *(
            Provenance(role, f"{folder}/{name}" if folder else name, hashlib.sha256(data).hexdigest(), taken)
            for name, data in files.items()
        ),
    )
    return RenderedSignal(signal, quality, provenance)


def _read_signal_files(tree: Store, path: str, header: Header, layout: Sequence[SignalFile]) -> dict[str, bytes]:
    folder = path.rpartition("/")[0]
    files: dict[str, bytes] = {}
    for name, least in signal_file_sizes(header, layout).items():
        below = f"{folder}/{name}" if folder else name
        data = tree.read(below, SIGNAL_FILE_LIMIT)
        if len(data) < least:
            raise RecordError(Reason.FILE_TRUNCATED, f"{len(data)} bytes where the header claims {least}", below)
        files[name] = data
    return files


def _decode(
    header: Header, files: dict[str, bytes], layout: Sequence[SignalFile], recipe: SignalRecipe, empty: Empty
) -> tuple[DigitalRecord, tuple[QualityFinding, ...]]:
    try:
        return decode(header, files, layout=layout, empty=empty), ()
    except RecordError as error:
        if error.reason is not Reason.CHECKSUM_MISMATCH or recipe.checksum_mismatch == "skip":
            raise
        finding = QualityFinding("checksum_mismatch", "", 1.0)
        return decode(header, files, layout=layout, verify_checksums=False), (finding,)


def _signal(record: DigitalRecord, path: str) -> Signal:
    """Digital samples with what turns them into millivolts; wider formats are narrowed only where nothing is lost."""
    factors = [_MILLIVOLTS_PER_UNIT.get(unit.lower()) for unit in record.unit]
    if None in factors:
        raise RecordError(Reason.UNIT_UNKNOWN, "a signal's unit is not a voltage", path)
    per_unit = np.array(factors, dtype=np.float64)
    scale = per_unit / record.gain
    samples = record.samples
    if samples.dtype != np.int16:
        missing = samples == record.missing_code
        known = samples[~missing]
        if known.size and (int(known.min()) <= MISSING or int(known.max()) > -MISSING - 1):
            raise RecordError(Reason.SAMPLES_OUT_OF_RANGE, "samples do not fit 16 bits", path)
        samples = np.where(missing, MISSING, samples).astype(np.int16)
    return Signal(
        lead_names=record.lead_names,
        sampling_frequency_hz=record.sampling_frequency_hz,
        unit="mV",
        samples=samples.astype(np.int16, copy=False),
        scale=tuple(scale.tolist()),
        offset=tuple((-record.baseline * scale + 0.0).tolist()),
    )


def _as_asked(signal: Signal, recipe: SignalRecipe) -> tuple[Signal, str]:
    """The signal with the recipe's leads, rate and window, and a sentence on what was taken."""
    steps = [f"leads {' '.join(signal.lead_names)}", f"all {signal.samples.shape[1]} samples"]
    if recipe.leads is not None and recipe.leads != signal.lead_names:
        values, derived = complete_limb_leads(signal_millivolts(signal), signal.lead_names, recipe.leads)
        finest = min(signal.scale)
        signal = _digitised(
            values, replace(signal, lead_names=recipe.leads, derived_leads=derived), finest / 2 if derived else finest
        )
        steps[0] = f"leads {' '.join(recipe.leads)}" + (f" ({' '.join(derived)} computed)" if derived else "")
    if recipe.resample_hz is not None and recipe.resample_hz != signal.sampling_frequency_hz:
        native = signal.sampling_frequency_hz
        values = resample(signal_millivolts(signal), native, recipe.resample_hz)
        signal = _digitised(values, replace(signal, sampling_frequency_hz=recipe.resample_hz), min(signal.scale))
        steps.append(f"resampled from {native:g} to {recipe.resample_hz:g} Hz")
    if recipe.window_s is not None:
        length = round(recipe.window_s * signal.sampling_frequency_hz)
        if length != signal.samples.shape[1]:
            values = fixed_window(signal_millivolts(signal), length)
            signal = _digitised(values, signal, min(signal.scale))
            steps.append(f"first {recipe.window_s:g} s")
    return signal, "; ".join(steps)


def signal_millivolts(signal: Signal) -> NDArray[np.float32]:
    """A rendered signal as millivolts [leads, samples], gaps as NaN."""
    return millivolts({"unit": signal.unit, "samples": signal.samples, "scale": signal.scale, "offset": signal.offset})


def _digitised(values: NDArray[np.float32], like: Signal, scale: float) -> Signal:
    """Millivolts back into int16 at ``scale`` a step, or at the finest step that holds them without clipping."""
    peak = float(np.nanmax(np.abs(values), initial=0.0))
    scale = max(scale, peak / (-MISSING - 1))
    gaps = np.isnan(values)
    samples = np.rint(np.where(gaps, 0.0, values) / scale).astype(np.int16)
    samples[gaps] = MISSING
    leads = values.shape[0]
    return replace(like, samples=samples, scale=(scale,) * leads, offset=(0.0,) * leads)


def draw_signal(signal: Signal, recipe: PaperRecipe) -> tuple[NDArray[np.uint8], float]:
    """The signal on millimetre paper, uint8 [height, width, 3], and the pixels of a millimetre."""
    if recipe.layout == "3x4":
        layout = standard_layout(recipe.pixels_per_mm)
    elif recipe.layout == "column":
        layout = column_layout(signal.lead_names, pixels_per_mm=recipe.pixels_per_mm)
    else:
        layout = picture_layout(recipe.lead, recipe.side_px, recipe.side_px)
    drawn = draw_ecg_paper(signal_millivolts(signal), signal.sampling_frequency_hz, signal.lead_names, layout)
    return drawn, layout.pixels_per_mm
