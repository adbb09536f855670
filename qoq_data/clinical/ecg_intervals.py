"""Heart rate and intervals of one lead, measured by neurokit2, and None wherever they cannot be told.

neurokit2 always answers: over f-waves, or where the QRS points down, it takes other waves for the QRS. So its beats and
its QRS are given only where a plain measure of the average beat agrees, and a QT only where T points up.
"""

from __future__ import annotations

import contextlib
import math
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from qoq_data.clinical.ecg_features import average_beat, detect_r_peaks, qrs_limits
from qoq_data.clinical.leads import canonical_lead
from qoq_data.errors import MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

MIN_STRETCH_S = 4.0
MIN_BEATS = 3
MIN_SWING_MV = 0.45
MAX_ALTERNATION = 0.25
RATE_AGREEMENT = 0.1
QRS_AGREEMENT_MS = 45.0
_PLAUSIBLE_BPM = (20.0, 300.0)
_PLAUSIBLE_QRS_MS = (40.0, 260.0)
_PLAUSIBLE_QT_MS = (180.0, 720.0)


@dataclass(frozen=True, slots=True)
class Intervals:
    """Medians over the beats; None where too few beats gave a plausible value."""

    heart_rate_bpm: float | None
    rr_ms: float | None
    qrs_ms: float | None
    qt_ms: float | None


NOT_MEASURED = Intervals(None, None, None, None)


def choose_lead(millivolts: npt.NDArray[np.float32], lead_names: Sequence[str]) -> int | None:
    """Lead to measure: II if it is whole and moves, else the one with fewest gaps and, of these, the widest swing.

    The swing is between the 1st and 99th percentile, and of leads beyond 10 mV none is taken. None if no lead will do.
    """
    best: tuple[bool, float, float, int] | None = None
    for lead, name in enumerate(lead_names):
        known = millivolts[lead][~np.isnan(millivolts[lead])]
        if not known.size:
            continue
        low_mv, high_mv = np.percentile(known, (1, 99))
        swing_mv = float(high_mv - low_mv)
        if not 0.1 <= swing_mv <= 10:
            continue
        share = known.size / millivolts.shape[1]
        rank = (canonical_lead(name) == "II" and share == 1.0, share, swing_mv, -lead)
        best = rank if best is None else max(best, rank)
    return None if best is None else -best[3]


def measure_intervals(millivolts_lead: npt.NDArray[np.float32], sampling_frequency_hz: float) -> Intervals:
    """Heart rate, RR, QRS duration and QT of one lead [samples] in millivolts.

    Measured in the longest stretch without a gap; all None where that is under 4 s, is flat, or has under 3 beats. QRS
    is from the R wave's onset to its offset, QT from that onset to the end of T, as neurokit2 delineates them by
    wavelets. Raises MissingExtraError where neurokit2 is not installed.
    """
    try:
        import neurokit2  # slow to import, and optional
    except ImportError as error:
        raise MissingExtraError("neurokit2", "ecg", "measuring ECG intervals") from error
    stretch = _longest_stretch(millivolts_lead).astype(np.float64)
    if stretch.size < MIN_STRETCH_S * sampling_frequency_hz or np.ptp(stretch) < 0.05:
        return NOT_MEASURED
    rate_hz = round(sampling_frequency_hz)
    # It warns of every beat that it cannot place, and fails by many kinds of error where it finds none at all.
    waves: dict[str, Any] = {}
    peaks = np.empty(0, np.int64)
    with warnings.catch_warnings(), contextlib.suppress(ValueError, IndexError, ZeroDivisionError, TypeError):
        warnings.simplefilter("ignore")
        cleaned = neurokit2.ecg_clean(stretch, sampling_rate=rate_hz)
        peaks = np.asarray(neurokit2.ecg_peaks(cleaned, sampling_rate=rate_hz)[1]["ECG_R_Peaks"])
        if peaks.size >= MIN_BEATS:
            waves = neurokit2.ecg_delineate(cleaned, peaks, sampling_rate=rate_hz, method="dwt")[1]
    if peaks.size < MIN_BEATS:
        return NOT_MEASURED
    rr_ms = float(np.median(np.diff(peaks)) / sampling_frequency_hz * 1000)
    heart_rate_bpm = 60_000 / rr_ms
    plain_peaks = detect_r_peaks(stretch[None].astype(np.float32), sampling_frequency_hz)
    plain_rr_ms = float(np.median(np.diff(plain_peaks)) / sampling_frequency_hz * 1000) if plain_peaks.size > 1 else 0.0
    beat = average_beat(stretch[None], plain_peaks, sampling_frequency_hz)
    is_agreed = abs(plain_rr_ms - rr_ms) <= RATE_AGREEMENT * rr_ms and not (
        _alternates(peaks) or _alternates(plain_peaks)
    )
    if not is_agreed or not _PLAUSIBLE_BPM[0] <= heart_rate_bpm <= _PLAUSIBLE_BPM[1]:
        return NOT_MEASURED
    qrs_ms = _median_ms(waves, "ECG_R_Onsets", "ECG_R_Offsets", sampling_frequency_hz, _PLAUSIBLE_QRS_MS)
    qt_ms = _median_ms(waves, "ECG_R_Onsets", "ECG_T_Offsets", sampling_frequency_hz, _PLAUSIBLE_QT_MS)
    is_qrs_agreed, t_points_up = _plain_view(beat, qrs_ms, rr_ms, sampling_frequency_hz)
    return Intervals(
        heart_rate_bpm, rr_ms, qrs_ms if is_qrs_agreed else None, qt_ms if is_qrs_agreed and t_points_up else None
    )


