"""The seven classes of the published ECG target, which every ECG source answers in the same words.

The keys and their order are those of CLIMB and BenchMD. ``sttc`` is a change of the ST segment or the T wave; the
published paper glosses it as sinus rates, which is wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

SEVEN_CLASSES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "normal": "Normal ECG",
        "cd": "Conduction disturbance",
        "mi": "Myocardial infarction",
        "sttc": "ST-segment or T-wave change",
        "other": "Other abnormality",
        "afib": "Atrial fibrillation or flutter",
        "hyp": "Hypertrophy",
    }
)
"""Key and text of each class, in the published order."""
