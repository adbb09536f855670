"""What several rooms' tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # a worker of pytest-xdist a core: torch's own threads would only wait

REPOSITORY = Path(__file__).resolve().parent.parent

WHOLE_BUILDS = (
    "cli", "contract", "engines", "pitfalls", "publish", "view", "verl", "clinical/test_dicom_picture",
    "clinical/test_ecg_features", "clinical/test_ecg_intervals", "clinical/test_fingerprints",
    "clinical/test_reader_boxes", "clinical/test_rotated_copies", "clinical/test_volume", "corpus/test_build",
    "corpus/test_doctor", "corpus/test_expand", "corpus/test_hostile", "corpus/test_inspect", "corpus/test_kill",
    "corpus/test_real_files", "corpus/test_render", "corpus/test_resume", "corpus/test_shared", "corpus/test_trace",
    "corpus/test_verify", "formats/test_dicom", "formats/test_isolated", "formats/test_nifti_",
    "formats/test_wfdb_hostile", "formats/test_wfdb_real", "formats/test_workbook", "sources/test_aptos",
    "sources/test_bcss", "sources/test_brain", "sources/test_busi", "sources/test_cbis", "sources/test_ch",
    "sources/test_class", "sources/test_cmmd", "sources/test_co", "sources/test_cpsc", "sources/test_ct",
    "sources/test_georgia", "sources/test_ham", "sources/test_isic", "sources/test_jichi", "sources/test_kits23",
    "sources/test_lc25000", "sources/test_messidor", "sources/test_mimic_cxr", "sources/test_pad",
    "sources/test_rspect", "sources/test_vindr", "train/test_advantages_history", "train/test_bandit",
    "train/test_cli", "train/test_compare", "train/test_data", "train/test_differences", "train/test_distributed",
    "train/test_doctor", "train/test_endpoint", "train/test_learning", "train/test_models", "train/test_packing",
    "train/test_publish", "train/test_report", "train/test_rollout", "train/test_trainer", "train/test_trl",
    "train/test_verl", "train/test_vllm_server",
)  # fmt: skip
"""Folders and modules whose tests build corpora, damage files by the hundred or measure many: not for test-fast."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if item.path.relative_to(here).as_posix().startswith(WHOLE_BUILDS):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def realdata() -> Path:
    """Folder of real, openly licensed files; tests that need it are skipped where it is absent."""
    folder = Path(os.environ.get("QOQ_REALDATA", REPOSITORY.parent / "shared" / "realdata"))
    if not folder.is_dir():
        pytest.skip("real files are absent: set QOQ_REALDATA to their folder")
    return folder
