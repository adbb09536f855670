"""What is wrong with a recorded ECG, found in the digital samples and never repaired.

Every rule has a cheap gate over all leads and, for the few leads that pass it, an exact check, so that a clean 12-lead
record of ten seconds costs tens of microseconds. The rules are conservative: a finding is meant to be looked at.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from qoq_data.clinical.leads import (
    LIMB_LEADS,
    MISSING_INT16,
    canonical_lead,
    limb_residual_matrix,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

FLAT_S = 2.0
CLIPPED_RUN_S = 0.012
CLIPPED_RUN_SAMPLES = 4
CLIPPED_DISTANCE_MV = 0.5
BASELINE_JUMP_MV = 0.5
LIMB_TOLERANCE_MV = 0.05
AMPLITUDE_IMPLAUSIBLE_MV = 10.0
SWAP_CORRELATION = 0.7
_SPARSE_HZ = 27
_LIMB_HZ = 16
_RESIDUAL_MATRIX = limb_residual_matrix().astype(np.float32)


class FindingCode(StrEnum):
    """What a finding says; ``value`` is in the unit given here."""

    FLAT_LEAD = "flat_lead"  # share of the samples in stretches of FLAT_S or more that never change
    ALL_ZERO_LEAD = "all_zero_lead"  # 1: every sample is digital 0 or 0 mV
    CLIPPED = "clipped"  # share of the samples in runs at the lead's extreme value
    MISSING_SAMPLES = "missing_samples"  # share of the samples that are gaps
    BASELINE_JUMP = "baseline_jump"  # largest lasting step of the local median, mV
    LIMB_LEADS_DISAGREE = "limb_leads_disagree"  # root mean square of recorded minus computed from I and II, mV
    ARM_LEADS_SWAPPED_POSSIBLE = "arm_leads_swapped_possible"  # correlation of I with V6
    AMPLITUDE_IMPLAUSIBLE = "amplitude_implausible"  # largest distance from 0 mV, mV


_ORDER = {code: position for position, code in enumerate(FindingCode)}


@dataclass(frozen=True, slots=True)
class Finding:
    code: FindingCode
    lead: str
    value: float


def signal_findings(
    samples: npt.NDArray[np.int16],
    scale_mv: npt.NDArray[np.float32],
    offset_mv: npt.NDArray[np.float32],
    lead_names: Sequence[str],
    sampling_frequency_hz: float,
) -> tuple[Finding, ...]:
    """All findings of a signal [leads, samples] of which millivolts are ``samples * scale_mv + offset_mv``.

    Ordered by code and lead; the signal is not touched. Leads are told by name: without the six limb leads (and V6)
    the rules that compare leads have nothing to say. Samples of MISSING_INT16 are gaps and count for nothing but
    ``missing_samples``. Fastest for a C-contiguous array, one lead after the other in memory.
    """
    leads, length = samples.shape
    if leads == 0 or length == 0:
        return ()
    low = np.minimum.reduce(samples, axis=1)
    found: list[Finding] = []
    missing = None
    signal = samples
    if MISSING_INT16 in low.tolist():
        missing = samples == MISSING_INT16
        share = missing.mean(axis=1)
        found += [Finding(FindingCode.MISSING_SAMPLES, lead_names[i], float(share[i])) for i in np.flatnonzero(share)]
        signal = _held_over_gaps(samples, missing)
        low = np.minimum.reduce(signal, axis=1)
    high = np.maximum.reduce(signal, axis=1)
    middles, is_still = _seconds(signal, sampling_frequency_hz)
    levels_mv = np.stack((low, middles[:, middles.shape[1] // 2], high)) * scale_mv + offset_mv
    flat = _flat(samples, is_still, low == high, levels_mv[0], lead_names, hz=sampling_frequency_hz)
    found += flat
    reach_mv = np.abs(levels_mv[::2] - levels_mv[1])
    if flat:
        flat_names = {finding.lead for finding in flat}
        reach_mv[:, [name in flat_names for name in lead_names]] = 0.0
    found += _clipped(signal, missing, (low, high), reach_mv, lead_names, hz=sampling_frequency_hz)
    found += _baseline_jumps(signal, middles, scale_mv, lead_names, sampling_frequency_hz)
    found += _limb_findings(signal, missing, (scale_mv, offset_mv), levels_mv, lead_names, hz=sampling_frequency_hz)
    peak_mv = np.abs(levels_mv).max(axis=0)
    found += [
        Finding(FindingCode.AMPLITUDE_IMPLAUSIBLE, lead_names[lead], value)
        for lead, value in enumerate(peak_mv.tolist())
        if value > AMPLITUDE_IMPLAUSIBLE_MV
    ]
    if len(found) > 1:
        found.sort(key=lambda finding: _ORDER[finding.code])
    return tuple(found)


def _held_over_gaps(samples: npt.NDArray[np.int16], missing: npt.NDArray[np.bool_]) -> npt.NDArray[np.int16]:
    """Copy with every gap at its lead's median, which is neither an extreme nor a step."""
    held = samples.copy()
    for lead in np.flatnonzero(missing.any(axis=1)):
        known = samples[lead, ~missing[lead]]
        held[lead, missing[lead]] = np.partition(known, known.size // 2)[known.size // 2] if known.size else 0
    return held


def _runs(is_in: npt.NDArray[np.bool_], shortest: int) -> npt.NDArray[np.int64]:
    """Lengths of the runs of True that are ``shortest`` or longer."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], is_in, [False])).view(np.int8)))
    lengths = edges[1::2] - edges[::2]
    return lengths[lengths >= shortest]


def _seconds(
    signal: npt.NDArray[np.int16], sampling_frequency_hz: float
) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.bool_]]:
    """Middle of every second and whether it stands still [leads, seconds], from 27 samples of about a second each.

    The middle is the remedian (Rousseeuw and Bassett 1990): medians of three, of three, of three; it costs no sort.
    A signal shorter than that is one second, held at its last sample; the rest of an unfinished second is left out.
    """
    sparse = signal[:, :: _sparse_step(sampling_frequency_hz)]
    if sparse.shape[1] < _SPARSE_HZ:
        sparse = np.pad(sparse, ((0, 0), (0, _SPARSE_HZ - sparse.shape[1])), mode="edge")
    seconds = sparse.shape[1] // _SPARSE_HZ
    middles = np.ascontiguousarray(sparse[:, : seconds * _SPARSE_HZ].reshape(-1, _SPARSE_HZ).T)
    is_still = np.minimum.reduce(middles, axis=0) == np.maximum.reduce(middles, axis=0)
    for third in (9, 3, 1):
        one, two, three = middles[:third], middles[third : 2 * third], middles[2 * third :]
        middles = np.maximum(np.minimum(one, two), np.minimum(np.maximum(one, two), three))
    return middles.reshape(-1, seconds), is_still.reshape(-1, seconds)


def _sparse_step(sampling_frequency_hz: float) -> int:
    return max(1, int(sampling_frequency_hz / _SPARSE_HZ))


def _flat(
    samples: npt.NDArray[np.int16],
    is_still: npt.NDArray[np.bool_],
    is_constant: npt.NDArray[np.bool_],
    low_mv: npt.NDArray[np.float32],
    lead_names: Sequence[str],
    *,
    hz: float,
) -> list[Finding]:
    """Leads that hold one value throughout, or for FLAT_S at least: a stretch that long holds one whole second."""
    if not is_still.any():
        return []
    found = []
    for lead in np.flatnonzero(is_still.any(axis=1)):
        row = samples[lead]
        is_known = row != MISSING_INT16
        if not is_known.any():
            continue
        if is_constant[lead]:
            is_zero = row[is_known][0] == 0 or low_mv[lead] == 0
            code = FindingCode.ALL_ZERO_LEAD if is_zero else FindingCode.FLAT_LEAD
            found.append(Finding(code, lead_names[lead], 1.0))
            continue
        unchanged = (row[1:] == row[:-1]) & is_known[1:]
        flat_samples = int(np.sum(_runs(unchanged, math.ceil(FLAT_S * hz) - 1) + 1))
        if flat_samples:
            found.append(Finding(FindingCode.FLAT_LEAD, lead_names[lead], flat_samples / row.size))
    return found


def _clipped(
    signal: npt.NDArray[np.int16],
    missing: npt.NDArray[np.bool_] | None,
    extremes: tuple[npt.NDArray[np.int16], npt.NDArray[np.int16]],
    reach_mv: npt.NDArray[np.float32],
    lead_names: Sequence[str],
    *,
    hz: float,
) -> list[Finding]:
    """Runs at the lowest or highest value, far from the lead's middle: a wave's own top is never level that long."""
    leads, length = signal.shape
    shortest = max(CLIPPED_RUN_SAMPLES, math.ceil(CLIPPED_RUN_S * hz))
    clipped_samples: dict[int, int] = {}
    for extreme, distance_mv in zip(extremes, reach_mv, strict=True):
        at_extreme = signal == extreme[:, None]
        if np.count_nonzero(at_extreme) < leads + shortest - 1:
            continue
        places = np.flatnonzero(at_extreme)
        run_starts = places[: 1 - shortest][places[shortest - 1 :] - places[: 1 - shortest] == shortest - 1]
        for lead in sorted(set((run_starts // length).tolist())):
            if distance_mv[lead] < CLIPPED_DISTANCE_MV:
                continue
            row = at_extreme[lead] if missing is None else at_extreme[lead] & ~missing[lead]
            clipped_samples[lead] = clipped_samples.get(lead, 0) + int(_runs(row, shortest).sum())
    return [
        Finding(FindingCode.CLIPPED, lead_names[lead], count / length)
        for lead, count in sorted(clipped_samples.items())
        if count
    ]


def _baseline_jumps(
    signal: npt.NDArray[np.int16],
    middles: npt.NDArray[np.int16],
    scale_mv: npt.NDArray[np.float32],
    lead_names: Sequence[str],
    sampling_frequency_hz: float,
) -> list[Finding]:
    """Steps that last: most of the change between two seconds' medians happens at one place, and stays for 0.6 s.

    A wandering baseline changes as much from second to second, but evenly.
    """
    if middles.shape[1] < 3:
        return []
    # Two seconds apart, so that a step in the middle of a second is seen whole.
    middles_mv = middles * scale_mv[:, None]
    change_mv = np.abs(middles_mv[:, 2:] - middles_mv[:, :-2])
    if change_mv.max() < BASELINE_JUMP_MV:
        return []
    candidates = np.flatnonzero(change_mv.max(axis=1) >= BASELINE_JUMP_MV)
    sparse_mv = signal[candidates, :: _sparse_step(sampling_frequency_hz)] * scale_mv[candidates, None]
    near_mv, lasting_mv = _median_steps(sparse_mv, 7), _median_steps(sparse_mv, 16)
    found = []
    for row, lead in enumerate(candidates):
        steps_mv = []
        for second in np.flatnonzero(change_mv[lead] >= BASELINE_JUMP_MV):
            here = slice(second * _SPARSE_HZ, (second + 3) * _SPARSE_HZ)
            step_mv = float(lasting_mv[row, here].max())
            needed_mv = 0.7 * float(change_mv[lead, second])
            if near_mv[row, here].max() >= needed_mv and step_mv >= max(needed_mv, BASELINE_JUMP_MV):
                steps_mv.append(step_mv)
        if steps_mv:
            found.append(Finding(FindingCode.BASELINE_JUMP, lead_names[lead], max(steps_mv)))
    return found


def _median_steps(sparse_mv: npt.NDArray[np.float32], width: int) -> npt.NDArray[np.float32]:
    """Difference between the medians of the ``width`` samples after and before each place, 0 near the ends."""
    windows = np.lib.stride_tricks.sliding_window_view(sparse_mv, width, axis=1)
    medians = np.sort(windows, axis=2)[:, :, width // 2]
    steps_mv = np.zeros_like(sparse_mv)
    steps_mv[:, width : 1 - width] = np.abs(medians[:, width:] - medians[:, :-width])
    return steps_mv


@lru_cache(maxsize=64)
def _limb_positions(lead_names: tuple[str, ...]) -> tuple[tuple[int, ...], bool, int | None] | None:
    """Rows of LIMB_LEADS, whether they are the first six, and row of V6; None where a limb lead is not there once."""
    keys = [canonical_lead(name) for name in lead_names]
    if any(keys.count(name) != 1 for name in LIMB_LEADS):
        return None
    rows = tuple(keys.index(name) for name in LIMB_LEADS)
    return rows, rows == tuple(range(6)), keys.index("V6") if keys.count("V6") == 1 else None


def _limb_findings(
    signal: npt.NDArray[np.int16],
    missing: npt.NDArray[np.bool_] | None,
    calibration_mv: tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]],
    levels_mv: npt.NDArray[np.float32],
    lead_names: Sequence[str],
    *,
    hz: float,
) -> list[Finding]:
    """Limb leads against I and II, and signs of swapped arms; ``levels_mv`` are lowest, middle and highest values."""
    scale_mv, offset_mv = calibration_mv
    positions = _limb_positions(tuple(lead_names))
    if positions is None:
        return []
    rows, are_first_six, chest = positions
    step = max(1, int(hz / _LIMB_HZ))
    pick = slice(6) if are_first_six else list(rows)
    values = signal[pick, ::step]
    if missing is not None:
        values = values[:, ~missing[pick, ::step].any(axis=0)]
    if values.shape[1] < 2:
        return []
    residual_mv = (_RESIDUAL_MATRIX * scale_mv[pick]) @ values.astype(np.float32)
    residual_mv += (_RESIDUAL_MATRIX @ offset_mv[pick])[:, None]
    mean_squares = np.einsum("ij,ij->i", residual_mv, residual_mv) / values.shape[1]
    found = [
        Finding(FindingCode.LIMB_LEADS_DISAGREE, lead_names[row], math.sqrt(value))
        for row, value in zip(rows[2:], mean_squares.tolist(), strict=True)
        if value > LIMB_TOLERANCE_MV**2
    ]
    if chest is None:
        return found
    lead_i, avr = rows[0], rows[3]
    low_mv, middle_mv, high_mv = levels_mv.tolist()
    turns_up = {row: high_mv[row] + low_mv[row] > 2 * middle_mv[row] for row in (lead_i, avr, chest)}
    if not turns_up[lead_i] and turns_up[avr] and turns_up[chest]:
        correlation = _swap_correlation(signal[[lead_i, avr, chest], ::2].astype(np.float64))
        if correlation is not None:
            found.append(Finding(FindingCode.ARM_LEADS_SWAPPED_POSSIBLE, lead_names[lead_i], correlation))
    return found


def _swap_correlation(values: npt.NDArray[np.float64]) -> float | None:
    """Correlation of I with V6 where the arms look swapped, else None; ``values`` are I, aVR and V6.

    With swapped arms I is upside down as a whole, P and T with the QRS, while a right axis turns the QRS alone: so the
    waves and their slopes both have to run against V6, and aVR along with it.
    """
    slopes = np.diff(values, axis=1)
    if not (np.ptp(values, axis=1).all() and np.ptp(slopes, axis=1).all()):
        return None
    waves, edges = np.corrcoef(values), np.corrcoef(slopes)
    looks_swapped = max(waves[0, 2], edges[0, 2]) < -SWAP_CORRELATION and min(waves[1, 2], edges[1, 2]) > 0.2
    return float(waves[0, 2]) if looks_swapped else None
