"""Pixels of an ECG paper, worked out by hand from millimetres."""

from __future__ import annotations

import numpy as np
import pytest

from qoq_data.clinical.ecg_paper import (
    FINE_RGB,
    HEAVY_RGB,
    INK_RGB,
    PaperLayout,
    column_layout,
    draw_ecg_paper,
    picture_layout,
    standard_layout,
)
from qoq_data.clinical.leads import STANDARD_12
from qoq_data.clinical.synthetic_ecg import SyntheticECG, synthesize_ecg
from qoq_data.errors import Reason, RecordError, UsageError

# 2 s of one lead: margin 5 mm, calibration 9 mm, 50 mm of trace; 0 mV at 5 + 0.55 * 30 = 21.5 mm, which is pixel 86.
ONE_LEAD = PaperLayout(rows=(("II",),), duration_s=2.0, pixels_per_mm=4.0, trace_px=1, has_labels=False)
LEFT_PX, BASE_PX = 14 * 4, 86


def is_ink(picture: np.ndarray) -> np.ndarray:
    return (picture == INK_RGB).all(axis=2)


def draw(lead: np.ndarray, layout: PaperLayout = ONE_LEAD, hz: float = 500.0) -> np.ndarray:
    return is_ink(draw_ecg_paper(lead[None].astype(np.float32), hz, ("II",), layout))


def test_size_follows_from_millimetres() -> None:
    assert draw_ecg_paper(np.zeros((12, 5000), np.float32), 500, STANDARD_12, standard_layout()).shape == (520, 1076, 3)
    assert ONE_LEAD.shape_px == (160, 276)


@pytest.mark.parametrize("hz", [500.0, 100.0, 40.0])
def test_a_step_of_half_a_millivolt_at_one_second(hz: float) -> None:
    samples = np.zeros(int(2 * hz))
    samples[int(hz) :] = 0.5
    ink = draw(samples, hz=hz)
    step_px = LEFT_PX + 25 * 4
    assert np.flatnonzero(ink[:, step_px - 60]).tolist() == [BASE_PX]
    assert np.flatnonzero(ink[:, step_px + 60]).tolist() == [BASE_PX - 20]
    joining = np.flatnonzero(ink[:, LEFT_PX:].sum(axis=0) > 1) + LEFT_PX
    assert joining.min() >= step_px - 100 / hz - 1
    assert joining.max() <= step_px
    assert ink[BASE_PX - 20 : BASE_PX + 1, joining].any(axis=1).all()


def test_calibration_pulse_is_1_mv_and_200_ms() -> None:
    ink = draw(np.full(1000, np.nan))
    rows, columns = np.nonzero(ink)
    assert (rows.min(), rows.max()) == (BASE_PX - 40, BASE_PX)
    assert np.flatnonzero(ink[BASE_PX - 20]).tolist() == [7 * 4, 12 * 4]
    assert (columns.min(), columns.max()) == (5 * 4, LEFT_PX - 1)


def test_a_gap_is_bare_paper() -> None:
    samples = np.zeros(1000)
    samples[400:600] = np.nan
    ink = draw(samples)
    first_px, last_px = LEFT_PX + 80, LEFT_PX + 120
    assert not ink[:, first_px:last_px].any()
    assert ink[BASE_PX, LEFT_PX : first_px - 1].all()
    assert ink[BASE_PX, last_px : LEFT_PX + 199].all()
    short = draw(samples[:300])
    assert not short[:, LEFT_PX + 61 :].any()


def test_one_sample_between_samples_of_a_column_is_not_lost() -> None:
    samples = np.zeros(1000)
    samples[502] = 1.0
    assert draw(samples)[BASE_PX - 40, LEFT_PX + 100]


def test_a_trace_has_no_holes() -> None:
    signal = synthesize_ecg(SyntheticECG(), 500, 2, np.random.default_rng(0))[1]
    ink = draw(signal)
    columns = ink[:, LEFT_PX : LEFT_PX + 199]
    assert columns.any(axis=0).all()
    tops, bottoms = columns.argmax(axis=0), columns.shape[0] - 1 - columns[::-1].argmax(axis=0)
    assert (bottoms - tops + 1 == columns.sum(axis=0)).all()
    assert (tops[1:] <= bottoms[:-1] + 1).all()
    assert (bottoms[1:] >= tops[:-1] - 1).all()


def test_a_thicker_trace_grows_down_and_right_only() -> None:
    thick = PaperLayout(rows=(("II",),), duration_s=2.0, trace_px=2, has_labels=False, has_calibration=False)
    ink = draw(np.zeros(500), thick)
    rows, columns = np.nonzero(ink)
    assert sorted(set(rows.tolist())) == [BASE_PX, BASE_PX + 1]
    assert (columns.min(), columns.max()) == (20, 20 + 100)


