"""ECG leads by name, and the algebra that ties the limb leads to I and II.

Only the spellings that publishers ship are known: any case and stray spaces (``AVR``, ``avr``, ``aVR``, ``v1``). A lead
is never taken by its position: publishers differ in the order of aVR, aVL and aVF.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from qoq_data.errors import Reason, RecordError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

MISSING_INT16 = -32768
"""Digital sample of a gap in int16 signals (WFDB signal(5): the most negative value of the format)."""

STANDARD_12 = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
LIMB_LEADS = STANDARD_12[:6]
DERIVED_LIMB_LEADS = ("III", "aVR", "aVL", "aVF")

# Rows are DERIVED_LIMB_LEADS, columns are I and II (Einthoven's law and Goldberger's definitions).
_FROM_I_AND_II = np.array([[-1.0, 1.0], [-0.5, -0.5], [1.0, -0.5], [-0.5, 1.0]])
_BY_LOWER_NAME = {name.lower(): name for name in STANDARD_12}


def canonical_lead(name: str) -> str | None:
    """Name as STANDARD_12 spells it, or None where ``name`` is not one of the twelve; case and spaces do not matter."""
    return _BY_LOWER_NAME.get("".join(name.split()).lower())


def select_leads(lead_names: Sequence[str], wanted: Sequence[str] = STANDARD_12) -> tuple[int, ...]:
    """Index in ``lead_names`` of every wanted lead, in the order wanted.

    Names outside the twelve match only as they are spelt. Raises RecordError: LEAD_MISSING where one is absent,
    LEAD_DUPLICATED where a wanted one is there twice, since neither copy can be told to be the right one.
    """
    keys = [_key(name) for name in lead_names]
    wanted_keys = [_key(name) for name in wanted]
    missing = [key for key in wanted_keys if key not in keys]
    if missing:
        raise RecordError(Reason.LEAD_MISSING, f"leads {', '.join(missing)} are not among the {len(keys)} recorded")
    doubled = [key for key in wanted_keys if keys.count(key) > 1]
    if doubled:
        raise RecordError(Reason.LEAD_DUPLICATED, f"leads {', '.join(doubled)} are recorded more than once")
    return tuple(keys.index(key) for key in wanted_keys)


def derive_limb_leads(
    lead_i_mv: npt.NDArray[np.float32], lead_ii_mv: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """III, aVR, aVL and aVF [4, samples] in millivolts from I and II [samples]; NaN in either is NaN in all four.

    III = II - I, aVR = -(I + II) / 2, aVL = I - II / 2, aVF = II - I / 2.
    """
    return np.stack(
        [
            lead_ii_mv - lead_i_mv,
            -(lead_i_mv + lead_ii_mv) / 2,
            lead_i_mv - lead_ii_mv / 2,
            lead_ii_mv - lead_i_mv / 2,
        ]
    ).astype(np.float32, copy=False)


def complete_limb_leads(
    millivolts: npt.NDArray[np.float32], lead_names: Sequence[str], wanted: Sequence[str] = STANDARD_12
) -> tuple[npt.NDArray[np.float32], tuple[str, ...]]:
    """Wanted leads [wanted, samples] in the order wanted, and the names of those that were computed, not recorded.

    A missing III, aVR, aVL or aVF is computed from I and II; the row has to say so. Raises RecordError: LEAD_MISSING
    where I, II or a chest lead is absent and needed, LEAD_DUPLICATED where a lead that is needed is there twice.
    """
    wanted_keys = [_key(name) for name in wanted]
    keys = {_key(name) for name in lead_names}
    derived = tuple(key for key in wanted_keys if key in DERIVED_LIMB_LEADS and key not in keys)
    recorded = [key for key in wanted_keys if key not in derived]
    rows = dict(zip(recorded, select_leads(lead_names, recorded), strict=True))
    complete = np.empty((len(wanted_keys), millivolts.shape[1]), np.float32)
    if derived:
        index_i, index_ii = select_leads(lead_names, ("I", "II"))
        computed = derive_limb_leads(millivolts[index_i], millivolts[index_ii])
    for position, key in enumerate(wanted_keys):
        complete[position] = computed[DERIVED_LIMB_LEADS.index(key)] if key in derived else millivolts[rows[key]]
    return complete, derived


def limb_lead_residual_mv(millivolts: npt.NDArray[np.float32], lead_names: Sequence[str]) -> dict[str, float]:
    """Root mean square of recorded minus computed, in millivolts, for each of III, aVR, aVL and aVF that is recorded.

    NaN where no sample of the three leads is there at once. Raises RecordError: LEAD_MISSING without I and II.
    """
    index_i, index_ii = select_leads(lead_names, ("I", "II"))
    computed = derive_limb_leads(millivolts[index_i], millivolts[index_ii])
    recorded = {_key(name) for name in lead_names}
    residuals = {}
    for row, name in enumerate(DERIVED_LIMB_LEADS):
        if name not in recorded:
            continue
        difference = millivolts[select_leads(lead_names, (name,))[0]].astype(np.float64) - computed[row]
        known = difference[~np.isnan(difference)]
        residuals[name] = float(np.sqrt(np.mean(known**2))) if known.size else float("nan")
    return residuals


def limb_residual_matrix() -> npt.NDArray[np.float64]:
    """[4, 6] matrix that turns LIMB_LEADS into recorded minus computed III, aVR, aVL and aVF."""
    return np.hstack([-_FROM_I_AND_II, np.eye(4)])


def _key(name: str) -> str:
    return canonical_lead(name) or name.strip()
