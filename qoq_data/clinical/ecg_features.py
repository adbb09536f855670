"""A few measures of a 12-lead ECG by plain numpy, to show that what a label says can be seen in the signal.

They are for telling synthetic findings apart in tests, not for reading a person's ECG.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from qoq_data.clinical.leads import STANDARD_12, select_leads

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

REFRACTORY_S = 0.25
_BEFORE_S, _AFTER_S = 0.40, 0.50


@dataclass(frozen=True, slots=True)
class MedianBeat:
    """Median beat of a record [12, samples] in STANDARD_12 order against its PR segment, and where its QRS stands."""

    millivolts: Floats
    hz: float
    rr_s: Floats
    qrs_onset: int
    qrs_offset: int

    def lead(self, name: str) -> Floats:
        beat: Floats = self.millivolts[STANDARD_12.index(name)]
        return beat

    def qrs(self, name: str) -> Floats:
        return self.lead(name)[self.qrs_onset : self.qrs_offset + 1]

    def mean_after_qrs(self, name: str, first_s: float, last_s: float) -> float:
        start = self.qrs_offset + round(first_s * self.hz)
        return float(self.lead(name)[start : max(start + 1, self.qrs_offset + round(last_s * self.hz))].mean())


def detect_r_peaks(millivolts: npt.NDArray[np.float32], hz: float) -> npt.NDArray[np.int64]:
    """Samples of the QRS complexes of a signal [leads, samples]: peaks of the smoothed energy of all leads' slopes.

    A complex needs 0.3 of the usual greatest energy (median over 2 s stretches) and 0.25 s to the one before.
    Gaps count as level.
    """
    energy = _smoothed(np.sum(_slopes(_bridged(millivolts), hz) ** 2, axis=0), round(0.06 * hz))
    stretch = max(1, round(2 * hz))
    greatest = [
        energy[start : start + stretch].max() for start in range(0, max(1, energy.size - stretch // 2), stretch)
    ]
    threshold = 0.3 * float(np.median(greatest))
    if not threshold > 0:
        return np.empty(0, np.int64)
    is_top = (energy[1:-1] >= energy[:-2]) & (energy[1:-1] > energy[2:]) & (energy[1:-1] >= threshold)
    peaks: list[int] = []
    for top in (np.flatnonzero(is_top) + 1).tolist():
        if peaks and top - peaks[-1] < REFRACTORY_S * hz:
            if energy[top] > energy[peaks[-1]]:
                peaks[-1] = top
        else:
            peaks.append(top)
    return np.array(peaks, np.int64)


def median_beat(
    millivolts: npt.NDArray[np.float32], hz: float, lead_names: Sequence[str] = STANDARD_12
) -> MedianBeat | None:
    """Median of the beats that lie whole in the record, from 0.4 s before to 0.5 s after; None for fewer than two."""
    signal = _bridged(millivolts[list(select_leads(lead_names))])
    peaks = detect_r_peaks(signal.astype(np.float32), hz)
    beat = average_beat(signal, peaks, hz)
    if beat is None:
        return None
    onset, offset = qrs_limits(beat, hz)
    segment = slice(max(0, onset - round(0.03 * hz)), max(1, onset - round(0.008 * hz)))
    beat -= np.median(beat[:, segment], axis=1, keepdims=True)
    return MedianBeat(beat, hz, np.diff(peaks) / hz, onset, offset)


def average_beat(signal: Floats, peaks: npt.NDArray[np.int64], hz: float) -> Floats | None:
    """Median over the beats that lie whole in a gapless signal [leads, samples]; None for fewer than two.

    Each beat runs from 0.4 s before its peak to 0.5 s after, less its own level 0.12 to 0.06 s before the peak.
    """
    before, after = round(_BEFORE_S * hz), round(_AFTER_S * hz)
    whole = peaks[(peaks >= before) & (peaks + after <= signal.shape[1])]
    if whole.size < 2:
        return None
    beats = signal[:, whole[:, None] + np.arange(-before, after)]
    beats -= beats[:, :, before - round(0.12 * hz) : before - round(0.06 * hz)].mean(axis=2, keepdims=True)
    middle: Floats = np.median(beats, axis=1)
    return middle


def _bridged(millivolts: npt.NDArray[np.float32]) -> Floats:
    """Signal with gaps bridged by straight lines, and leads without a sample level at 0."""
    signal = np.array(millivolts, np.float64)
    is_gap = np.isnan(signal)
    for lead in np.flatnonzero(is_gap.any(axis=1)):
        known = np.flatnonzero(~is_gap[lead])
        gaps = np.flatnonzero(is_gap[lead])
        signal[lead, gaps] = np.interp(gaps, known, signal[lead, known]) if known.size else 0.0
    return signal


def _smoothed(values: Floats, width: int) -> Floats:
    width = max(1, width)
    return np.convolve(values, np.full(width, 1.0 / width), mode="same")


def _slopes(signal: Floats, hz: float) -> Floats:
    """Mean of the next 14 ms less that of the last 14 ms, which noise hardly moves [leads, samples]; 0 at the ends."""
    width = max(1, round(0.014 * hz))
    sums = np.cumsum(signal, axis=1)
    slopes = np.zeros_like(signal)
    slopes[:, width:-width] = (sums[:, 2 * width :] - 2 * sums[:, width:-width] + sums[:, : -2 * width]) / width
    return slopes


def qrs_limits(beat: Floats, hz: float) -> tuple[int, int]:
    """First and last sample of the QRS of an average beat: where the leads' slope is over 7 % of its greatest."""
    middle = round(_BEFORE_S * hz)
    slope = np.sqrt(_smoothed(np.mean(np.gradient(beat, axis=1) ** 2, axis=0), round(0.012 * hz)))
    reach = round(0.13 * hz)
    near = slope[middle - reach : middle + reach]
    over = np.flatnonzero(near >= 0.07 * near.max() + np.percentile(slope, 20))
    return middle - reach + int(over[0]), middle - reach + int(over[-1])