def _plain_view(
    beat: npt.NDArray[np.float64] | None, qrs_ms: float | None, rr_ms: float, sampling_frequency_hz: float
) -> tuple[bool, bool]:
    """Whether the average beat's QRS is about as long as ``qrs_ms``, and whether its T points up."""
    if beat is None or qrs_ms is None or np.ptp(beat) < MIN_SWING_MV:
        return False, False
    onset, offset = qrs_limits(beat, sampling_frequency_hz)
    is_qrs_agreed = abs((offset - onset) / sampling_frequency_hz * 1000 - qrs_ms) <= QRS_AGREEMENT_MS
    t_start = offset + round(0.06 * sampling_frequency_hz)
    t_wave = beat[0, t_start : t_start + round(0.4 * rr_ms / 1000 * sampling_frequency_hz)] - beat[0, onset]
    return is_qrs_agreed, bool(t_wave.size) and bool(t_wave.max() > -t_wave.min())


def _alternates(peaks: npt.NDArray[np.int64]) -> bool:
    """Whether long and short RR take turns: T counted as a beat, where the lead lies across the axis, or bigeminy."""
    rr = np.diff(peaks)
    return rr.size >= 4 and bool(abs(np.median(rr[::2]) - np.median(rr[1::2])) > MAX_ALTERNATION * np.median(rr))


def _longest_stretch(millivolts_lead: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    is_known = np.concatenate(([False], ~np.isnan(millivolts_lead), [False]))
    edges = np.flatnonzero(is_known[1:] != is_known[:-1])
    if not edges.size:
        return millivolts_lead[:0]
    longest = int(np.argmax(edges[1::2] - edges[::2]))
    return millivolts_lead[edges[2 * longest] : edges[2 * longest + 1]]


def _median_ms(
    waves: dict[str, Any], start: str, stop: str, sampling_frequency_hz: float, plausible_ms: tuple[float, float]
) -> float | None:
    """Median over the beats of which both marks were found and lie plausibly far apart."""
    if start not in waves or stop not in waves:
        return None
    starts, stops = np.asarray(waves[start], np.float64), np.asarray(waves[stop], np.float64)
    lengths_ms = (stops - starts) / sampling_frequency_hz * 1000
    kept = lengths_ms[(lengths_ms >= plausible_ms[0]) & (lengths_ms <= plausible_ms[1])]
    median_ms = float(np.median(kept)) if kept.size >= MIN_BEATS else math.nan
    return None if math.isnan(median_ms) else median_ms