def test_grid_lines_lie_on_millimetres() -> None:
    picture = draw_ecg_paper(np.full((1, 9), np.nan, np.float32), 500, ("II",), ONE_LEAD)
    row = picture[2]
    heavy = np.flatnonzero((row == HEAVY_RGB).all(axis=1))
    fine = np.flatnonzero((row == FINE_RGB).all(axis=1))
    assert heavy.tolist() == list(range(0, 276, 20))
    assert fine.tolist() == [x for x in range(0, 276, 4) if x % 20]


def test_every_lead_has_its_name_and_its_own_seconds() -> None:
    layout = standard_layout()
    nothing = is_ink(draw_ecg_paper(np.full((12, 5000), np.nan, np.float32), 500, STANDARD_12, layout))
    for row, names in enumerate(layout.rows):
        top = (5 + 30 * row) * 4
        for column in range(len(names)):
            left = round((14 + column * 250 / len(names)) * 4) + 3
            assert nothing[top : top + 25, left : left + 40].sum() > 10, names[column]
    stamps = [nothing[25 : 25 + 18, round((14 + c * 62.5) * 4) + 3 :][:, :45] for c in range(4)]
    assert all((stamps[0] != other).any() for other in stamps[1:])
    signal = np.full((12, 5000), np.nan, np.float32)
    v2 = signal[STANDARD_12.index("V2")]
    v2[:2500] = v2[3750:] = 0.0
    assert not (is_ink(draw_ecg_paper(signal, 500, STANDARD_12, layout)) & ~nothing).any()
    v2[:] = 0.0
    added = np.flatnonzero(
        (is_ink(draw_ecg_paper(signal, 500, STANDARD_12, layout)) & ~nothing)[:, (14 + 125) * 4 + 1 :].any(axis=0)
    )
    assert (added.min(), added.max()) == (0, 248)


def test_leads_are_found_by_name_and_a_missing_one_is_an_error() -> None:
    signal = synthesize_ecg(SyntheticECG(), 500, 10, np.random.default_rng(0))
    expected = draw_ecg_paper(signal, 500, STANDARD_12, standard_layout())
    reversed_names = [name.lower() for name in STANDARD_12[::-1]]
    np.testing.assert_array_equal(draw_ecg_paper(signal[::-1], 500, reversed_names, standard_layout()), expected)
    with pytest.raises(RecordError) as error:
        draw_ecg_paper(signal[:11], 500, STANDARD_12[:11], standard_layout())
    assert error.value.reason is Reason.LEAD_MISSING


def test_drawing_repeats_and_does_not_write_on_the_kept_paper() -> None:
    signal = synthesize_ecg(SyntheticECG(), 500, 10, np.random.default_rng(0))
    first = draw_ecg_paper(signal, 500, STANDARD_12, standard_layout())
    first_copy = first.copy()
    first[:] = 0
    np.testing.assert_array_equal(draw_ecg_paper(signal, 500, STANDARD_12, standard_layout()), first_copy)


@pytest.mark.parametrize("size", [(112, 112), (224, 96), (64, 64)])
def test_a_small_picture_has_exactly_its_size(size: tuple[int, int]) -> None:
    signal = synthesize_ecg(SyntheticECG(), 500, 10, np.random.default_rng(0))
    picture = draw_ecg_paper(signal, 500, STANDARD_12, picture_layout("II", *size))
    assert picture.shape == (size[1], size[0], 3)
    assert is_ink(picture).any(axis=0).mean() > 0.98


def test_a_column_of_leads_has_a_row_for_each() -> None:
    layout = column_layout(STANDARD_12[:3], duration_s=4.0)
    signal = np.zeros((12, 2000), np.float32)
    ink = is_ink(draw_ecg_paper(signal, 500, STANDARD_12, layout))
    for row in range(3):
        assert ink[int(layout.baseline_mm(row) * 4), 60:400].all()


def test_absurd_voltages_are_cut_at_the_edge() -> None:
    ink = draw(np.where(np.arange(1000) % 2, 1e9, -1e9))
    assert ink[:, LEFT_PX + 5 : LEFT_PX + 150].all()


def test_impossible_layouts_are_refused() -> None:
    with pytest.raises(UsageError):
        PaperLayout(rows=())
    with pytest.raises(UsageError):
        PaperLayout(rows=(("II",),), pixels_per_mm=0)
    with pytest.raises(UsageError, match="pixels"):
        PaperLayout(rows=(("II",),), pixels_per_mm=1000)