def _p_window(beat: MedianBeat) -> Floats:
    """Lead II before the QRS, as far back as a P may stand in this rhythm."""
    reach = round(min(0.36, 0.42 * float(np.median(beat.rr_s)) if beat.rr_s.size else 0.36) * beat.hz)
    return beat.lead("II")[max(0, beat.qrs_onset - reach) : max(1, beat.qrs_onset - round(0.03 * beat.hz))]


def _p_amplitude(beat: MedianBeat) -> float:
    window = _p_window(beat)
    return float(window.max() - np.median(window))


def _pr_interval(beat: MedianBeat) -> float:
    window = _p_window(beat)
    peak_to_onset = window.size - int(np.argmax(window)) + round(0.03 * beat.hz)
    return 1000 * peak_to_onset / beat.hz + 45.0


def _frontal_axis(beat: MedianBeat) -> float:
    """Angle of the net QRS area in I and aVF, degrees."""
    return float(np.degrees(np.arctan2(beat.qrs("aVF").sum() * 2 / np.sqrt(3), beat.qrs("I").sum())))


def _t_amplitude(beat: MedianBeat, lead: str) -> float:
    """Value farthest from the PR segment between 80 ms after the QRS and 60 % of RR, sign kept, mV."""
    start = beat.qrs_offset + round(0.08 * beat.hz)
    stop = beat.qrs_offset + round(min(0.36, 0.5 * float(np.median(beat.rr_s)) if beat.rr_s.size else 0.36) * beat.hz)
    window = beat.lead(lead)[start : max(start + 1, stop)]
    return float(window[np.argmax(np.abs(window))])


def _q_depth(beat: MedianBeat, lead: str) -> float:
    """Depth of what goes below the PR segment before the QRS's greatest upward value, mV."""
    qrs = beat.qrs(lead)
    return float(max(0.0, -qrs[: int(np.argmax(qrs)) + 1].min()))


_MEASURES: dict[str, Callable[[MedianBeat], float]] = {
    "heart_rate": lambda beat: 60.0 / float(np.median(beat.rr_s)),
    "rr_irregularity": lambda beat: float(np.std(beat.rr_s) / np.mean(beat.rr_s)),
    "p_wave_amplitude": _p_amplitude,
    "qrs_width": lambda beat: 1000.0 * (beat.qrs_offset - beat.qrs_onset) / beat.hz,
    "r_amplitude_v5": lambda beat: float(max(0.0, beat.qrs("V5").max())),
    "s_amplitude_v1": lambda beat: float(max(0.0, -beat.qrs("V1").min())),
    "st_level_v2": lambda beat: beat.mean_after_qrs("V2", 0.03, 0.07),
    "st_level_ii": lambda beat: beat.mean_after_qrs("II", 0.03, 0.07),
    "t_amplitude_v5": lambda beat: _t_amplitude(beat, "V5"),
    "t_amplitude_ii": lambda beat: _t_amplitude(beat, "II"),
    "q_depth_ii": lambda beat: _q_depth(beat, "II"),
    "q_depth_v2": lambda beat: _q_depth(beat, "V2"),
    "frontal_axis": _frontal_axis,
    "mean_qrs_amplitude": lambda beat: float(
        np.mean(np.ptp(beat.millivolts[:, beat.qrs_onset : beat.qrs_offset + 1], axis=1))
    ),
    "pr_interval": _pr_interval,
    "qrs_area_v1": lambda beat: float(beat.qrs("V1").sum() / beat.hz * 1000.0),
}


def measure_features(
    millivolts: npt.NDArray[np.float32], hz: float, lead_names: Sequence[str] = STANDARD_12
) -> dict[str, float]:
    """Every feature of a signal [leads, samples] in millivolts that has the twelve leads; NaN without two whole beats.

    Rates per minute, times in milliseconds, amplitudes in millivolts, angles in degrees, areas in mV ms. Raises
    RecordError: LEAD_MISSING or LEAD_DUPLICATED.
    """
    beat = median_beat(millivolts, hz, lead_names)
    return {name: float("nan") if beat is None else measure(beat) for name, measure in _MEASURES.items()}


def _feature(
    measure: Callable[[MedianBeat], float],
) -> Callable[[npt.NDArray[np.float32], float, Sequence[str]], float]:
    def of_signal(millivolts: npt.NDArray[np.float32], hz: float, lead_names: Sequence[str]) -> float:
        beat = median_beat(millivolts, hz, lead_names)
        return float("nan") if beat is None else measure(beat)

    return of_signal


FEATURES: dict[str, Callable[[npt.NDArray[np.float32], float, Sequence[str]], float]] = {
    name: _feature(measure) for name, measure in _MEASURES.items()
}
"""One feature at a time; ``measure_features`` finds the beats once for all."""
