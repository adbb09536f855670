"""Generated 12-lead ECGs on which the finding that names them can be seen, for synthetic trees and tests.

Each wave of a beat is a Gaussian with an amplitude per lead: the frontal plane is a vector at an angle, projected on I
(0 degrees) and II (60 degrees), of which the other limb leads follow; the chest leads follow the usual progression of
R and S from V1 to V6. Amplitudes are of the size that textbooks give for adults. Nothing here stands for a person.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from qoq_data.clinical.leads import derive_limb_leads
from qoq_data.errors import UnknownNameError

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

_R_CHEST = (0.20, 0.40, 0.75, 1.25, 1.30, 1.00)
_S_CHEST = (-0.90, -1.25, -0.80, -0.40, -0.15, -0.05)
_Q_CHEST = (0.0, 0.0, 0.0, -0.02, -0.06, -0.08)
_T_CHEST = (-0.05, 0.35, 0.45, 0.40, 0.35, 0.28)
_P_CHEST = (0.06, 0.08, 0.08, 0.08, 0.08, 0.08)
_ANTERIOR = (0.7, 1.0, 1.0, 0.8, 0.2, 0.0)
_LATERAL = (0.0, 0.0, 0.2, 0.7, 1.0, 1.0)
_NO_CHEST = (0.0,) * 6


@dataclass(frozen=True, slots=True)
class SyntheticECG:
    """What one generated ECG looks like; the defaults are a normal one; ``_mv`` is millivolts, ``_ms`` milliseconds."""

    heart_rate_bpm: float = 72.0
    rr_irregularity: float = 0.02  # standard deviation of RR over its mean
    p_wave: bool = True
    fibrillation_mv: float = 0.0  # amplitude of f-waves in V1
    flutter_mv: float = 0.0  # amplitude of the saw-tooth in II, four waves a beat
    pr_ms: float = 160.0
    qrs_ms: float = 90.0
    qtc_ms: float = 405.0  # at 60 beats a minute; shortens with the root of RR (Bazett)
    conduction: Literal["normal", "left_block", "right_block"] = "normal"
    st_inferior_mv: float = 0.0
    st_lateral_mv: float = 0.0
    st_anterior_mv: float = 0.0
    t_inverted: bool = False
    q_inferior_mv: float = 0.0  # depth of an infarct's Q
    q_anterior_mv: float = 0.0
    hypertrophy: float = 0.0  # 0 none to 1: S in V1 to V3 and R in I, aVL, V5, V6 about doubled
    voltage_gain: float = 1.0
    axis_degrees: float = 50.0
    premature_every: int = 0  # every n-th beat is a premature ventricular one
    paced_spike_mv: float = 0.0
    noise_mv: float = 0.012
    baseline_wander_mv: float = 0.04


PRESETS: dict[str, SyntheticECG] = {
    "normal": SyntheticECG(),
    "sinus_bradycardia": SyntheticECG(heart_rate_bpm=46.0),
    "sinus_tachycardia": SyntheticECG(heart_rate_bpm=122.0, pr_ms=135.0),
    "atrial_fibrillation": SyntheticECG(heart_rate_bpm=95.0, rr_irregularity=0.2, p_wave=False, fibrillation_mv=0.09),
    "atrial_flutter": SyntheticECG(heart_rate_bpm=74.0, rr_irregularity=0.0, p_wave=False, flutter_mv=0.28),
    "first_degree_av_block": SyntheticECG(heart_rate_bpm=66.0, pr_ms=270.0),
    "left_bundle_branch_block": SyntheticECG(conduction="left_block", qrs_ms=150.0, axis_degrees=10.0),
    "right_bundle_branch_block": SyntheticECG(conduction="right_block", qrs_ms=140.0),
    "left_ventricular_hypertrophy": SyntheticECG(hypertrophy=1.0, axis_degrees=20.0, st_lateral_mv=-0.08),
    "inferior_infarct": SyntheticECG(q_inferior_mv=0.5, st_inferior_mv=0.12),
    "anterior_infarct": SyntheticECG(q_anterior_mv=0.9, st_anterior_mv=0.25),
    "st_depression": SyntheticECG(st_lateral_mv=-0.2, st_inferior_mv=-0.12, st_anterior_mv=-0.08),
    "t_inversion": SyntheticECG(t_inverted=True),
    "premature_ventricular": SyntheticECG(premature_every=4),
    "paced": SyntheticECG(
        heart_rate_bpm=70.0,
        rr_irregularity=0.0,
        p_wave=False,
        conduction="left_block",
        qrs_ms=165.0,
        axis_degrees=-65.0,
        paced_spike_mv=1.2,
    ),
    "left_axis": SyntheticECG(axis_degrees=-50.0),
    "right_axis": SyntheticECG(axis_degrees=120.0),
    "low_voltage": SyntheticECG(voltage_gain=0.33),
}
"""The middle of each finding; ``preset`` draws around it."""

_VARIED = {
    "heart_rate_bpm": 0.09,
    "pr_ms": 0.06,
    "qrs_ms": 0.05,
    "qtc_ms": 0.03,
    "fibrillation_mv": 0.2,
    "flutter_mv": 0.15,
    "st_inferior_mv": 0.2,
    "st_lateral_mv": 0.2,
    "st_anterior_mv": 0.2,
    "q_inferior_mv": 0.15,
    "q_anterior_mv": 0.15,
    "hypertrophy": 0.15,
    "voltage_gain": 0.12,
    "paced_spike_mv": 0.2,
    "noise_mv": 0.4,
    "baseline_wander_mv": 0.5,
}


class _Wave(NamedTuple):
    """One Gaussian: middle after R and width in seconds, frontal size in mV at an angle, and the six chest leads."""

    at_s: float
    width_s: float
    frontal_mv: float
    angle_degrees: float
    chest_mv: tuple[float, ...]


def preset(name: str, rng: np.random.Generator) -> SyntheticECG:
    """One ECG drawn evenly around the preset ``name``, up to a few tenths off in size and 12 degrees in axis.

    Raises UnknownNameError for a name that is not in PRESETS.
    """
    if name not in PRESETS:
        raise UnknownNameError(f"no synthetic ECG preset {name!r}; there are: {', '.join(PRESETS)}")
    middle = PRESETS[name]
    changes = {field: getattr(middle, field) * (1 + rng.uniform(-share, share)) for field, share in _VARIED.items()}
    return replace(middle, axis_degrees=middle.axis_degrees + rng.uniform(-12, 12), **changes)


def synthesize_ecg(
    params: SyntheticECG, sampling_frequency_hz: float, duration_s: float, rng: np.random.Generator
) -> npt.NDArray[np.float32]:
    """Signal [12, samples] float32 in millivolts in STANDARD_12 order, the same for the same state of ``rng``.

    III, aVR, aVL and aVF are exactly derive_limb_leads of I and II, noise included, since noise enters at electrodes.
    """
    length = round(duration_s * sampling_frequency_hz)
    independent = np.zeros((8, length))
    rr_s = 60.0 / params.heart_rate_bpm
    chest_gain = 1.0 + rng.uniform(-0.1, 0.1, 6)
    beat = _template(_beat_waves(params, rr_s), chest_gain, sampling_frequency_hz)
    premature = _template(_premature_waves(), chest_gain, sampling_frequency_hz) if params.premature_every else beat
    for at_s, is_premature in _beat_times(params, rr_s, duration_s, rng):
        _add(
            independent, premature if is_premature else beat, round(at_s * sampling_frequency_hz), sampling_frequency_hz
        )
    independent *= params.voltage_gain
    seconds = np.arange(length) / sampling_frequency_hz
    _add_atrial_waves(independent, params, rr_s, seconds, rng)
    if params.baseline_wander_mv:
        for lead in range(8):
            phase, frequency_hz = rng.uniform(0, 2 * math.pi), rng.uniform(0.15, 0.35)
            size_mv = params.baseline_wander_mv * rng.uniform(0.3, 1)
            independent[lead] += size_mv * np.sin(2 * math.pi * frequency_hz * seconds + phase)
    signal = np.empty((12, length), np.float32)
    noisy = independent.astype(np.float32)
    if params.noise_mv:
        noisy += np.float32(params.noise_mv) * rng.standard_normal(independent.shape, dtype=np.float32)
    signal[:2], signal[6:] = noisy[:2], noisy[2:]
    signal[2:6] = derive_limb_leads(signal[0], signal[1])
    return signal


_FIRST_BEAT_S = 0.35
_BEFORE_S, _AFTER_S = 0.45, 0.75


def _beat_times(
    params: SyntheticECG, rr_s: float, duration_s: float, rng: np.random.Generator
) -> list[tuple[float, bool]]:
    """Times of R and whether the beat is a premature one, which comes at 0.62 RR and is followed by a full pause."""
    times = []
    at_s = _FIRST_BEAT_S * rr_s - 2 * rr_s if not params.flutter_mv else 0.12 - 2 * rr_s
    number = 0
    while at_s < duration_s + 1:
        number += 1
        if params.premature_every and number % params.premature_every == 0:
            times.append((at_s - 0.38 * rr_s, True))
        else:
            times.append((at_s, False))
        at_s += rr_s * min(1.7, max(0.5, 1 + params.rr_irregularity * rng.standard_normal()))
    return times


def _beat_waves(params: SyntheticECG, rr_s: float) -> list[_Wave]:
    """Waves of a conducted (or paced) beat; time 0 is the middle of a normal QRS."""
    qrs_s = params.qrs_ms / 1000
    onset_s = -qrs_s / 2
    qt_s = params.qtc_ms / 1000 * math.sqrt(rr_s) + max(0.0, qrs_s - 0.09)
    t_width_s = 0.115 * qt_s
    t_at_s = onset_s + qt_s - 2 * t_width_s
    waves = _qrs_waves(params, qrs_s)
    if params.p_wave:
        at_s = onset_s - params.pr_ms / 1000 + 0.045
        waves.append(_Wave(at_s, 0.020, 0.13, 58, _P_CHEST))
    waves.append(_t_wave(params, t_at_s, t_width_s))
    st_start_s, st_stop_s = qrs_s / 2 + 0.035, max(qrs_s / 2 + 0.07, t_at_s - 0.3 * t_width_s)
    for fraction in (0.0, 0.5, 1.0):
        at_s = st_start_s + fraction * (st_stop_s - st_start_s)
        width_s = max(0.022, (st_stop_s - st_start_s) / 3)
        for size_mv, angle, chest in (
            (params.st_inferior_mv, 100, _NO_CHEST),
            (params.st_lateral_mv, 0, _LATERAL),
            (params.st_anterior_mv, 0, _ANTERIOR),
        ):
            if size_mv:
                frontal = 0.0 if chest is _ANTERIOR else 0.6 * size_mv
                waves.append(_Wave(at_s, width_s, frontal, angle, _scaled(chest, 0.6 * size_mv)))
    if params.paced_spike_mv:
        waves.append(
            _Wave(onset_s - 0.008, 0.001, params.paced_spike_mv, params.axis_degrees, _scaled((-1.0,) * 6, 0.7))
        )
    return waves


def _t_wave(params: SyntheticECG, at_s: float, width_s: float) -> _Wave:
    """T along the QRS of a normal beat, against it in bundle branch block, and turned by strain or an infarct."""
    normal = _Wave(at_s, width_s, 0.30, 45, _T_CHEST)
    if params.conduction == "left_block":
        wave = _Wave(at_s, width_s, 0.32, params.axis_degrees + 180, (0.45, 0.55, 0.5, 0.1, -0.3, -0.35))
    elif params.conduction == "right_block":
        wave = _Wave(at_s, width_s, 0.25, 45, (-0.35, -0.25, 0.1, 0.3, 0.3, 0.25))
    elif params.t_inverted:
        wave = normal._replace(frontal_mv=-0.25, chest_mv=(-0.15, -0.35, -0.45, -0.45, -0.38, -0.3))
    elif params.hypertrophy:
        wave = normal._replace(frontal_mv=0.12, chest_mv=(*_T_CHEST[:4], -0.1, -0.15))
    elif params.q_anterior_mv:
        wave = normal._replace(chest_mv=(-0.1, -0.2, -0.25, -0.15, 0.15, 0.2))
    elif params.q_inferior_mv:
        wave = normal._replace(angle_degrees=-20)
    else:
        wave = normal
    return wave


def _qrs_waves(params: SyntheticECG, qrs_s: float) -> list[_Wave]:
    axis = params.axis_degrees
    if params.conduction == "left_block":  # broad, notched, no Q to the left; deep and broad S in V1 to V3
        chest = (-0.75, -1.1, -1.0, -0.1, 0.75, 0.8)
        half = _Wave(-0.19 * qrs_s, 0.14 * qrs_s, 0.6, axis, chest)
        return [half, half._replace(at_s=0.17 * qrs_s, width_s=0.15 * qrs_s)]
    if params.conduction == "right_block":  # rSR' in V1; broad S in I, V5 and V6
        return [
            _Wave(-0.30 * qrs_s, 0.08 * qrs_s, 0.3, axis, (0.25, 0.3, 0.5, 0.8, 0.6, 0.5)),
            _Wave(-0.12 * qrs_s, 0.08 * qrs_s, 0.9, axis, (-0.45, -0.7, -0.1, 0.7, 1.0, 0.9)),
            _Wave(0.25 * qrs_s, 0.13 * qrs_s, 0.42, 165, (0.85, 0.6, 0.1, -0.3, -0.4, -0.4)),
        ]
    r_chest, s_chest, q_chest = np.array(_R_CHEST), np.array(_S_CHEST), np.array(_Q_CHEST)
    frontal_r_mv = 1.05 + 0.5 * params.hypertrophy
    if params.hypertrophy:
        r_chest = r_chest * (1 + params.hypertrophy * np.array((-0.2, 0.0, 0.1, 0.5, 1.1, 1.2)))
        s_chest = s_chest * (1 + params.hypertrophy * np.array((1.2, 0.8, 0.7, 0.3, 0.0, 0.0)))
    if params.q_anterior_mv:
        kept = 1 - 0.95 * np.array(_ANTERIOR)
        r_chest, s_chest = r_chest * kept, s_chest * kept
        q_chest = q_chest - params.q_anterior_mv * np.array(_ANTERIOR)
    q_frontal_mv, q_angle, q_width = -0.09, axis - 20.0, 0.075
    if params.q_inferior_mv:
        q_frontal_mv, q_angle, q_width = -params.q_inferior_mv, 100.0, 0.13
    elif params.q_anterior_mv:
        q_width = 0.14
    return [
        _Wave(-0.27 * qrs_s, q_width * qrs_s, q_frontal_mv, q_angle, tuple(q_chest)),
        _Wave(0.0, 0.105 * qrs_s, frontal_r_mv, axis, tuple(r_chest)),
        _Wave(0.27 * qrs_s, 0.095 * qrs_s, -0.16, axis + 25, tuple(s_chest)),
    ]


def _premature_waves() -> list[_Wave]:
    """A ventricular beat: no P, broad and large, T against it."""
    return [
        _Wave(-0.03, 0.028, 1.0, 80, (-0.9, -0.7, 0.2, 0.9, 1.2, 1.0)),
        _Wave(0.025, 0.030, 0.9, 95, (-1.0, -1.1, -0.3, 0.7, 1.0, 0.9)),
        _Wave(0.27, 0.060, -0.5, 85, (0.5, 0.5, 0.1, -0.4, -0.5, -0.4)),
    ]


def _scaled(chest_mv: tuple[float, ...], factor: float) -> tuple[float, ...]:
    return tuple(factor * value for value in chest_mv)


def _template(waves: list[_Wave], chest_gain: Floats, sampling_frequency_hz: float) -> Floats:
    """One beat [8, samples] of I, II, V1 to V6, of which the sample at _BEFORE_S is time 0."""
    first, last = -round(_BEFORE_S * sampling_frequency_hz), round(_AFTER_S * sampling_frequency_hz)
    seconds = np.arange(first, last) / sampling_frequency_hz
    amplitudes = np.array([
        (
            wave.frontal_mv * math.cos(math.radians(wave.angle_degrees)),
            wave.frontal_mv * math.cos(math.radians(wave.angle_degrees - 60)),
            *wave.chest_mv,
        )
        for wave in waves
    ])  # fmt: skip
    amplitudes[:, 2:] *= chest_gain
    at_s, width_s = (np.array([getattr(wave, field) for wave in waves])[:, None] for field in ("at_s", "width_s"))
    beat: Floats = amplitudes.T @ np.exp(-0.5 * ((seconds - at_s) / width_s) ** 2)
    return beat


def _add(signal: Floats, beat: Floats, at: int, sampling_frequency_hz: float) -> None:
    start = at - round(_BEFORE_S * sampling_frequency_hz)
    first, last = max(start, 0), min(start + beat.shape[1], signal.shape[1])
    if first < last:
        signal[:, first:last] += beat[:, first - start : last - start]


def _add_atrial_waves(
    independent: Floats, params: SyntheticECG, rr_s: float, seconds: Floats, rng: np.random.Generator
) -> None:
    if params.fibrillation_mv:
        waves = np.zeros_like(seconds)
        for frequency_hz in rng.uniform(4.5, 8.0, 4):
            slow = 1 + 0.5 * np.sin(2 * math.pi * rng.uniform(0.1, 0.5) * seconds + rng.uniform(0, 6))
            waves += slow * np.sin(2 * math.pi * frequency_hz * seconds + rng.uniform(0, 2 * math.pi))
        per_lead = np.array((0.2, 0.5, 1.0, 0.7, 0.4, 0.3, 0.2, 0.2)) * params.fibrillation_mv / 2
        independent += per_lead[:, None] * waves
    if params.flutter_mv:
        turn = (seconds * 4 / rr_s) % 1.0
        saw = np.where(turn < 0.7, 0.5 - turn / 0.7, -0.5 + (turn - 0.7) / 0.3)
        per_lead = np.array((0.05, 1.0, -0.6, -0.3, 0.1, 0.2, 0.2, 0.2)) * params.flutter_mv
        independent += per_lead[:, None] * saw
