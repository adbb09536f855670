"""Change of sampling rate and of length, with gaps that stay gaps.

The filter is scipy's polyphase one, fed with millivolts. It would spread a NaN over its whole length, and a gap's
sentinel would become a spike, so gaps are bridged by a straight line for the filter alone and put back afterwards.
"""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Literal

import numpy as np

from qoq_data.errors import Reason, RecordError

if TYPE_CHECKING:
    import numpy.typing as npt

MAX_RATIO_TERM = 20_000
"""Largest numerator or denominator of the ratio: the filter has twenty times as many taps."""

MAX_RESAMPLED_VALUES = 1 << 28
"""Most values (leads times samples) that one call may make."""


def resampling_ratio(from_hz: float, to_hz: float) -> Fraction:
    """Exact ratio of two sampling frequencies as their decimal text gives it (333.3 is 3333/10, not its binary value).

    Raises RecordError: HEADER_INVALID for a frequency that is not a positive number, FORMAT_UNSUPPORTED for a ratio
    whose terms are beyond MAX_RATIO_TERM.
    """
    for frequency_hz in (from_hz, to_hz):
        if not (np.isfinite(frequency_hz) and frequency_hz > 0):
            raise RecordError(Reason.HEADER_INVALID, f"sampling frequency {frequency_hz} Hz is not a positive number")
    ratio = Fraction(str(float(to_hz))) / Fraction(str(float(from_hz)))
    if max(ratio.numerator, ratio.denominator) > MAX_RATIO_TERM:
        raise RecordError(Reason.FORMAT_UNSUPPORTED, f"{from_hz} Hz to {to_hz} Hz is no ratio of small whole numbers")
    return ratio


def resample(millivolts: npt.NDArray[np.float32], from_hz: float, to_hz: float) -> npt.NDArray[np.float32]:
    """Signal [leads, ceil(samples * to / from)] float32 in millivolts at ``to_hz``; a new array in every case.

    Sample 0 keeps its time. A sample of the result is NaN where the input sample nearest to it is, or where it is the
    nearest to an input sample that is, so no gap gets lost and none moves by more than half a sample. A lead with no
    sample at all stays NaN. Equal rates give the input back. Raises RecordError as resampling_ratio does, and
    OVER_BUDGET before more than MAX_RESAMPLED_VALUES would be made.

    The straight line from the first to the last sample is taken off for the filter and added again, so both ends are 0
    for it: nothing rings at the edge of a lead with an offset, and constants and slopes stay exactly as they are.
    """
    ratio = resampling_ratio(from_hz, to_hz)
    leads, length = millivolts.shape
    if ratio == 1 or millivolts.size == 0:
        out_length = -(-length * ratio.numerator // ratio.denominator)
        return np.array(millivolts, np.float32) if length else np.empty((leads, out_length), np.float32)
    up, down = ratio.numerator, ratio.denominator
    out_length = -(-length * up // down)
    if leads * max(out_length, length) > MAX_RESAMPLED_VALUES:
        raise RecordError(Reason.OVER_BUDGET, f"{leads} leads of {out_length} samples are over the budget")
    from scipy.signal import resample_poly  # here, as it brings scipy.stats and few corpora resample

    is_gap = np.isnan(millivolts)
    has_gaps = bool(is_gap.any())
    source = _bridged(millivolts, is_gap) if has_gaps else millivolts.astype(np.float32, copy=False)
    first, slope = source[:, :1], (source[:, -1:] - source[:, :1]) / np.float32(max(1, length - 1))
    line = first + slope * np.arange(length, dtype=np.float32)
    resampled = np.asarray(resample_poly(source - line, up, down, axis=1), np.float32)
    resampled += first + slope * (np.arange(out_length) * (down / up)).astype(np.float32)
    if has_gaps:
        resampled[_resampled_gaps(is_gap, up, down, out_length)] = np.nan
    return resampled


def fixed_window(
    signal: npt.NDArray[np.float32], length: int, pad: Literal["nan_at_end", "refuse"] = "nan_at_end"
) -> npt.NDArray[np.float32]:
    """First ``length`` samples [leads, length]; a shorter signal is followed by NaN, never by 0, or refused.

    Raises RecordError: SIGNAL_TOO_SHORT where the signal is shorter and ``pad`` is "refuse".
    """
    leads, recorded = signal.shape
    if recorded < length and pad == "refuse":
        raise RecordError(Reason.SIGNAL_TOO_SHORT, f"{recorded} samples where {length} are needed")
    window = np.full((leads, length), np.nan, np.float32)
    kept = min(recorded, length)
    window[:, :kept] = signal[:, :kept]
    return window


def _bridged(millivolts: npt.NDArray[np.float32], is_gap: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
    """Gaps filled by straight lines between their neighbours; at an end by the nearest value; empty leads by 0."""
    bridged = np.array(millivolts, np.float32)
    positions = np.arange(millivolts.shape[1])
    for lead in np.flatnonzero(is_gap.any(axis=1)):
        gap = is_gap[lead]
        bridged[lead, gap] = 0.0 if gap.all() else np.interp(positions[gap], positions[~gap], millivolts[lead, ~gap])
    return bridged


def _resampled_gaps(is_gap: npt.NDArray[np.bool_], up: int, down: int, out_length: int) -> npt.NDArray[np.bool_]:
    length = is_gap.shape[1]
    nearest_input = np.minimum((2 * np.arange(out_length) * down + up) // (2 * up), length - 1)
    gaps = is_gap[:, nearest_input]
    lead, position = np.nonzero(is_gap)
    gaps[lead, np.minimum((2 * position * up + down) // (2 * down), out_length - 1)] = True
    # At the ends rounding can leave the last output beyond the last input; an all-gap lead is a gap throughout.
    gaps[is_gap.all(axis=1)] = True
    return gaps
