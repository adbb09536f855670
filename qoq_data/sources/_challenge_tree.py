"""Miniature releases of challenge records in their publishers' layouts: generated ECGs that show what codes say."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from qoq_data.clinical.leads import STANDARD_12
from qoq_data.clinical.synthetic_ecg import preset, synthesize_ecg
from qoq_data.formats.wfdb_write import write_record_mat

if TYPE_CHECKING:
    from collections.abc import Iterator

HZ = 500
UNASSIGNED_CODE = "999999999"
"""A number in no code list, for the record that nothing is known of."""

NONE_KNOWN, ALL_ZERO_LEAD, MERGED_LINES = 11, 3, 47
"""Which patient has the record of unknown meaning, the dead lead, and the header whose first two lines are one."""
_FIBRILLATION = {"rr_irregularity": 0.2, "p_wave": False, "fibrillation_mv": 0.09}


@dataclass(frozen=True, slots=True)
class Case:
    """A generated ECG, as a preset and changes of it, and the codes that its header has."""

    preset: str
    codes: str
    changes: Mapping[str, float | bool] = field(default_factory=dict)


COMMON_CASES = (
    Case("normal", "426783006"),
    Case("normal", "426783006"),
    Case("sinus_bradycardia", "426177001"),
    Case("sinus_tachycardia", "427084000"),
    Case("atrial_fibrillation", "164889003"),
    Case("atrial_flutter", "164890007"),
    Case("left_bundle_branch_block", "164909002,426783006"),
    Case("right_bundle_branch_block", "59118001,426783006"),
    Case("left_ventricular_hypertrophy", "164873001,426783006"),
    Case("inferior_infarct", "426783006,164865005"),
    Case("st_depression", "429622005,426783006"),
    Case("t_inversion", "59931005,426783006"),
    Case("premature_ventricular", "17338001,426783006"),
    Case("left_axis", "39732003,426783006"),
    Case("right_bundle_branch_block", "164889003,59118001", _FIBRILLATION),
)
"""Of Chapman and Georgia; the last has two classes."""

CPSC_CASES = (
    Case("normal", "426783006"),
    Case("normal", "426783006"),
    Case("atrial_fibrillation", "164889003"),
    Case("atrial_fibrillation", "164889003"),
    Case("first_degree_av_block", "270492004"),
    Case("left_bundle_branch_block", "164909002"),
    Case("right_bundle_branch_block", "59118001"),
    Case("premature_ventricular", "164884008"),
    Case("premature_ventricular", "164884008"),
    Case("st_depression", "429622005"),
    Case("normal", "164931005", {"st_anterior_mv": 0.3, "st_inferior_mv": 0.2}),
    Case("right_bundle_branch_block", "164889003,59118001", _FIBRILLATION),
)


@dataclass(frozen=True, slots=True)
class Style:
    """How one publisher writes records: where each stands, its dates, lengths in seconds, ages and comments.

    Dates, lengths, ages and sexes go round. From ``odd_from`` patients on, patient ``NONE_KNOWN`` has only a code that
    stands in no list; ``odd_headers`` adds the one whose first lines are merged, as JS01052 has them.
    """

    path_of: Callable[[int], str]
    cases: Sequence[Case]
    dates: Sequence[str]
    ages: Sequence[str] = ("",)
    sexes: Sequence[str] = ("Male", "Female")
    lengths_s: Sequence[float] = (10.0,)
    history: Sequence[str] = ("Rx", "Hx", "Sx")
    names_extension: bool = False
    odd_from: int = 0
    has_dead_lead: bool = False
    odd_headers: bool = False


def challenge_files(seed: int, patients: int, style: Style) -> dict[str, bytes]:
    """Files by relative path, one record a patient, the same bytes for the same seed and number of patients."""
    rng = np.random.default_rng(seed)
    cases = _dealt_cases(rng, style.cases)
    files: dict[str, bytes] = {}
    for patient in range(patients):
        case = next(cases)
        path = style.path_of(patient + 1)
        drawn = replace(preset(case.preset, rng), **dict(case.changes))  # type: ignore[arg-type]  # fields by name
        seconds = style.lengths_s[patient % len(style.lengths_s)]
        samples = np.rint(synthesize_ecg(drawn, HZ, seconds, rng) * 1000).astype(np.int16)
        if style.has_dead_lead and patient == ALL_ZERO_LEAD:
            samples[STANDARD_12.index("V4")] = 0
        age = style.ages[patient % len(style.ages)] or str(rng.integers(18, 89))
        is_unknown = patient == NONE_KNOWN and patients >= style.odd_from
        comments = (
            f"Age: {age}",
            f"Sex: {style.sexes[int(rng.integers(len(style.sexes)))]}",
            f"Dx: {UNASSIGNED_CODE if is_unknown else case.codes}",
            *(f"{name}: Unknown" for name in style.history),
        )
        header, data = write_record_mat(
            path.rpartition("/")[2],
            samples,
            STANDARD_12,
            HZ,
            date_text=style.dates[patient % len(style.dates)],
            comments=comments,
            names_extension=style.names_extension,
        )
        if style.odd_headers and patient == MERGED_LINES:
            header = header.replace(b"\n", b" ", 1)
        files |= {f"{path}.hea": header, f"{path}.mat": data}
    return files


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files by their relative paths."""
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)


def _dealt_cases(rng: np.random.Generator, cases: Sequence[Case]) -> Iterator[Case]:
    """Every case in a drawn order, then all again in another order, without end."""
    while True:
        for position in rng.permutation(len(cases)):
            yield cases[position]
