"""Runs side by side: what differs, what is paired, and folders that are half written, damaged or of other corpora."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from qoq_data.errors import UsageError
from qoq_data.record import Split
from qoq_train.compare import Comparison, compare, comparison_json, comparison_markdown, short_names
from qoq_train.evaluation.metrics import differences, report
from qoq_train.evaluation.outcomes import evaluation_path
from qoq_train.evaluation.text import report_json
from qoq_train.report.evaluations import evaluations_of, with_intervals
from qoq_train.report.record import read_run
from tests.train.run_folders import answered, line, write_lines, write_run

DRPO, GRPO = {"advantage": "drpo", "clip_low": 0.2}, {"advantage": "grpo", "clip_low": 0.2}


def told(folders: list[Path], **more: Any) -> Comparison:
    found = compare(folders, replicates=20, **more)
    json.dumps(comparison_json(found), allow_nan=False)
    return found


def scores(step: int, **by_place: float) -> dict[str, float]:
    return {"step": step} | {f"{place}/macro_f1": value for place, value in by_place.items()}


@pytest.fixture
def pair(tmp_path: Path) -> list[Path]:
    one = write_run(tmp_path / "one", settings={"method": DRPO}, rows={(Split.VALIDATION, 4): answered(0.9, 1)})
    two = write_run(tmp_path / "two", settings={"method": GRPO}, rows={(Split.VALIDATION, 4): answered(0.4, 2)})
    return [one, two]


def test_what_differs_is_told_key_by_key(pair: list[Path]) -> None:
    (pair[1] / "versions.json").write_text(json.dumps({"torch": "2.4.0", "numpy": "2.3.5", "vllm": "0.32.0"}))
    found = told(pair)
    assert {one.key: one.values for one in found.recipe} == {
        "name": ("one", "two"), "method.advantage": ("drpo", "grpo")
    }  # fmt: skip
    assert {one.key: one.values for one in found.versions} == {"torch": ("2.13.0", "2.4.0"), "vllm": (None, "0.32.0")}
    assert found.warnings == ()
    text = comparison_markdown(found)
    assert "| method.advantage | drpo | grpo |" in text
    assert "someone" not in text


def test_steps_seconds_and_tokens_by_hand(pair: list[Path]) -> None:
    run = told(pair).runs[0]
    # 4 steps of 2 questions, 5 completions each of 10 tokens on average.
    assert (run.steps, run.planned, dict(run.seconds), run.sampled_tokens) == (4, 4, {"generate": 8, "update": 4}, 400)
    write_lines(pair[0] / "metrics.jsonl", [{"step": 1, "questions": 2.0}, line(2)])
    assert told(pair).runs[0].sampled_tokens is None


def test_rows_of_one_corpus_are_paired_by_patient(pair: list[Path]) -> None:
    (split,) = told(pair).splits
    (paired,) = split.final_paired
    assert paired.found == differences(answered(0.9, 1), answered(0.4, 2), replicates=20)
    assert paired.alone == 0
    first = split.final[0]
    assert first is not None
    assert first.scores["overall"] == report(answered(0.9, 1), replicates=20).overall.figures
    text = comparison_markdown(told(pair))
    assert "two less one is paired by patient on 48 rows." in text
    assert "| macro-F1 | one | two | two less one |" in text


def test_rows_that_one_run_left_out_are_counted(tmp_path: Path, pair: list[Path]) -> None:
    three = write_run(tmp_path / "three", rows={(Split.VALIDATION, 4): answered(0.9, 1)[:-3]})
    found = told([pair[0], three])
    (paired,) = found.splits[0].final_paired
    assert paired.found is not None
    assert (paired.found.rows, paired.alone) == (45, 3)
    assert any("different numbers of rows: one 48, three 45" in warning for warning in found.warnings)
    assert "3 rows that only one of them had" in comparison_markdown(found)


def test_different_corpora_are_said_aloud_and_never_paired(tmp_path: Path, pair: list[Path]) -> None:
    rows = {(Split.VALIDATION, 4): answered(0.9, 1)}
    other = write_run(tmp_path / "other", corpus={"manifest_sha256": "d1" * 32}, rows=rows)
    found = told([pair[0], other])
    assert "different corpora (one c0c0c0c0c0c0, other d1d1d1d1d1d1)" in found.warnings[0]
    assert found.splits[0].final_paired[0].unpaired == "they are of different corpora"
    text = comparison_markdown(found)
    assert text.index("Beware") < text.index("## Runs")
    assert "**not paired**" in text
    unknown = write_run(tmp_path / "unknown", corpus={}, rows=rows)
    found = told([pair[0], unknown])
    assert found.warnings == ("The corpus of unknown is not known.",)
    assert found.splits[0].final_paired[0].found is None


def test_figures_without_rows_are_unpaired(tmp_path: Path, pair: list[Path]) -> None:
    logged = write_run(tmp_path / "logged", evaluations=[scores(4, overall=0.5, ct=0.4, mri=0.6)])
    found = told([pair[0], logged])
    assert found.splits[0].final_paired[0].unpaired == "the outcome of each row was not kept by both"
    assert found.warnings == ()  # that one of them names no data sets is no difference of domains
    evaluation = found.splits[0].final[1]
    assert evaluation is not None
    assert evaluation.value("macro_f1", "mri") == 0.6


def test_runs_of_other_domains_warn_that_overall_is_another_mean(tmp_path: Path, pair: list[Path]) -> None:
    more = write_run(
        tmp_path / "more", rows={(Split.VALIDATION, 4): answered(0.5, 3, domains=("ct", "ecg"))}
    )  # fmt: skip
    found = told([pair[0], more])
    assert "one has no ecg, ecg/ecg-1; more has no mri, mri/mri-1" in found.warnings[0]
    row = next(line for line in comparison_markdown(found).splitlines() if line.startswith("| domain ecg"))
    assert row.split("|")[2].strip() == "–"
    (paired,) = found.splits[0].final_paired
    assert paired.found is not None
    assert set(paired.found.domains) == {"ct"}


def test_the_best_is_the_first_highest_and_chosen_on_validation_alone(tmp_path: Path) -> None:
    values = {2: 0.3, 4: 0.7, 6: 0.7, 8: 0.6}
    lines = [scores(step, overall=value, ct=value) for step, value in values.items()]
    lines.append({"step": 7, "overall/macro_f1": float("nan"), "ct/macro_f1": 0.9})
    test = {(Split.TEST, step): answered(0.2 * step / 2, step) for step in (4, 8)}
    runs = [write_run(tmp_path / name, evaluations=lines, rows=test) for name in ("one", "two")]
    found = told(runs)
    by_split = {one.split: one for one in found.splits}
    assert [one.step for one in by_split[Split.VALIDATION].best if one] == [4, 4]
    assert [one.step for one in by_split[Split.VALIDATION].final if one] == [8, 8]
    assert [one.step for one in by_split[Split.TEST].best if one] == [4, 4]  # although step 8 is better on test
    assert "no finite numbers, left out, of: overall/macro_f1" in found.runs[0].notes[0]
    assert told(runs, best_by="box_iou").splits[0].best == (None, None)


def test_a_report_file_and_the_rows_tell_the_same(tmp_path: Path) -> None:
    rows = answered(0.6, 5)
    run = write_run(tmp_path / "one", rows={(Split.TEST, 4): rows})
    (of_rows,), _ = evaluations_of(read_run(run))
    file = evaluation_path(run, Split.TEST, 4, ".json")
    file.write_text(json.dumps(report_json(report(rows, replicates=20))))
    (of_report,), notes = evaluations_of(read_run(run))
    assert notes == ()
    assert of_report.scores == with_intervals(of_rows, replicates=20).scores
    assert of_report.rows == 48
    for text in ("{}", "[", '{"overall": {"rows": 1, "figures": {"macro_f1": {"value": NaN}}}, "domains": {}}'):
        file.write_text(text)
        found, notes = evaluations_of(read_run(run))
        assert notes == ("step-000004-test.json is damaged, or no report of an evaluation.",)
        assert found[0].rows_file is not None


def test_a_killed_run_is_read_up_to_the_line_that_is_cut(pair: list[Path]) -> None:
    file = pair[0] / "metrics.jsonl"
    whole = file.read_bytes()
    lines = whole.splitlines(keepends=True)
    for end in range(len(whole) - len(lines[-1]) + 1, len(whole) - 1):
        file.write_bytes(whole[:end])
        run = read_run(pair[0])
        assert (run.steps, run.seconds) == (3, {"generate": 6, "update": 3})
        assert run.notes[0] == "The last line of metrics.jsonl, 4, is cut off and was left out."
    assert told(pair).runs[0].steps == 3


def test_lines_that_cannot_be_are_left_out_and_told(tmp_path: Path) -> None:
    run = write_run(tmp_path / "one")
    bad = [
        b"\x00\xff\n", b"[1]\n", b'{"step": true}\n', b'{"reward": 1}\n', b'{"step": -1}\n', b'{"step": 1.5}\n',
        b'{"step": 1e400}\n', b'{"step": NaN}\n', b'{"step": ' + b"9" * 5000 + b"}\n", b"[" * 100_000 + b"\n", b"\n",
        b'{"step": 2.0, "reward": Infinity, "reward/domain/x": "high", "seconds/update": 1e308, "tokens": 7}\n',
    ]  # fmt: skip
    file = run / "metrics.jsonl"
    file.write_bytes(file.read_bytes() + b"".join(bad))
    found = read_run(run)
    assert [each.step for each in found.metrics] == [1, 2, 3, 4]
    assert dict(found.metrics[1].figures) == {"tokens": 7.0}
    notes = " ".join(found.notes)
    assert "4 lines of metrics.jsonl are damaged and were left out: 5, 6, 13, 14." in notes
    assert "6 lines of metrics.jsonl name no step and were left out: 7, 8, 9, 10, 11, …." in notes
    assert "some steps twice, of which the later lines count: 2." in notes
    assert "no finite numbers, left out, of: reward, reward/domain/x, seconds/update." in notes


def test_half_a_folder_is_compared_for_what_it_has(tmp_path: Path, pair: list[Path]) -> None:
    begun = tmp_path / "begun"
    begun.mkdir()
    shutil.copy(pair[0] / "recipe.yaml", begun)
    found = told([pair[0], begun])
    assert (found.runs[1].steps, found.runs[1].corpus_sha256, dict(found.runs[1].seconds)) == (0, None, {})
    assert found.recipe == ()
    assert found.splits[0].final[1] is None
    assert found.splits[0].final_paired[0].unpaired == "one of the two has no such evaluation"
    for text in ("a: [", "a: &x 1\nb: *x\n", "- 1\n", "\x00"):
        (begun / "recipe.yaml").write_text(text)
        (begun / "versions.json").write_text('{"torch": ')
        found = told([pair[0], begun])
        assert found.recipe == ()  # an unreadable recipe differs in nothing that is known
        notes = " ".join(found.runs[1].notes)
        assert "recipe.yaml is damaged." in notes
        assert "versions.json is damaged." in notes
        assert "There is no metrics.jsonl." in notes


def test_damaged_rows_are_a_note_and_no_pair(pair: list[Path]) -> None:
    file = evaluation_path(pair[1], Split.VALIDATION, 4, ".parquet")
    file.write_bytes(file.read_bytes()[:-9])
    found = told(pair)
    assert found.splits[0].final[1] is None
    assert "step-000004-validation.parquet is damaged" in " ".join(found.runs[1].notes)
    shutil.copy(evaluation_path(pair[0], Split.VALIDATION, 4, ".parquet"), file.with_name("step-000009-test.parquet"))
    assert "holds rows of validation after step 4" in " ".join(told(pair).runs[1].notes)


def test_names_from_a_file_stay_in_their_cells(tmp_path: Path) -> None:
    evil = "a|b\n<script>\u202e\ud800"
    lines = [scores(4, **{"overall": 0.5, evil: 0.5})]
    runs = [write_run(tmp_path / name, evaluations=lines) for name in ("x", "y")]
    text = comparison_markdown(told(runs))
    text.encode()
    row = next(one for one in text.splitlines() if "script" in one and one.startswith("|"))
    assert row.replace("\\|", "").count("|") == 4
    assert "<script>" not in text
    assert "\u202e" not in text


def test_folders_that_are_told_apart_by_what_stands_above_them(tmp_path: Path) -> None:
    assert short_names(["/a/x/run", "/a/y/run"]) == ["x/run", "y/run"]
    assert short_names(["/a/x/run", "/a/y/walk"]) == ["run", "walk"]
    settings = [{"data": {"corpus": f"/home/someone/{name}/corpus"}} for name in ("old", "new")]
    runs = [write_run(tmp_path / str(i) / "run", settings=each) for i, each in enumerate(settings)]
    found = told(runs)
    assert [run.name for run in found.runs] == ["0/run", "1/run"]
    assert {one.key: one.values for one in found.recipe} == {"data.corpus": ("old/corpus", "new/corpus")}


def test_what_cannot_be_compared(tmp_path: Path, pair: list[Path]) -> None:
    (tmp_path / "empty").mkdir()
    for folders, said in [
        (pair[:1], "two runs or more"),
        ([pair[0], tmp_path / "one" / ".." / "one"], "stands twice"),
        ([pair[0], tmp_path / "absent"], "no run folder 'absent'"),
        ([pair[0], tmp_path / "empty"], "'empty' is no run's folder"),
    ]:
        with pytest.raises(UsageError, match=said):
            compare(folders)
    with pytest.raises(UsageError, match="no figure 'f1'"):
        compare(pair, best_by="f1")
